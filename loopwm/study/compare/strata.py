"""Errors by difficulty: test windows sorted by each label of the dataset, in thirds."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.study.compare.terms import Terms
from loopwm.study.depth import LABEL
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.windows import Sampling, window_rows

THIRDS = ("easiest third", "middle third", "hardest third")

# By label, horizon and third: for each episode its number, windows and sum of squared errors.
Strata = dict[str, dict[str, list[list[list[float]]]]]


def labels_of(data: RolloutDataset) -> dict[str, Float[ndarray, " N"]]:
    """Return the difficulty labels of a dataset by name, without those that are not all known."""
    labels = {
        name.removeprefix(LABEL): column.astype(np.float64)
        for name, column in data.info.items()
        if name.startswith(LABEL)
    }
    return {name: column for name, column in labels.items() if np.isfinite(column).all()}


def measure_strata(model: Any, test: RolloutDataset, train: RolloutDataset, terms: Terms) -> Strata:
    """Measure open-loop errors apart for easy and hard windows.

    The difficulty of a window is the mean of the label over its steps. The windows are those that
    the comparison reports, and errors have the same unit.

    Args:
        model: Anything with the three verbs.
        test: Held-out experience with columns `difficulty/...`.
        train: Training data, for the units of modules of the user's own.
        terms: Horizons, windows and context.

    Returns:
        Squared errors by label, horizon (as text, for JSON) and third; a third may be empty, where
        many windows are equally difficult.
    """
    labels, found = labels_of(test), {}
    stats = getattr(model, "stats", None)
    stats = stats if isinstance(stats, Statistics) else Statistics.of(train)
    sampling = Sampling(max_windows=terms.windows)
    for k in terms.horizons if labels else ():
        rows = window_rows(test, k, terms.context - 1, sampling)
        if len(rows) == 0:
            continue
        seen = imagine_windows(model, test, rows, k, Imagination(terms.context))
        error = (seen.obs[:, -1].astype(np.float64) - test.next_obs[rows + k - 1]) / stats.obs_std
        squares = np.square(error).mean(axis=1)
        squares = np.where(np.isfinite(squares), squares, np.inf)
        for name, column in labels.items():
            which = thirds(window_means(column, rows, k))
            tables = [_by_episode(squares, test.episode[rows], which == n) for n in range(3)]
            found.setdefault(name, {})[str(k)] = tables
    return found


def window_means(
    column: Float[ndarray, " N"], rows: Int[ndarray, " W"], k: int
) -> Float[ndarray, " W"]:
    """Return the mean of a column over the k rows of each window."""
    sums = np.concatenate([[0.0], np.cumsum(column)])
    return (sums[rows + k] - sums[rows]) / k


def thirds(values: Float[ndarray, " W"]) -> Int[ndarray, " W"]:
    """Sort values into thirds, equal ones into the same: 0 for the smallest, 2 for the largest."""
    # Sums of a whole column differ in the last digits where windows do not.
    values = np.round(values, 9)
    edges = np.quantile(values, (1 / 3, 2 / 3), method="inverted_cdf")
    return np.searchsorted(edges, values, side="left")


def _by_episode(
    squares: Float[ndarray, " W"], episode: Int[ndarray, " W"], chosen: ndarray
) -> list[list[float]]:
    numbers, index, counts = np.unique(episode[chosen], return_inverse=True, return_counts=True)
    sums = np.bincount(index, weights=squares[chosen], minlength=len(numbers))
    columns = (numbers.tolist(), counts.tolist(), sums.tolist())
    return [list(each) for each in zip(*columns, strict=True)]
