"""The one real environment that an agent lives and learns in, and what it has seen there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from loopwm.agent.action import fitted
from loopwm.data.environment import Source, describe, make, time_limit
from loopwm.data.guard import Watch, step_fault
from loopwm.data.store import RolloutDataset
from loopwm.errors import CheckpointError, DataError
from loopwm.seed import key

_COLUMNS = ("obs", "action", "reward", "next_obs", "terminated")


@dataclass(frozen=True, eq=False)
class Step:
    """Hold one real step.

    Attributes:
        obs: Observation before it [O].
        action: Action [A], or an index.
        reward: Its reward.
        next_obs: Observation after it [O].
        terminated: Whether it reached a terminal state.
    """

    obs: Float[ndarray, " O"]
    action: Any
    reward: float
    next_obs: Float[ndarray, " O"]
    terminated: bool


class Life:
    """Step a real environment, count every step, and keep them as rows of a dataset.

    Args:
        source: A Gymnasium id, or a function that makes an environment.
        seed: Seed of the episodes' beginnings.
        env_kwargs: Arguments for the environment.
        unclipped: Observe velocities as simulated, where the task would clip them.

    Attributes:
        meta: What datasets of this life say about themselves.
        steps: Real steps made, those that a diverged simulation spoilt included.
        obs: The present observation [O].
        fresh: Whether an episode has just begun.
        returns: Sum of rewards of each episode that has ended.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        env_kwargs: Mapping[str, Any] | None = None,
        unclipped: bool = False,
    ) -> None:
        self.env = make(source, env_kwargs, unclipped)
        self.space, self.limit = self.env.action_space, time_limit(self.env)
        meta = describe(source, self.env, env_kwargs or {}, unclipped)
        self.meta = replace(meta, seed=seed, policy="learning agent")
        self.steps, self.fresh = 0, True
        self._seed, self._resets = seed, 0
        self._rows: list[Step] = []
        # Rows before which episodes that have rows began.
        self._begins: list[int] = []
        self.returns: list[float] = []
        self._begin()

    @property
    def spaces(self) -> dict[str, Any]:
        """Return what is observed and what can be done, as JSON values."""
        bounds = ("action_low", "action_high", "num_actions")
        return {"obs": self.obs.size, **{name: getattr(self.meta, name) for name in bounds}}

    def step(self, action: Any) -> Step | None:
        """Make one step; the next episode begins at once where one ends.

        Args:
            action: Action [A] inside the bounds, or an index.

        Returns:
            The step, or None where it was spoilt and is not kept.

        Raises:
            DataError: If the action is not finite or lies outside of the space.
        """
        before, action = self.obs, fitted(action, self.space)
        # A copy, which the environment may change in place.
        obs, reward, terminated, truncated, _ = self.env.step(action.copy())
        self.steps += 1
        self.fresh = False
        fault = step_fault(self._watch, bool(np.isfinite(obs).all()), math.isfinite(reward))
        step = None
        if fault is None:
            step = Step(before, action, float(reward), np.array(obs), bool(terminated))
            self._rows.append(step)
            self.obs = step.next_obs
        length = len(self._rows) - self._begins[-1]
        if fault or terminated or truncated or length >= self.limit:
            if length:
                self.returns.append(sum(each.reward for each in self._rows[self._begins[-1] :]))
            self._begin()
        return step

    def dataset(self, first: int = 0) -> RolloutDataset:
        """Return the rows from number `first` on; an episode still under way is cut there.

        Raises:
            DataError: If there is no such row.
        """
        if first >= len(self._rows):
            raise DataError(f"{len(self._rows)} rows were kept, none from number {first} on")
        rows = self._rows[first:]
        columns = {name: np.array([getattr(row, name) for row in rows]) for name in _COLUMNS}
        columns["action"] = columns["action"].astype(
            np.int64 if self.meta.num_actions is not None else self.space.dtype
        )
        episode = np.searchsorted(self._begins, np.arange(first, len(self._rows)), side="right")
        return RolloutDataset.from_arrays(**columns, episode=episode, meta=self.meta)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def counters(self) -> dict[str, Any]:
        """Return what `restore` needs beside the dataset, as JSON values."""
        return {
            "steps": self.steps,
            "resets": self._resets,
            "begins": self._begins,
            "returns": self.returns,
        }

    def restore(self, data: RolloutDataset, counters: Mapping[str, Any]) -> None:
        """Return to where an earlier life stood, by repeating the episode that was under way.

        Raises:
            CheckpointError: If the environment does not repeat itself.
        """
        self._rows = [
            Step(obs, action, float(reward), next_obs, bool(terminated))
            for obs, action, reward, next_obs, terminated in zip(
                *(getattr(data, name) for name in _COLUMNS), strict=True
            )
        ]
        self.steps, self.returns = counters["steps"], list(counters["returns"])
        self._begins, self._resets = list(counters["begins"]), counters["resets"] - 1
        under_way = self._rows[self._begins[-1] :]
        self._begins.pop()
        self._begin()
        self._begins[-1] = len(self._rows) - len(under_way)
        for row in under_way:
            obs, *_ = self.env.step(row.action.copy())
            if not np.array_equal(obs, row.next_obs):
                raise CheckpointError(
                    f"{self.meta.env_id} does not repeat itself: the same seed and actions lead "
                    "elsewhere, so the episode that was under way cannot be resumed; start over "
                    "in a new run_dir"
                )
            self._watch.diverged()
            self.obs, self.fresh = row.next_obs, False

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _begin(self) -> None:
        seed = int(key(self._seed, "life", self._resets).generate_state(1, np.uint32)[0])
        obs, _ = self.env.reset(seed=seed)
        self._resets += 1
        self._watch = Watch(self.env)
        if self._begins and self._begins[-1] == len(self._rows):
            self._begins.pop()  # an episode without a row is none
        self._begins.append(len(self._rows))
        self.obs, self.fresh = np.array(obs), True
