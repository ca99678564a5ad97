"""Several models of one configuration: their mean predicts, their disagreement warns."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopwm.errors import ConfigError
from loopwm.world import rollout
from loopwm.world.arrays import Edge, to_tensor
from loopwm.world.model import WorldModel
from loopwm.world.prediction import Prediction, Trajectory
from loopwm.world.protocol import State


class Ensemble(nn.Module):
    """Predict by the mean of members trained from different seeds.

    Each member imagines from its own predictions; means and disagreement are taken over members
    at every step. The reported spread, where members have one, is that of their mixture.

    Args:
        members: Models of the same configuration, at least two.
    """

    def __init__(self, members: Sequence[WorldModel]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ConfigError(f"an ensemble needs at least two members, got {len(members)}")
        self._members = nn.ModuleList(members)
        first = members[0]
        self.config, self.meta, self.stats = first.config, first.meta, first.stats
        self.obs_dim, self.discrete, self.normaliser = (
            first.obs_dim,
            first.discrete,
            first.normaliser,
        )
        self._widths = [len(m.start(torch.zeros(1, m.obs_dim))) for m in members]

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
        return tuple(tensor for member in self.members for tensor in member.start(obs))

    def observe(self, state: State, action: Any, obs: Any, **options: Any) -> State:
        """Let every member take in a real step (see `WorldModel.observe`)."""
        parts = [
            member.observe(own, action, obs, **options)
            for member, own in zip(self.members, self._split(state), strict=True)
        ]
        return tuple(tensor for part in parts for tensor in part)

    def step(self, state: State, action: Any, **options: Any) -> tuple[State, Prediction]:
        """Imagine one step with every member (see `WorldModel.step`)."""
        edge = Edge.of(action, "action", self.members[0].action_axes)
        tensor = to_tensor(action)
        results = [
            member.step(own, tensor, **options)
            for member, own in zip(self.members, self._split(state), strict=True)
        ]
        mean = _mean([prediction for _, prediction in results], "next_obs")
        return tuple(t for own, _ in results for t in own), _leave(mean, edge)

    def predict(self, obs: Any, action: Any, **options: Any) -> Prediction:
        """Predict one step from an observation alone (see `WorldModel.predict`)."""
        edge = Edge.of(obs, "obs", (self.obs_dim,))
        inputs = to_tensor(obs), to_tensor(action)
        results = [member.predict(*inputs, **options) for member in self.members]
        return _leave(_mean(results, "next_obs"), edge)

    def imagine(
        self, obs: Any = None, actions: Any = None, *, state: State | None = None, **options: Any
    ) -> Trajectory:
        """Imagine with every member by itself (see `WorldModel.imagine`)."""
        if (policy := options.pop("policy", None)) is not None:
            horizon = options.pop("horizon", None)
            if obs is None or horizon is None or actions is not None or "decode" in options:
                raise ConfigError(
                    "imagine with policy= needs obs and horizon=, no actions and no decode="
                )
            return rollout.with_policy(self, obs, policy, horizon, options)
        if actions is None:
            raise ConfigError("imagine needs actions, or policy= and horizon=")
        edge = Edge.of_actions(actions, self.members[0].action_axes)
        if obs is not None:
            edge = Edge.of(obs, "obs", (self.obs_dim,))
            obs = to_tensor(obs)
        states = [None] * len(self.members) if state is None else self._split(state)
        results = [
            member.imagine(obs, to_tensor(actions), state=own, **options)
            for member, own in zip(self.members, states, strict=True)
        ]
        return _leave(_mean(results, "obs"), edge)

    def save(self, path: str | Path) -> None:
        """Write all members to a directory; `lw.load` reads it."""
        from loopwm.world.build import save

        save(self, Path(path))

    def _split(self, state: State) -> list[State]:
        parts, begin = [], 0
        for width in self._widths:
            parts.append(tuple(state[begin : begin + width]))
            begin += width
        return parts


def _leave(result: Any, edge: Edge) -> Any:
    """Give results, which already have the caller's leading shape, the caller's kind of array."""
    if not edge.numpy:
        return result
    values = {f.name: getattr(result, f.name) for f in fields(result)}
    arrays = {k: None if v is None else v.detach().cpu().numpy() for k, v in values.items()}
    return type(result)(**arrays)


def _mean(results: list[Any], observed: str) -> Any:
    """Average members' results: counts are rounded up, and settled means all are."""
    stacked = {
        f.name: torch.stack([getattr(result, f.name) for result in results])
        for f in fields(results[0])
        if getattr(results[0], f.name) is not None
    }
    averaged: dict[str, Tensor | None] = {
        name: values.mean(0) for name, values in stacked.items() if values.is_floating_point()
    }
    averaged["n_iters"] = stacked["n_iters"].double().mean(0).ceil().long()
    averaged["settled"] = stacked["settled"].all(0)
    averaged.setdefault(observed, None)
    if observed in stacked:
        averaged["disagreement"] = stacked[observed].std(0)
        if "std" in stacked:
            spread = stacked["std"].square().mean(0) + stacked[observed].var(0, correction=0)
            averaged["std"] = spread.sqrt()
    return type(results[0])(**averaged)
