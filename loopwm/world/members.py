"""Apply each member of an ensemble by itself, one after the other."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from loopwm.world.model import WorldModel
from loopwm.world.prediction import Prediction, Trajectory
from loopwm.world.protocol import State


class OneByOne:
    """Apply the verbs to every member in turn; results have a leading axis of members.

    Args:
        members: The members.
    """

    def __init__(self, members: Sequence[WorldModel]) -> None:
        self.members = tuple(members)
        self._widths = [len(m.start(torch.zeros(1, m.obs_dim))) for m in members]

    def start(self, obs: Tensor) -> State:
        """Return the members' states, one after the other."""
        return tuple(tensor for member in self.members for tensor in member.start(obs))

    def observe(self, state: State, action: Tensor, obs: Tensor, options: dict[str, Any]) -> State:
        """Let every member take in a real step."""
        pairs = zip(self.members, self._split(state), strict=True)
        return tuple(
            tensor
            for member, own in pairs
            for tensor in member.observe(own, action, obs, **options)
        )

    def step(
        self, state: State, action: Tensor, options: dict[str, Any]
    ) -> tuple[State, Prediction]:
        """Imagine one step with every member."""
        pairs = zip(self.members, self._split(state), strict=True)
        results = [member.step(own, action, **options) for member, own in pairs]
        following = tuple(tensor for own, _ in results for tensor in own)
        return following, _together([prediction for _, prediction in results])

    def predict(self, obs: Tensor, action: Tensor, options: dict[str, Any]) -> Prediction:
        """Predict one step with every member."""
        return _together([member.predict(obs, action, **options) for member in self.members])

    def imagine(
        self, obs: Tensor | None, state: State | None, actions: Tensor, options: dict[str, Any]
    ) -> Trajectory:
        """Imagine with every member from `obs`, or from `state`."""
        states = [None] * len(self.members) if state is None else self._split(state)
        return _together(
            [
                member.imagine(obs, actions, state=own, **options)
                for member, own in zip(self.members, states, strict=True)
            ]
        )

    def _split(self, state: State) -> list[State]:
        parts, begin = [], 0
        for width in self._widths:
            parts.append(tuple(state[begin : begin + width]))
            begin += width
        return parts


def _together(results: list[Any]) -> Any:
    """Stack the members' results along a new leading axis."""
    values = {f.name: [getattr(result, f.name) for result in results] for f in fields(results[0])}
    stacked = {k: None if v[0] is None else torch.stack(v) for k, v in values.items()}
    return type(results[0])(**stacked)
