"""Means and spreads of a dataset's columns, by which a model normalises."""

from dataclasses import dataclass, replace

import numpy as np

from loopwm.data.store import RolloutDataset

# A dimension whose spread is below this share of its largest magnitude (or of one) is rounding
# noise around a constant; dividing by that noise would turn it into the loudest input.
RELATIVE_FLOOR = 1e-6


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
        change_mean, change_std = _moments(change)
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


def _range(dataset: RolloutDataset) -> tuple[np.ndarray, np.ndarray]:
    low = np.minimum(dataset.obs.min(axis=0), dataset.next_obs.min(axis=0))
    high = np.maximum(dataset.obs.max(axis=0), dataset.next_obs.max(axis=0))
    return np.asarray(low, np.float32), np.asarray(high, np.float32)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = values.mean(axis=0), values.std(axis=0)
    floor = RELATIVE_FLOOR * np.maximum(1.0, np.abs(values).max(axis=0))
    std = np.where(std < floor, 1.0, std)
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)
