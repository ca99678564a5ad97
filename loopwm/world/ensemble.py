"""Several models of one configuration: their mean predicts, their disagreement warns."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loopwm.errors import ConfigError
from loopwm.world import rollout
from loopwm.world.arrays import Edge, to_tensor
from loopwm.world.latent import TransitionFn
from loopwm.world.members import OneByOne
from loopwm.world.model import WorldModel, check_rows
from loopwm.world.prediction import Prediction, Trajectory
from loopwm.world.protocol import State
from loopwm.world.stack import Stack

# With more rows arithmetic takes the time, not the number of operations, and what is computed for
# all members at once no longer fits the cache.
_MOST_ROWS = 512


class Ensemble(nn.Module):
    """Predict by the mean of members trained from different seeds.

    Each member imagines from its own predictions; means and disagreement are taken over members
    at every step. The reported spread, where members have one, is that of their mixture.

    Small batches go through all members at once, in batched products, if the members are bounded
    loops, untied bounded cells or perceptrons in evaluation mode and without modules of your own:
    their weights then lie in one memory. Otherwise the members take turns.

    Args:
        members: Models of the same configuration, observations and actions, at least two; each
            may have statistics of its own.

    Raises:
        ConfigError: If they are too few, or differ.
    """

    def __init__(self, members: Sequence[WorldModel]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ConfigError(f"an ensemble needs at least two members, got {len(members)}")
        for index, member in enumerate(members[1:], 1):
            _check_alike(members[0], member, index)
        self._members = nn.ModuleList(members)
        first = members[0]
        self.config, self.meta, self.stats = first.config, first.meta, first.stats
        self.obs_dim, self.discrete, self.normaliser = (
            first.obs_dim,
            first.discrete,
            first.normaliser,
        )
        self._one_by_one = OneByOne(members)
        self._stack = Stack.of(members)

    @property
    def members(self) -> list[WorldModel]:
        """Return the members."""
        return list(self._members)  # type: ignore[arg-type]

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters of all members."""
        return sum(member.num_parameters for member in self.members)

    @property
    def core_parameters(self) -> int:
        """Return the number of parameters of all members' dynamics."""
        return sum(member.core_parameters for member in self.members)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return the training metrics of the first member."""
        return self.members[0].history

    def start(self, obs: Any) -> State:
        """Return the members' states, one after the other (see `WorldModel.start`)."""
        edge = Edge.of(obs, "obs", (self.obs_dim,))
        return self._panel(edge.rows).start(to_tensor(obs))

    def observe(self, state: State, action: Any, obs: Any, **options: Any) -> State:
        """Let every member take in a real step (see `WorldModel.observe`)."""
        edge = Edge.of(action, "action", self._action_axes)
        check_rows("action", edge.rows, len(state[0]))
        check_rows("obs", Edge.of(obs, "obs", (self.obs_dim,)).rows, len(state[0]))
        panel = self._panel(edge.rows)
        return panel.observe(state, to_tensor(action), to_tensor(obs), options)

    def step(self, state: State, action: Any, **options: Any) -> tuple[State, Prediction]:
        """Imagine one step with every member (see `WorldModel.step`)."""
        edge = Edge.of(action, "action", self._action_axes)
        check_rows("action", edge.rows, len(state[0]))
        state, each = self._panel(edge.rows).step(state, to_tensor(action), options)
        return state, _leave(_mean(each, "next_obs"), edge)

    def predict(self, obs: Any, action: Any, **options: Any) -> Prediction:
        """Predict one step from an observation alone (see `WorldModel.predict`)."""
        edge = Edge.of(obs, "obs", (self.obs_dim,))
        edge.check_lead("action", Edge.of(action, "action", self._action_axes))
        each = self._panel(edge.rows).predict(to_tensor(obs), to_tensor(action), options)
        return _leave(_mean(each, "next_obs"), edge)

    def imagine(
        self, obs: Any = None, actions: Any = None, *, state: State | None = None, **options: Any
    ) -> Trajectory:
        """Imagine with every member by itself (see `WorldModel.imagine`)."""
        policy, horizon = options.pop("policy", None), options.pop("horizon", None)
        rollout.check_request(obs, actions, state, policy, horizon, options.get("decode", "all"))
        if policy is not None:
            options.pop("decode", None)
            return rollout.with_policy(self, obs, policy, horizon, options)
        edge = Edge.of_actions(actions, self._action_axes)
        rows = edge.rows
        if state is not None:
            check_rows("actions", rows, len(state[0]))
        else:
            given, edge = edge, Edge.of(obs, "obs", (self.obs_dim,))
            edge.check_lead("actions", given)
            obs = to_tensor(obs)
        each = self._panel(rows).imagine(obs, state, to_tensor(actions), options)
        return _leave(_mean(each, "obs"), edge)

    def use(
        self,
        *,
        reward_fn: TransitionFn | EllipsisType | None = ...,
        termination_fn: TransitionFn | EllipsisType | None = ...,
    ) -> "Ensemble":
        """Replace learned heads of every member by the user's functions (see `WorldModel.use`)."""
        for member in self.members:
            member.use(reward_fn=reward_fn, termination_fn=termination_fn)
        return self

    def save(self, path: str | Path) -> None:
        """Write all members to a directory; `lw.load` reads it."""
        from loopwm.world.build import save

        save(self, Path(path))

    @property
    def _action_axes(self) -> tuple[int, ...]:
        return self.members[0].action_axes

    def _panel(self, rows: int) -> OneByOne | Stack:
        """Return what applies all members to that many rows."""
        if rows > _MOST_ROWS or self._stack is None:
            return self._one_by_one
        if not self._stack.whole:
            # The members have moved, to another device or type, say.
            self._stack = Stack.of(self.members)
        if self._stack is None or not self._stack.ready():
            return self._one_by_one
        return self._stack


