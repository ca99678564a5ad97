"""Scores of predictions against the truth, in numpy alone; each is defined by its formula."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

# Two-sided 90% of a standard normal.
NORMAL_90 = 1.6448536269514722


@dataclass(frozen=True)
class TerminationScore:
    """Say how well the probability of a terminal step is predicted, one step ahead.

    Attributes:
        auroc: Probability that a terminal step is ranked above another; NaN without both kinds.
        brier: Mean squared error of the probability.
        brier_base: The same for the share of terminal steps as a constant prediction.
        rows: Number of steps scored.
        events: Number of terminal steps among them.
    """

    auroc: float
    brier: float
    brier_base: float
    rows: int
    events: int


@dataclass(frozen=True)
class UncertaintyScore:
    """Say how well the stated spread fits the error at one horizon.

    Attributes:
        nll: Mean negative log density per dimension, observations in training-set standard
            deviations, of a normal with the predicted mean and spread.
        coverage: Share of values inside the central 90% of that normal.
        spearman: Rank correlation, over windows, of error with spread.
        spearman_disagreement: The same with the disagreement of the members; NaN for one model.
    """

    nll: float
    coverage: float
    spearman: float
    spearman_disagreement: float


def ranks(values: Shaped[ndarray, " N"]) -> Float[ndarray, " N"]:
    """Rank values from 1, ties sharing the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def auroc(score: Shaped[ndarray, " N"], event: Bool[ndarray, " N"]) -> float:
    """Compute the area under the receiver operating characteristic (ties count one half)."""
    positive = int(event.sum())
    negative = len(event) - positive
    if positive == 0 or negative == 0:
        return float("nan")
    above = ranks(score)[event].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def spearman(a: Shaped[ndarray, " N"], b: Shaped[ndarray, " N"]) -> float:
    """Compute Spearman's rank correlation; NaN where one side is constant."""
    rank_a, rank_b = ranks(a), ranks(b)
    if len(a) < 2 or rank_a.std() == 0 or rank_b.std() == 0:
        return float("nan")
    return float(np.corrcoef(rank_a, rank_b)[0, 1])


def score_termination(
    probability: Float[ndarray, " N"], event: Bool[ndarray, " N"]
) -> TerminationScore:
    """Score predicted probabilities of a terminal step against what happened."""
    share = float(event.mean()) if len(event) else float("nan")
    return TerminationScore(
        auroc=auroc(probability, event),
        brier=float(np.mean((probability - event) ** 2)) if len(event) else float("nan"),
        brier_base=share * (1 - share),
        rows=len(event),
        events=int(event.sum()),
    )


def score_uncertainty(
    error: Float[ndarray, "W O"],
    std: Float[ndarray, "W O"] | None,
    disagreement: Float[ndarray, "W O"] | None,
) -> UncertaintyScore | None:
    """Score a predicted spread; all inputs in training-set standard deviations.

    Args:
        error: Predicted minus true observation; rows that are not finite are left out.
        std: Stated spread, or None; an ensemble's is that of its mixture.
        disagreement: Standard deviation of the members' means, or None; it stands in for the
            spread of a model that states no other.

    Returns:
        The scores, or None for a model that states no spread.
    """
    stated = disagreement if std is None else std
    if stated is None:
        return None
    spread = np.maximum(stated, 1e-6)
    usable = np.isfinite(error).all(1) & np.isfinite(spread).all(1)
    if not usable.any():
        nan = float("nan")
        return UncertaintyScore(nan, nan, nan, nan)
    error, spread = error[usable], spread[usable]
    z = error / spread
    size = np.sqrt((error**2).mean(1))
    between = float("nan")
    if disagreement is not None:
        between = spearman(size, np.sqrt((disagreement[usable] ** 2).mean(1)))
    return UncertaintyScore(
        nll=float((0.5 * z**2 + np.log(spread) + 0.5 * np.log(2 * np.pi)).mean()),
        coverage=float((np.abs(z) <= NORMAL_90).mean()),
        spearman=spearman(size, np.sqrt((spread**2).mean(1))),
        spearman_disagreement=between,
    )
