"""What learns inside a run: a planner's model, or a policy and its model."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from loopwm.agent.config import MPC, Algorithm
from loopwm.agent.dyna import DynaLearner
from loopwm.agent.life import Step
from loopwm.agent.mpc import MPCLearner
from loopwm.agent.refits import Refits, TransitionFn
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset

Tensors = dict[str, dict[str, np.ndarray]]


@runtime_checkable
class Learner(Protocol):
    """Act, and learn from what came of it.

    Attributes:
        seed: Its seed.
    """

    seed: int

    @property
    def ready(self) -> bool:
        """Say whether it can act: after the first refit."""
        ...

    @property
    def model(self) -> Any:
        """Return its model, or None."""
        ...

    def refit(self, data: RolloutDataset) -> dict[str, float | None]:
        """Learn from all data so far; return what to record."""
        ...

    def begin(self) -> None:
        """Begin an episode."""
        ...

    def act(self, obs: np.ndarray) -> Any:
        """Choose an action, exploring."""
        ...

    def learn(self, step: Step | None) -> None:
        """Learn from one real step; None is a spoilt one."""
        ...

    def policy(self) -> Any:
        """Return what acts without exploring."""
        ...

    def save(self, folder: Path) -> tuple[Tensors, dict[str, Any]]:
        """Write the model to a folder; return tensors and JSON values of all else that changes."""
        ...

    def restore(
        self, folder: Path, tensors: Tensors, document: dict[str, Any], data: RolloutDataset
    ) -> None:
        """Continue from what `save` returned and wrote."""
        ...


def make_learner(
    algorithm: Algorithm,
    meta: DatasetMeta,
    obs_dim: int,
    seed: int,
    reward_fn: TransitionFn | None = None,
    termination_fn: TransitionFn | None = None,
) -> Learner:
    """Make the learner of an algorithm.

    Args:
        algorithm: `MPC` or `Dyna`.
        meta: Description of the environment.
        obs_dim: Number of observation dimensions.
        seed: Seed of everything but Stable-Baselines3, which draws from torch's global generator.
        reward_fn: Replaces the learned reward.
        termination_fn: Replaces the learned termination.
    """
    refits = Refits(algorithm.refit, seed, reward_fn, termination_fn)
    if isinstance(algorithm, MPC):
        return MPCLearner(algorithm, meta, refits, seed)
    return DynaLearner(algorithm, meta, obs_dim, refits, seed)
