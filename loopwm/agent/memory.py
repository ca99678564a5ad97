"""Planning from all that was seen of an episode, where one observation does not tell enough."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from loopwm.agent.planner import SequencePlanner
from loopwm.errors import ConfigError, DataError
from loopwm.world.arrays import to_tensor
from loopwm.world.protocol import State, WorldModelLike


class Remembering:
    """Lead a planner's model through every observation, and plan from the state that it is in.

    A planner alone begins its model anew at each observation. Where that hides something, such as
    speeds, a model that was trained to warm up (`Objective(context=16)`), sees several `frames`, or
    is recurrent knows more after some steps of an episode. It is told every action: that which was
    planned, or what `took` said was done in its place.

    Args:
        planner: Searches in a model with the verbs start, observe and step.

    Raises:
        ConfigError: If it searches a function.
    """

    def __init__(self, planner: SequencePlanner) -> None:
        if not isinstance(planner.model, WorldModelLike):
            raise ConfigError(
                f"Remembering needs a planner in a world model, got one in {planner.model!r}, "
                "which has no state"
            )
        self.planner = planner
        self._state: State | None = None
        self._action: Tensor | None = None
        self._fresh: Bool[Tensor, " B"] | None = None

    @property
    def model(self) -> Any:
        """Return what the planner looks ahead in; a model put in its place remembers nothing."""
        return self.planner.model

    @model.setter
    def model(self, model: Any) -> None:
        self.planner.model, self._state = model, None

    def plan(self, obs: Any) -> Any:
        """Take in observations [O] or [B, O], and return actions as `SequencePlanner.plan` does.

        A call with another number of rows than the one before begins anew.
        """
        with torch.no_grad():
            seen = _rows(obs)
            state = self._follow(seen)
            action = self.planner.plan(obs, state=state)
        self._state, self._fresh = state, None
        self._action = to_tensor(action).reshape(len(seen), *self.planner.units.axes)
        return action

    def took(self, action: Any) -> None:
        """Say what was done in place of the last planned actions, in their shape.

        Raises:
            DataError: If nothing was planned, or the shape is another.
        """
        done, planned = to_tensor(action, name="action"), self._action
        if planned is None or done.numel() != planned.numel():
            raise DataError(
                f"action must hold what was done by the rows of the last plan, got the shape "
                f"{tuple(done.shape)}"
            )
        self._action = done.reshape(planned.shape).to(planned.device, planned.dtype)

    def recall(self, obs: Any, action: Any) -> None:
        """Take in the episode so far, of one row: what a model that is new has missed.

        Args:
            obs: Observations [T, O] at which actions were taken; the one after is for `plan`.
            action: The actions [T, A], or indices [T].
        """
        with torch.no_grad():
            seen, done = to_tensor(obs), to_tensor(action)
            state = self.model.start(seen[:1])
            for step in range(1, len(seen)):
                state = self.model.observe(state, done[step - 1 : step], seen[step : step + 1])
        self._state, self._action, self._fresh = state, done[-1:], None

    def reset(self, mask: Any = None) -> None:
        """Forget the episode, of all rows or of those where mask [B] is True."""
        self.planner.reset(mask)
        if mask is None or self._state is None:
            self._state = None
            return
        over = to_tensor(mask, self._state[0].device)
        self._fresh = over if self._fresh is None else self._fresh | over

    def narrow(self, mask: Any) -> None:
        """Drop the rows where mask [B] is False: the next plan is for the others alone."""
        self.planner.narrow(mask)
        if self._state is None or self._action is None:
            return
        kept = to_tensor(mask, self._state[0].device)
        self._state = tuple(each[kept] for each in self._state)
        self._action = self._action[kept.to(self._action.device)]
        self._fresh = None if self._fresh is None else self._fresh[kept]

    def anew(self) -> "Remembering":
        """Return one like this, as it was before its first plan."""
        return Remembering(self.planner.anew())

    def _follow(self, seen: Float[Tensor, "B O"]) -> State:
        """Return the state in which the model has seen these observations too."""
        begun, state = self.model.start(seen), self._state
        if state is None or len(state[0]) != len(seen):
            return begun
        led = self.model.observe(state, self._action, seen)
        if self._fresh is None:
            return led
        fresh = self._fresh
        return tuple(
            torch.where(fresh.view(-1, *[1] * (old.ndim - 1)), new, old)
            for new, old in zip(begun, led, strict=True)
        )


def _rows(obs: Any) -> Shaped[Tensor, "B O"]:
    seen = to_tensor(obs, name="obs")
    if seen.ndim == 0:
        raise DataError("obs must have the shape [O] or [B, O], got a single number")
    return seen.reshape(-1, seen.shape[-1])
