"""How much one more iteration is worth: the exponent phi of the scaling law of looped models.

L = E + A (N_once + r^phi N_rec)^-alpha + B D^-beta: of N_once parameters that are applied once and
N_rec that are applied r times, the latter count as r^phi times as many (arXiv 2604.21106). At
phi = 0 iterations are worth nothing, at phi = 1 as much as parameters of their own; looped language
models have 0.46 there.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from loopwm.errors import DataError
from loopwm.seed import numpy_rng

_STEPS = 200
_PHI = 0
# Beyond this an iteration would be worth more than parameters of its own several times over: errors
# that do not fall with size drive phi there, and say nothing of it.
_MOST_PHI = 3.0


@dataclass(frozen=True, eq=False)
class Runs:
    """Hold what trained models found, C cells of S seeds.

    Attributes:
        loops: Iterations r of each cell.
        once: Parameters applied once.
        repeated: Parameters of the cell that is repeated.
        rows: Transitions trained on.
        errors: Error of each seed, positive.
        horizon: Open-loop steps of those errors.
        left_out: Cells that lack a seed, or whose error is not finite.
    """

    loops: Float[ndarray, " C"]
    once: Float[ndarray, " C"]
    repeated: Float[ndarray, " C"]
    rows: Float[ndarray, " C"]
    errors: Float[ndarray, "C S"]
    horizon: int = 1
    left_out: int = 0


@dataclass(frozen=True)
class Law:
    """State a fitted law.

    Attributes:
        phi: What an iteration is worth, as an exponent.
        low: Lower end of its 95% interval; NaN where each cell has one seed, which does not say how
            trainings differ.
        high: Upper end, or NaN.
        alpha: Exponent of the effective parameters.
        beta: Exponent of the data; NaN where all cells had the same data.
        floor: The error E that no size and no data would go below.
        r2: Share of the variance of the logarithms of errors that the law explains.
        cells: Number of cells.
        horizon: Open-loop steps of the errors.
        left_out: Cells that lack a seed, or whose error is not finite.
    """

    phi: float
    low: float
    high: float
    alpha: float
    beta: float
    floor: float
    r2: float
    cells: int
    horizon: int = 1
    left_out: int = 0

    def worth(self, loops: float) -> float:
        """Return how many times its parameters a cell counts for that is applied `loops` times."""
        return loops**self.phi


def fit_law(runs: Runs, *, resamples: int = 400, seed: int = 0) -> Law:
    """Fit the law by least squares of logarithms of errors, and bootstrap phi over seeds.

    Args:
        runs: The cells.
        resamples: Bootstrap draws of the seeds of every cell.
        seed: Seed of the draws.

    Raises:
        DataError: If there are fewer than two numbers of iterations or too few cells, if an error
            is not positive and finite, or if errors do not depend on size.
    """
    _check(runs)
    target = np.log(runs.errors).mean(axis=1)
    starts = _starts(target, bool(len(np.unique(runs.rows)) > 1))
    fitted = _descend(runs, np.repeat(target[None], len(starts), axis=0), starts)
    losses = ((_model(runs, fitted)[0] - target) ** 2).sum(axis=1)
    best = fitted[losses.argmin()]
    if abs(best[_PHI]) >= _MOST_PHI:
        raise DataError(
            "errors hardly depend on size here, so that what an iteration is worth in parameters "
            "cannot be told; add smaller models"
        )
    spread = np.sum((target - target.mean()) ** 2)
    low, high = _interval(runs, best, resamples, seed)
    with_data = len(best) > 4
    return Law(
        phi=float(best[_PHI]),
        low=low,
        high=high,
        alpha=float(np.exp(best[2])),
        beta=float(np.exp(best[5])) if with_data else float("nan"),
        floor=float(np.exp(best[3])),
        r2=float(1 - losses.min() / spread) if spread > 0 else float("nan"),
        cells=len(runs.loops),
        horizon=runs.horizon,
        left_out=runs.left_out,
    )


def _interval(
    runs: Runs, best: Float[ndarray, " P"], resamples: int, seed: int
) -> tuple[float, float]:
    """Return the interval of phi over seeds; NaN with one seed, whose draws are all the same."""
    cells, seeds = runs.errors.shape
    if seeds < 2:
        return float("nan"), float("nan")
    picks = numpy_rng(seed, "law").integers(seeds, size=(resamples, cells, seeds))
    drawn = np.take_along_axis(np.log(runs.errors)[None], picks, axis=2).mean(axis=2)
    again = _descend(runs, drawn, np.repeat(best[None], resamples, axis=0))[:, _PHI]
    low, high = np.quantile(again, (0.025, 0.975))
    return float(low), float(high)


def _check(runs: Runs) -> None:
    cells = len(runs.loops)
    if len(np.unique(runs.loops)) < 2 or cells < 6:
        raise DataError(
            f"the law needs at least 2 numbers of iterations and 6 cells, got "
            f"{len(np.unique(runs.loops))} and {cells}; train more of them"
        )
    if not (np.isfinite(runs.errors).all() and (runs.errors > 0).all()):
        raise DataError("errors must be positive and finite; leave diverged cells out")


def _starts(target: Float[ndarray, " C"], with_data: bool) -> Float[ndarray, "R P"]:
    """Return several points to descend from: phi, log A, log alpha, log E, log B, log beta."""
    least, most = target.min(), target.max()
    rows = []
    for phi in (0.1, 0.5, 1.0):
        for alpha in (0.2, 0.6):
            for floor in (least - 3.0, least - 0.7):
                plain = [phi, most - 0.5, np.log(alpha), floor]
                rows.append([*plain, most - 2.0, np.log(0.5)] if with_data else plain)
    return np.array(rows)


def _model(
    runs: Runs, theta: Float[ndarray, "R P"]
) -> tuple[Float[ndarray, "R C"], Float[ndarray, "R C P"]]:
    """Return the logarithm of the law at every cell and its gradient."""
    phi, log_a, log_alpha, log_e = (theta[:, [i]] for i in range(4))
    alpha = np.exp(log_alpha)
    scale = np.exp(np.log(runs.once + runs.repeated).mean())
    grown = runs.repeated / scale * runs.loops**phi
    effective = runs.once / scale + grown
    sized = np.exp(log_a - alpha * np.log(effective))
    parts = [np.exp(log_e) + sized]
    slopes = [
        -alpha * sized / effective * grown * np.log(runs.loops),
        sized,
        -alpha * np.log(effective) * sized,
        np.broadcast_to(np.exp(log_e), sized.shape),
    ]
    if theta.shape[1] > 4:
        beta = np.exp(theta[:, [5]])
        data = np.log(runs.rows) - np.log(runs.rows).mean()
        fed = np.exp(theta[:, [4]] - beta * data)
        parts.append(fed)
        slopes += [fed, -beta * data * fed]
    total = np.sum(parts, axis=0)
    return np.log(total), np.stack(slopes, axis=2) / total[..., None]


def _descend(
    runs: Runs, targets: Float[ndarray, "R C"], theta: Float[ndarray, "R P"]
) -> Float[ndarray, "R P"]:
    """Minimise the squared residuals of R fits at once (Levenberg and Marquardt)."""
    damping = np.full(len(theta), 1e-2)
    # Logarithms and exponents within what could mean anything: nothing overflows.
    least, most = np.full(theta.shape[1], -25.0), np.full(theta.shape[1], 12.0)
    least[_PHI], most[_PHI] = -_MOST_PHI, _MOST_PHI
    value, slope = _model(runs, theta)
    loss = ((value - targets) ** 2).sum(axis=1)
    eye = np.eye(theta.shape[1])
    for _ in range(_STEPS):
        normal = slope.transpose(0, 2, 1) @ slope
        pull = (slope.transpose(0, 2, 1) @ (targets - value)[..., None])[..., 0]
        step = np.linalg.solve(normal + damping[:, None, None] * eye, pull[..., None])[..., 0]
        tried = np.clip(theta + np.clip(step, -1.0, 1.0), least, most)
        new_value, new_slope = _model(runs, tried)
        new_loss = ((new_value - targets) ** 2).sum(axis=1)
        better = new_loss < loss
        damping = np.clip(np.where(better, damping / 4, damping * 3), 1e-12, 1e6)
        theta = np.where(better[:, None], tried, theta)
        value = np.where(better[:, None], new_value, value)
        slope = np.where(better[:, None, None], new_slope, slope)
        loss = np.where(better, new_loss, loss)
    return theta
