"""A trained agent: what acts, the model behind it, and the record of how it came about."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopwm.agent.config import Algorithm
from loopwm.agent.planner import Planner
from loopwm.data.actor import Actor
from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError
from loopwm.world.ensemble import Ensemble
from loopwm.world.model import WorldModel


@dataclass(eq=False)
class Agent:
    """Act as an agent learned to, without exploration.

    Attributes:
        algorithm: How it learned.
        policy: A planner in the model, or the network of a policy.
        model: The model that it planned or practised in; None where nothing was imagined.
        data: All real steps that it learned from.
        history: One record for each round of learning.
    """

    algorithm: Algorithm
    policy: Planner | Actor
    model: WorldModel | Ensemble | None
    data: RolloutDataset
    history: list[dict[str, Any]] = field(default_factory=list)

    def plan(self, obs: Any) -> Any:
        """Return an action [A] for an observation [O], or actions [B, A] for [B, O].

        Raises:
            DataError: If the observations have another shape.
        """
        if isinstance(self.policy, Planner):
            return self.policy.plan(obs)
        seen = np.asarray(obs)
        if seen.ndim == 1:
            return self.policy(seen)
        if seen.ndim != 2:
            raise DataError(f"obs must have the shape [O] or [B, O], got {seen.shape}")
        actions = [self.policy(each) for each in seen]
        return np.stack(actions) if actions else np.zeros((0, *self.policy.low.shape), np.float32)

    def reset(self, mask: Any = None) -> None:
        """Tell a planner that episodes begin; a policy remembers nothing."""
        if isinstance(self.policy, Planner):
            self.policy.reset(mask)

    act = plan
