"""Model-predictive control: plan at every step in a model that is learned meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from loopwm.agent.cem import CEM
from loopwm.agent.config import MPC, Planning
from loopwm.agent.icem import ICEM
from loopwm.agent.imagination import action_space_of
from loopwm.agent.life import Step
from loopwm.agent.memory import Remembering
from loopwm.agent.mppi import MPPI
from loopwm.agent.planner import Planner, SequencePlanner
from loopwm.agent.refits import Refits
from loopwm.agent.units import Units
from loopwm.agent.value import ValueFunction, fit_value, restore_value
from loopwm.core.halt import Fixed
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.seed import key, numpy_rng
from loopwm.world.ensemble import Ensemble
from loopwm.world.model import WorldModel
from loopwm.world.protocol import WorldModelLike

_KINDS: dict[str, Any] = {"cem": CEM, "icem": ICEM, "mppi": MPPI}


class MPCLearner:
    """Act by planning, with noise while learning, in a model that is fitted again and again.

    What is gained after the planner's horizon may be learned beside the model.

    Args:
        config: How to learn.
        meta: Description of the environment.
        refits: The model.
        seed: Seed of plans and noise.

    Raises:
        ConfigError: If the planner cannot search the actions.
        EnvironmentUnsupported: If the actions have no bounds.
    """

    def __init__(self, config: MPC, meta: DatasetMeta, refits: Refits, seed: int) -> None:
        self.config, self.refits, self.seed = config, refits, seed
        self.space: Any = Units.of(action_space_of(meta), None).space
        if isinstance(self.space, Discrete) and config.planning.method not in (None, "cem"):
            raise ConfigError(
                f'planning.method must be "cem" or None for the discrete actions of {meta.env_id}, '
                f"got {config.planning.method!r}"
            )
        self.value: ValueFunction | None = None
        self._planner: SequencePlanner | None = None
        self._memory: Remembering | None = None
        self._noise = numpy_rng(seed, "mpc", "noise")

    @property
    def ready(self) -> bool:
        """Say whether there is a model to plan in."""
        return self._planner is not None

    @property
    def model(self) -> WorldModel | Ensemble | None:
        """Return the present model."""
        return self.refits.model

    def refit(self, data: RolloutDataset) -> dict[str, float | None]:
        """Fit the model and the value, and plan with them from now on.

        The planner begins anew, its generator seeded by the number of the fit: so a run that is
        resumed at a refit plans like one that was never stopped.
        """
        record = self.refits.fit(data)
        if self.config.value is not None:
            seed = _word(self.seed, "value", self.refits.count)
            self.value = fit_value(self.config.value, data, self.config.planning.discount, seed)
        self._renew(data)
        return record

    def begin(self) -> None:
        """Forget the last episode, and its plan."""
        if self._planner is not None:
            self._acting.reset()

    def act(self, obs: np.ndarray) -> Any:
        """Plan an action and add noise to it."""
        action = self._disturbed(np.asarray(self._acting.plan(obs)))
        if self._memory is not None:
            self._memory.took(action)
        return action

    @property
    def _acting(self) -> SequencePlanner | Remembering:
        assert self._planner is not None
        return self._memory or self._planner

    def _disturbed(self, action: np.ndarray) -> Any:
        if not self.config.noise:
            return action
        if isinstance(self.space, Discrete):
            random = self._noise.random() < self.config.noise
            return self._noise.integers(self.space.n) if random else action
        half = (self.space.high - self.space.low) / 2
        noise = self.config.noise * half * self._noise.standard_normal(action.shape)
        return np.clip(action + noise, self.space.low, self.space.high).astype(self.space.dtype)

    def learn(self, step: Step | None) -> None:
        """Make nothing of a single step: the model learns at the refits."""

    def policy(self) -> Planner:
        """Return a planner without noise, for episodes outside of learning."""
        planner = self._make(_word(self.seed, "policy"))
        return Remembering(planner) if self.config.planning.memory else planner

    def save(self, folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
        """Return tensors and JSON values of everything that changes; write the model."""
        tensors = {} if self.value is None else {"value": self.value.arrays()}
        if self._planner is not None:
            tensors["planner"] = self._planner.arrays()
        noise = self._noise.bit_generator.state
        return tensors, {"refits": self.refits.save(folder / "model"), "noise": noise}

    def restore(
        self,
        folder: Path,
        tensors: dict[str, dict[str, np.ndarray]],
        document: dict[str, Any],
        data: RolloutDataset,
    ) -> None:
        """Continue from what `save` returned and wrote."""
        self.refits.restore(folder / "model", document["refits"])
        if self.config.value is not None:
            self.value = restore_value(self.config.value, data, tensors["value"])
        self._renew(data)
        # A run may have ended between two refits: what it drew since is not drawn again. What
        # earlier versions wrote does not tell.
        if self._planner is not None and "noise" in document:
            self._planner.restore(tensors["planner"])
            self._noise.bit_generator.state = document["noise"]

    def _renew(self, data: RolloutDataset) -> None:
        self._planner = self._make(_word(self.seed, "plan", self.refits.count))
        if self.config.planning.memory:
            # If the newest episode is over, the next one begins by forgetting it.
            self._memory = Remembering(self._planner)
            first = int(data.bounds[-2])
            self._memory.recall(data.obs[first:], data.action[first:])
        self._noise = numpy_rng(self.seed, "mpc", "noise", self.refits.count)

    def _make(self, seed: int) -> SequencePlanner:
        assert self.refits.model is not None
        return make_planner(self.config.planning, self.refits.model, self.space, seed, self.value)


def make_planner(
    planning: Planning,
    model: WorldModelLike,
    action_space: gym.Space[Any],
    seed: int,
    value: Callable[[Any], Any] | None = None,
) -> SequencePlanner:
    """Make the planner that a configuration asks for.

    Args:
        planning: Which planner, and how far it looks.
        model: What it looks ahead in.
        action_space: The space of one action.
        seed: Seed of its candidates.
        value: What is gained after the horizon (see `Lookahead`).
    """
    kind = _KINDS[planning.method or ("cem" if isinstance(action_space, Discrete) else "icem")]
    return kind(
        model,
        horizon=planning.horizon,
        discount=planning.discount,
        value=value,
        candidates=planning.candidates,
        iterations=planning.iterations,
        halt=None if planning.depth is None else Fixed(planning.depth),
        action_space=action_space,
        seed=seed,
    )


def _word(seed: int, *path: int | str) -> int:
    return int(key(seed, "mpc", *path).generate_state(1, np.uint32)[0])
