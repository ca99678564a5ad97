"""Rank correlations that hold other quantities still, with intervals over episodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from loopwm.errors import DataError
from loopwm.study.score import ranks

_RESAMPLES = 1_000


@dataclass(frozen=True)
class Correlation:
    """Hold a rank correlation and the ends of its interval; NaN where a side is constant.

    Attributes:
        value: The correlation, in [-1, 1].
        low: Lower end of the 95% interval over episodes.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def ends(self) -> list[float] | None:
        """The value and the ends of its interval, or None where there is none."""
        return None if np.isnan(self.value) else [self.value, self.low, self.high]


def rank_correlation(
    x: Shaped[ndarray, " N"],
    y: Shaped[ndarray, " N"],
    episode: Int[ndarray, " N"],
    controls: Sequence[Shaped[ndarray, " N"]] = (),
    *,
    seed: int = 0,
) -> Correlation:
    """Compute Spearman's correlation of x and y, or the partial one given the controls.

    All are replaced by their ranks; what is left of x and y after a linear fit on the controls is
    correlated. The interval is a percentile bootstrap that draws whole episodes: steps of one are
    alike. Ranks are those of all rows in every draw.

    Args:
        x: One side.
        y: The other.
        episode: Episode of each row.
        controls: What is held still.
        seed: Seed of the resampling.

    Raises:
        DataError: If there are fewer than 3 rows beyond the controls, or a value is NaN.
    """
    columns = [np.asarray(each, dtype=np.float64) for each in (x, y, *controls)]
    if len(x) < len(columns) + 1:
        raise DataError(
            f"a correlation given {len(controls)} controls needs more rows, got {len(x)}"
        )
    if not all(np.isfinite(each).all() for each in columns):
        raise DataError("a correlation needs finite values: leave out rows without labels first")
    ranked = np.stack([ranks(each) for each in columns], axis=1)
    ranked = (ranked - ranked.mean(axis=0)) / np.maximum(ranked.std(axis=0), 1e-300)
    design = np.concatenate([np.ones((len(ranked), 1)), ranked], axis=1)
    _, index = np.unique(episode, return_inverse=True)
    # Moments of each episode: a draw of episodes is then a weighted sum of small matrices.
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(index.max() + 1))
    products = design[order, :, None] * design[order, None, :]
    moments = np.add.reduceat(products, starts, axis=0)
    counts = np.random.default_rng(seed).multinomial(
        len(moments), np.full(len(moments), 1 / len(moments)), size=_RESAMPLES
    )
    drawn = np.tensordot(counts, moments, axes=1)
    values = _partial(np.concatenate([moments.sum(axis=0)[None], drawn]))
    if np.isnan(values[0]):
        return Correlation(np.nan, np.nan, np.nan)
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return Correlation(float(values[0]), float(low), float(high))


def _partial(moments: Float[ndarray, "R P P"]) -> Float[ndarray, " R"]:
    """Return the partial correlation of columns 1 and 2 given the constant and the others."""
    given = [0, *range(3, moments.shape[1])]
    cross = moments[:, given][:, :, [1, 2]]
    inner = moments[:, given][:, :, given]
    inverse = np.linalg.pinv(inner, hermitian=True)
    left = moments[:, 1:3, 1:3] - cross.transpose(0, 2, 1) @ inverse @ cross
    # What is left of a side that the controls explain is rounding.
    variances = left[:, [0, 1], [0, 1]]
    safe = (variances > 1e-9 * moments[:, :1, 0]).all(axis=1)
    scale = np.sqrt(np.where(safe, variances.prod(axis=1), 1.0))
    return np.where(safe, left[:, 0, 1] / scale, np.nan)