def _leave(result: Any, edge: Edge) -> Any:
    """Give results, which already have the caller's leading shape, the caller's kind of array."""
    if not edge.numpy:
        return result
    values = {f.name: getattr(result, f.name) for f in fields(result)}
    arrays = {k: None if v is None else _numpy(v) for k, v in values.items()}
    return type(result)(**arrays)


def _numpy(tensor: Tensor) -> np.ndarray:
    # numpy has no bfloat16.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def _check_alike(first: WorldModel, other: WorldModel, index: int) -> None:
    """Refuse a member that cannot take the same observations and actions, or be saved beside."""
    for name, one, two in (
        ("config", first.config, other.config),
        ("observation dimensions", first.obs_dim, other.obs_dim),
        ("number of discrete actions", first.meta.num_actions, other.meta.num_actions),
        ("action dimensions", first.action_axes, other.action_axes),
        ("angles", first.meta.angles, other.meta.angles),
    ):
        if one != two:
            raise ConfigError(
                f"members must be alike, but the {name} of member {index} is {two} and that of "
                f"member 0 is {one}; models that differ can be asked one by one"
            )


def _mean(each: Any, observed: str) -> Any:
    """Average over the leading axis, the members: counts are rounded up, settled means all are."""
    stacked = {f.name: getattr(each, f.name) for f in fields(each)}
    stacked = {name: values for name, values in stacked.items() if values is not None}
    averaged: dict[str, Tensor | None] = {
        name: values.mean(0) for name, values in stacked.items() if values.is_floating_point()
    }
    averaged["n_iters"] = stacked["n_iters"].double().mean(0).ceil().long()
    averaged["settled"] = stacked["settled"].all(0)
    averaged.setdefault(observed, None)
    if observed in stacked and not stacked[observed].numel():
        averaged["disagreement"] = averaged[observed]
    elif observed in stacked:
        averaged["disagreement"] = stacked[observed].std(0)
        if "std" in stacked:
            spread = stacked["std"].square().mean(0) + stacked[observed].var(0, correction=0)
            averaged["std"] = spread.sqrt()
    return type(each)(**averaged)
