"""One episode as it was played, and what an episode depends on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np

from loopwm.data.environment import Source, make
from loopwm.data.policy import PolicyLike
from loopwm.seed import key, numpy_rng


@dataclass(frozen=True)
class Task:
    """Say what to collect; episode number i of a task depends on the task and on i alone.

    Attributes:
        source: A Gymnasium id, or a function that makes an environment.
        env_kwargs: Arguments for the environment.
        unclipped: Observe velocities as simulated where the task would clip them.
        seed: The seed of all episodes.
        policy: What chooses the actions.
        limit: Most steps of an episode.
        info_keys: Numbers in `info` to keep, beside those under "difficulty/".
    """

    source: Source
    env_kwargs: Mapping[str, Any]
    unclipped: bool
    seed: int
    policy: PolicyLike
    limit: int
    info_keys: tuple[str, ...] = ()

    def make(self) -> gym.Env[Any, Any]:
        """Make the environment."""
        return make(self.source, self.env_kwargs, self.unclipped)

    def reset_seed(self, episode: int) -> int:
        """Return the seed with which the environment is reset for an episode."""
        return int(key(self.seed, "reset", episode).generate_state(1, np.uint32)[0])

    def policy_rng(self, episode: int) -> np.random.Generator:
        """Return the generator that the policy draws from in an episode."""
        return numpy_rng(self.seed, "policy", episode)


@dataclass(frozen=True, eq=False)
class Episode:
    """Hold the steps of one episode.

    Attributes:
        obs: Observations [T+1,O].
        action: Actions [T,A] or [T].
        reward: Rewards [T].
        terminated: Whether the last step reached a terminal state.
        truncated: Whether the episode was cut after its last step.
        fault: Why the episode was cut before a step that must not be stored, or None.
        info: Further numbers [T] by name; NaN where a step did not report them.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    truncated: bool
    fault: str | None = None
    info: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of steps T."""
        return len(self.reward)

    def cut(self, steps: int) -> "Episode":
        """Return the first `steps` steps, marked as truncated if that leaves any out."""
        if steps >= len(self):
            return self
        return replace(
            self,
            obs=self.obs[: steps + 1],
            action=self.action[:steps],
            reward=self.reward[:steps],
            terminated=False,
            truncated=True,
            fault=None,
            info={name: column[:steps] for name, column in self.info.items()},
        )
