"""Which windows of real experience an evaluation looks at."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from loopwm.data.replay import full_window_starts
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.seed import numpy_rng


@dataclass(frozen=True)
class Sampling:
    """Say how many windows are evaluated, which, and how many at once.

    The same sampling on the same test set draws the same windows for every model, so that models
    can be compared window by window.

    Attributes:
        max_windows: Most windows for each horizon, at least 1.
        seed: Seed of the draw.
        batch_size: Windows imagined at once, at least 1; it does not change the numbers beyond
            rounding.
        history: Real steps that must precede each window, or None for those that `context` uses.
            Set it to evaluate models with different contexts on the same windows.
        ceiling_windows: Most windows restarted in the simulator; 0 leaves that reference out.
    """

    max_windows: int = 2000
    seed: int = 0
    batch_size: int = 1024
    history: int | None = None
    ceiling_windows: int = 200

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If a number is out of range.
        """
        for name, least in (("max_windows", 1), ("batch_size", 1), ("ceiling_windows", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.history is not None and self.history < 0:
            raise ConfigError(f"history must be None or at least 0, got {self.history}")


def draw_rows(rows: Int[ndarray, " N"], count: int, rng: np.random.Generator) -> Int[ndarray, " W"]:
    """Draw rows evenly spread: one at random from each of `count` equal stretches of the list.

    Every row has the same chance, and long stretches of experience (whole episodes) are neither
    missed nor crowded, as they can be in a simple random draw.

    Args:
        rows: Candidates, in row order.
        count: Most rows to draw, at least 1; all rows are returned where there are no more.
        rng: Source of randomness.

    Returns:
        The drawn rows, ascending and distinct.
    """
    if len(rows) <= count:
        return rows
    # Whole stretches differ in length by one; where they begin is random, so that is fair too.
    edges = ((np.arange(count + 1) + rng.random()) * len(rows) / count).astype(np.int64)
    picks = rng.integers(edges[:-1], edges[1:]) % len(rows)
    return np.sort(rows[picks])


def window_rows(
    dataset: RolloutDataset,
    horizon: int,
    history: int,
    sampling: Sampling,
    keep: Bool[ndarray, " N"] | None = None,
) -> Int[ndarray, " W"]:
    """Draw the first rows of the windows evaluated at one horizon.

    Args:
        dataset: Where the windows lie.
        horizon: Steps of each window.
        history: Steps that must precede it in the same episode.
        sampling: How many and which.
        keep: Rows that may be drawn, or None for all.
    """
    rows = full_window_starts(dataset, history + horizon) + history
    if keep is not None:
        rows = rows[keep[rows]]
    rng = numpy_rng(sampling.seed, "windows", horizon)
    return draw_rows(rows, sampling.max_windows, rng)


def change_std(dataset: RolloutDataset, horizon: int, seed: int = 0) -> Float[ndarray, " O"]:
    """Measure the standard deviation of the change of each dimension over `horizon` steps.

    Args:
        dataset: Experience; up to 20,000 windows are used.
        horizon: Steps of the change, at least 1.
        seed: Seed of the draw.

    Returns:
        One number for each dimension; 1 where the dimension does not change, NaN without windows.
    """
    rows = window_rows(dataset, horizon, 0, Sampling(max_windows=20_000, seed=seed))
    if len(rows) == 0:
        return np.full(dataset.obs_dim, np.nan)
    change = dataset.next_obs[rows + horizon - 1].astype(np.float64) - dataset.obs[rows]
    std = change.std(axis=0)
    floor = 1e-6 * np.maximum(dataset.obs.std(axis=0), 1e-12)
    return np.where(std > floor, std, 1.0)
