"""Real and imagined transitions for Stable-Baselines3, drawn at a stated ratio."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from loopwm.errors import ConfigError, require

_NAMES = ("obs", "action", "next_obs", "terminated", "reward")
_FIRST = 1024


class Ring:
    """Keep transitions as tensors from which batches are gathered: all, or the newest.

    Args:
        capacity: Most transitions kept, at least 1; None keeps all.
        obs_dim: Number of observation dimensions O.
        action_dim: Number of action dimensions A.
    """

    def __init__(self, capacity: int | None, obs_dim: int, action_dim: int) -> None:
        if capacity is not None and capacity < 1:
            raise ConfigError(f"capacity must be at least 1 or None, got {capacity}")
        widths = (obs_dim, action_dim, obs_dim, 1, 1)
        self.grows, self.capacity = capacity is None, capacity or _FIRST
        self.size, self.place = 0, 0
        self.columns = {
            name: torch.zeros(self.capacity, width)
            for name, width in zip(_NAMES, widths, strict=True)
        }

    def add(
        self,
        obs: Float[ndarray, "N O"],
        action: Float[ndarray, "N A"],
        reward: Float[ndarray, " N"],
        next_obs: Float[ndarray, "N O"],
        terminated: Bool[ndarray, " N"],
    ) -> None:
        """Take in transitions, over the oldest ones once all places are taken.

        Args:
            obs: Observations before the steps.
            action: Actions, scaled to [-1, 1].
            reward: Rewards.
            next_obs: Observations after the steps.
            terminated: Whether each step reached a terminal state.
        """
        rows = {
            "obs": obs,
            "action": action,
            "reward": reward[:, None],
            "next_obs": next_obs,
            "terminated": terminated[:, None],
        }
        self._make_room(self.size + len(obs))
        count = min(len(obs), self.capacity)
        places = (self.place + torch.arange(count)) % self.capacity
        for name, values in rows.items():
            kept = np.ascontiguousarray(values[-count:], np.float32)
            self.columns[name][places] = torch.from_numpy(kept)
        self.place = (self.place + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw transitions uniformly, with replacement."""
        rows = torch.randint(self.size, (count,), generator=generator)
        return {name: column.index_select(0, rows) for name, column in self.columns.items()}

    def state(self) -> dict[str, ndarray]:
        """Return the transitions kept, oldest place first."""
        return {name: column[: self.size].numpy() for name, column in self.columns.items()}

    def restore(self, columns: dict[str, ndarray], place: int) -> None:
        """Continue from what `state` returned, with the next transition written to `place`."""
        self._make_room(len(columns["obs"]))
        self.size, self.place = len(columns["obs"]), place
        for name, values in columns.items():
            self.columns[name][: self.size] = torch.from_numpy(values)

    def _make_room(self, count: int) -> None:
        while self.grows and self.capacity < count:
            for name, column in self.columns.items():
                self.columns[name] = torch.cat([column, torch.zeros_like(column)])
            self.capacity *= 2
            self.place = self.size


class Mixture:
    """Stand for the replay buffer of Stable-Baselines3: each batch has so many real transitions.

    As long as nothing is imagined, all of them are real.

    Args:
        real: Real transitions.
        imagined: Imagined ones.
        real_rows: Real transitions in each batch.
        generator: Draws the transitions.
    """

    def __init__(
        self, real: Ring, imagined: Ring, real_rows: int, generator: torch.Generator
    ) -> None:
        self.real, self.imagined, self.real_rows = real, imagined, real_rows
        self.generator = generator
        self._samples = require("stable_baselines3.common.type_aliases", "agent")

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """Return a batch as Stable-Baselines3 asks for it."""
        del env
        real = min(self.real_rows, batch_size) if self.imagined.size else batch_size
        parts = [self.real.draw(real, self.generator)]
        if real < batch_size:
            parts.append(self.imagined.draw(batch_size - real, self.generator))
        columns = [torch.cat([part[name] for part in parts]) for name in _NAMES]
        return self._samples.ReplayBufferSamples(*columns)
