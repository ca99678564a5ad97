"""Windows of consecutive steps, drawn at random or taken at given rows."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from loopwm.batch import SequenceBatch
from loopwm.data.ending import can_terminate
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError


class Windows:
    """Hand out windows of a dataset as batches of tensors.

    A window that meets the end of its episode is padded with the last observation, zero actions
    and zero rewards, and `valid` is False there; no window crosses an episode.
    """

    def __init__(
        self, dataset: RolloutDataset, length: int, device: torch.device | str = "cpu"
    ) -> None:
        """Lay the columns out for gathering.

        Args:
            dataset: Where the windows come from.
            length: Steps in a window, at least 1.
            device: Where the columns are kept and the batches are made.

        Raises:
            ConfigError: If `length` is below 1.
        """
        if length < 1:
            raise ConfigError(f"length must be at least 1, got {length}")
        self.length = length
        self._rows = len(dataset)
        bounds = dataset.bounds
        # One slot more than rows per episode: the last one holds the final observation, a zero
        # action and a zero reward, so a slot beyond the end is simply read there.
        slot = np.arange(len(dataset)) + dataset.episode
        last = bounds[1:] + np.arange(dataset.num_episodes)
        obs = np.zeros((len(dataset) + dataset.num_episodes, dataset.obs_dim), np.float32)
        obs[slot] = dataset.obs
        obs[last] = dataset.next_obs[bounds[1:] - 1]
        action = np.zeros((len(obs), *dataset.action.shape[1:]), _action_type(dataset))
        action[slot] = dataset.action
        reward = np.zeros(len(obs), np.float32)
        reward[slot] = dataset.reward
        terminated = np.zeros(len(obs), bool)
        terminated[slot] = dataset.terminated
        able = np.zeros(len(obs), bool)
        able[slot] = can_terminate(dataset)
        self._obs, self._action, self._reward, self._terminated, self._able = (
            torch.from_numpy(np.ascontiguousarray(column)).to(device)
            for column in (obs, action, reward, terminated, able)
        )
        self._slot, self._last = (
            torch.from_numpy(column).to(device) for column in (slot, last[dataset.episode])
        )
        self._offsets = torch.arange(length + 1, device=device)

    def __len__(self) -> int:
        """Return the number of rows at which a window can start."""
        return self._rows

    def sample(self, batch_size: int, generator: torch.Generator) -> SequenceBatch:
        """Draw windows whose first rows are uniform over the dataset, with replacement.

        Args:
            batch_size: Number of windows, at least 1.
            generator: Chooses the rows.
        """
        return self.at(self.draw(batch_size, generator))

    def draw(self, count: int, generator: torch.Generator) -> Int[Tensor, " B"]:
        """Draw rows, uniform over the dataset, with replacement.

        Args:
            count: How many, at least 1.
            generator: Chooses them.
        """
        return torch.randint(self._rows, (count,), generator=generator, device=generator.device)

    def at(self, rows: Int[Tensor, " B"]) -> SequenceBatch:
        """Return the windows that start at the given rows.

        Args:
            rows: First row of each window, in 0..N-1.
        """
        rows = rows.to(self._slot.device)
        last = self._last[rows, None]
        slots = torch.minimum(self._slot[rows, None] + self._offsets, last)
        steps = slots[:, :-1]
        return SequenceBatch(
            obs=_gather(self._obs, slots),
            action=_gather(self._action, steps),
            reward=_gather(self._reward, steps),
            terminated=_gather(self._terminated, steps),
            can_end=_gather(self._able, steps),
            valid=steps < last,
        )


def full_window_starts(dataset: RolloutDataset, length: int) -> np.ndarray:
    """Return the rows from which `length` steps stay inside the episode.

    Args:
        dataset: The rows.
        length: Steps in a window, at least 1.

    Returns:
        Row numbers in rising order, int64; empty if every episode is shorter.

    Raises:
        ConfigError: If `length` is below 1.
    """
    if length < 1:
        raise ConfigError(f"length must be at least 1, got {length}")
    end = dataset.bounds[1:][dataset.episode]
    rows = np.arange(len(dataset))
    return rows[rows + length <= end]


def _gather(column: Tensor, slots: Int[Tensor, "B S"]) -> Tensor:
    flat = column.index_select(0, slots.reshape(-1))
    return flat.view(*slots.shape, *column.shape[1:])


def _action_type(dataset: RolloutDataset) -> type[np.generic]:
    return np.int64 if dataset.discrete else np.float32
