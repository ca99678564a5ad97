"""From the errors of single windows to the numbers of a report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from loopwm.stats import bootstrap
from loopwm.study.accuracy import PredictionReport
from loopwm.study.score import UncertaintyScore, score_uncertainty

# A window counts as diverged beyond this many training-set standard deviations.
DIVERGED = 100.0

# Stands in for an infinite square while intervals are resampled: infinity minus infinity is NaN.
_HUGE = 1e200


@dataclass(frozen=True)
class Scale:
    """Hold the units of errors.

    Attributes:
        obs_std: Standard deviation of each observation dimension in the training set.
        change_std: The same of its change over k steps, by k.
        reward_std: Standard deviation of the reward.
        dt: Seconds per step, or None.
    """

    obs_std: Float[ndarray, " O"]
    change_std: dict[int, Float[ndarray, " O"]]
    reward_std: float
    dt: float | None


@dataclass(frozen=True)
class WindowErrors:
    """Hold what was measured in W windows of one horizon, environment units.

    Attributes:
        horizon: Open-loop steps.
        episode: Episode of each window.
        part: Index of its part of the mixture, or None.
        error: Predicted minus true last observation.
        reward_error: Predicted minus true last reward; NaN where no reward is predicted.
        iterations: Mean iterations per step.
        settled: Share of settled steps.
        std: Stated spread of the last observation, or None.
        disagreement: Disagreement of members about it, or None.
    """

    horizon: int
    episode: Int[ndarray, " W"]
    part: Int[ndarray, " W"] | None
    error: Float[ndarray, "W O"]
    reward_error: Float[ndarray, " W"]
    iterations: Float[ndarray, " W"]
    settled: Float[ndarray, " W"]
    std: Float[ndarray, "W O"] | None = None
    disagreement: Float[ndarray, "W O"] | None = None

    @classmethod
    def none(cls, horizon: int, obs_dim: int) -> "WindowErrors":
        """Return the errors of no windows at all."""
        rows, nothing = np.zeros(0, np.int64), np.zeros(0)
        return cls(horizon, rows, rows, np.zeros((0, obs_dim)), nothing, nothing, nothing)

    @classmethod
    def joined(cls, several: Sequence["WindowErrors"]) -> "WindowErrors":
        """Return the windows of several, one after the other."""
        first = several[0]
        columns = {}
        for name in _columns():
            if getattr(first, name) is not None:
                columns[name] = np.concatenate([getattr(each, name) for each in several])
        return replace(first, **columns)

    def where(self, mask: Bool[ndarray, " W"]) -> "WindowErrors":
        """Return the windows for which `mask` holds."""
        columns = {n: getattr(self, n)[mask] for n in _columns() if getattr(self, n) is not None}
        return replace(self, **columns)


def summarise(
    name: str, measured: Sequence[WindowErrors], scale: Scale, parts: Sequence[str] = ()
) -> PredictionReport:
    """Turn the errors of windows into a report.

    Args:
        name: What was evaluated.
        measured: Errors for each horizon, ascending.
        scale: The units.
        parts: Names of the parts of the mixture; each gets a report of its own.
    """
    by_horizon = {each.horizon: _numbers(each, scale) for each in measured}
    columns: dict[str, Any] = {
        key: {k: numbers[key] for k, numbers in by_horizon.items()}
        for key in next(iter(by_horizon.values()))
    }
    scores = {each.horizon: _uncertainty(each, scale) for each in measured}
    of_parts = {
        part: summarise(name, [_of_part(each, index) for each in measured], scale)
        for index, part in enumerate(parts)
    }
    return PredictionReport(
        name=name,
        horizons=tuple(by_horizon),
        dt=scale.dt,
        **columns,
        uncertainty={k: score for k, score in scores.items() if score is not None},
        parts=of_parts,
    )


def _numbers(measured: WindowErrors, scale: Scale) -> dict[str, Any]:
    # An overflowing square is the infinity that an exploded window stands for.
    with np.errstate(over="ignore", invalid="ignore"):
        squares = _finite_or_inf((measured.error / scale.obs_std) ** 2)
        changes = _finite_or_inf((measured.error / scale.change_std[measured.horizon]) ** 2)
        rewards = (measured.reward_error / scale.reward_std) ** 2
        sizes = np.sqrt(squares.mean(axis=1))
        middle = _quantiles(sizes)
        return {
            "rmse": _root_mean(squares),
            "interval": _interval(squares, measured.episode),
            "rmse_change": _root_mean(changes),
            "interval_change": _interval(changes, measured.episode),
            "median": middle[1],
            "quartiles": (middle[0], middle[2]),
            "dimensions": tuple(_root_mean(squares[:, o]) for o in range(squares.shape[1])),
            "windows": len(sizes),
            "episodes": len(np.unique(measured.episode)),
            "diverged": _mean(~(sizes <= DIVERGED)),
            "reward": _root_mean(rewards),
            "iterations": _mean(measured.iterations),
            "settled": _mean(measured.settled),
            "by_episode": _by_episode(squares, measured.episode),
        }


def _finite_or_inf(squares: Float[ndarray, "W O"]) -> Float[ndarray, "W O"]:
    return np.where(np.isfinite(squares), squares, np.inf)


def _mean(values: ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _root_mean(squares: ndarray) -> float:
    return float(np.sqrt(squares.mean())) if squares.size else math.nan


def _quantiles(sizes: Float[ndarray, " W"]) -> tuple[float, float, float]:
    if len(sizes) == 0:
        return math.nan, math.nan, math.nan
    # Without interpolation, which would make NaN of two infinite neighbours.
    low, middle, high = np.quantile(sizes, (0.25, 0.5, 0.75), method="inverted_cdf")
    return float(low), float(middle), float(high)


def _interval(squares: Float[ndarray, "W O"], episode: Int[ndarray, " W"]) -> tuple[float, float]:
    if len(squares) == 0:
        return math.nan, math.nan
    _, index = np.unique(episode, return_inverse=True)
    sums = np.bincount(index, weights=np.minimum(squares, _HUGE).mean(axis=1))
    interval = bootstrap(sums, np.bincount(index).astype(np.float64))
    return _root(float(interval.low)), _root(float(interval.high))


def _root(end: float) -> float:
    return math.inf if end > math.sqrt(_HUGE) else math.sqrt(end)


def _by_episode(
    squares: Float[ndarray, "W O"], episode: Int[ndarray, " W"]
) -> tuple[tuple[int, int, float], ...]:
    numbers, index, counts = np.unique(episode, return_inverse=True, return_counts=True)
    sums = np.bincount(index, weights=squares.mean(axis=1), minlength=len(numbers))
    return tuple(zip(numbers.tolist(), counts.tolist(), sums.tolist(), strict=True))


def _uncertainty(measured: WindowErrors, scale: Scale) -> UncertaintyScore | None:
    if len(measured.error) == 0:
        return None
    spreads = [
        None if spread is None else spread / scale.obs_std
        for spread in (measured.std, measured.disagreement)
    ]
    return score_uncertainty(measured.error / scale.obs_std, *spreads)


def _of_part(measured: WindowErrors, index: int) -> WindowErrors:
    if measured.part is None:
        return measured
    return measured.where(measured.part == index)


def _columns() -> list[str]:
    return [each.name for each in fields(WindowErrors) if each.name != "horizon"]
