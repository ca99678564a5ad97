"""Means and spreads of a dataset's columns, by which a model normalises."""

from dataclasses import dataclass, replace

import numpy as np

from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError

# A dimension whose spread is below this share of its largest magnitude is rounding noise around a
# constant; dividing by that noise would turn it into the loudest input.
RELATIVE_FLOOR = 1e-6
# Changes below this share of the largest magnitude are noise too. Models compute in float32 and can
# tell no such changes apart, but those above it may be meant (see `check_precision`).
_NOISE = 1e-10
# Largest rounding of an observation to float32 over the standard deviation of its change.
_ROUNDING = 0.01


@dataclass(frozen=True, eq=False)
class Statistics:
    """Hold the statistics that normalise inputs and targets, all float32.

    A dimension that is constant has a spread of 1.

    Attributes:
        obs_mean: Mean of each observation dimension [O].
        obs_std: Standard deviation of each observation dimension [O].
        change_mean: Mean of next_obs - obs [O].
        change_std: Standard deviation of next_obs - obs [O].
        reward_mean: Mean reward [].
        reward_std: Standard deviation of the reward [].
        obs_low: Smallest value of each observation dimension [O], next observations included.
        obs_high: Largest value of each [O].
        action_low: Lower bounds of the action [A], or None if discrete, unknown or unbounded.
        action_high: Upper bounds of the action [A], or None.
    """

    obs_mean: np.ndarray
    obs_std: np.ndarray
    change_mean: np.ndarray
    change_std: np.ndarray
    reward_mean: np.ndarray
    reward_std: np.ndarray
    obs_low: np.ndarray
    obs_high: np.ndarray
    action_low: np.ndarray | None = None
    action_high: np.ndarray | None = None

    @classmethod
    def of(cls, dataset: RolloutDataset) -> "Statistics":
        """Compute the statistics of all rows of a dataset, in float64."""
        change = dataset.next_obs.astype(np.float64) - dataset.obs
        obs_mean, obs_std = _moments(dataset.obs.astype(np.float64))
        change_mean, change_std = _moments(change, _noise(dataset))
        reward_mean, reward_std = _moments(dataset.reward)
        low, high = dataset.meta.action_low, dataset.meta.action_high
        bounded = low is not None and high is not None and np.isfinite([low, high]).all()
        return cls(
            obs_mean,
            obs_std,
            change_mean,
            change_std,
            reward_mean,
            reward_std,
            *_range(dataset),
            np.asarray(low, np.float32) if bounded else None,
            np.asarray(high, np.float32) if bounded else None,
        )

    def covering(self, dataset: RolloutDataset) -> "Statistics":
        """Return the same statistics with a range that holds the dataset's observations too."""
        low, high = _range(dataset)
        return replace(
            self,
            obs_low=np.minimum(self.obs_low, low),
            obs_high=np.maximum(self.obs_high, high),
        )


def check_precision(dataset: RolloutDataset, statistics: Statistics) -> None:
    """Refuse observations of which rounding to float32, in which models compute, leaves too little.

    Args:
        dataset: What is to be trained on.
        statistics: By which it is normalised.

    Raises:
        DataError: Naming the first dimension whose changes are lost beside its magnitude.
    """
    # What is given in float32 has lost nothing here.
    if np.can_cast(dataset.obs.dtype, np.float32, "safe"):
        return
    largest = np.maximum(np.abs(statistics.obs_low), np.abs(statistics.obs_high))
    coarse = np.spacing(largest) > _ROUNDING * statistics.change_std
    noise = _noise(dataset)
    for index in np.flatnonzero(coarse):
        change = dataset.next_obs[:, index].astype(np.float64) - dataset.obs[:, index]
        if change.std() > noise[index]:
            raise DataError(
                f"observation dimension {index} is as large as {largest[index]:g}, where float32 "
                f"rounds to {np.spacing(largest[index]):.1g}, and changes by {change.std():.2g} "
                "(standard deviation of a step): subtract its offset, observe its changes, or "
                "leave it out by keep_obs"
            )


def _noise(dataset: RolloutDataset) -> np.ndarray:
    """Return of each dimension the spread of its change that is nothing but rounding [O]."""
    low, high = _range(dataset)
    kind = dataset.obs.dtype
    # Numbers of half precision are coarse, but their steps may be meant.
    eps = min(2 * float(np.finfo(kind).eps), RELATIVE_FLOOR) if kind.kind == "f" else 0.0
    return max(eps, _NOISE) * np.maximum(np.abs(low), np.abs(high)).astype(np.float64)


def _range(dataset: RolloutDataset) -> tuple[np.ndarray, np.ndarray]:
    low = np.minimum(dataset.obs.min(axis=0), dataset.next_obs.min(axis=0))
    high = np.maximum(dataset.obs.max(axis=0), dataset.next_obs.max(axis=0))
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


def _moments(values: np.ndarray, noise: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    mean, std = values.mean(axis=0), values.std(axis=0)
    floor = np.maximum(RELATIVE_FLOOR * np.abs(values).max(axis=0), noise)
    # What float32 has no number for is no spread either.
    floor = np.maximum(floor, np.finfo(np.float32).tiny)
    std = np.where(std <= floor, 1.0, std)
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)
