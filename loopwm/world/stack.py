"""Several world models as one: the members' rows, one member after the other, go through at once.

At small batches the number of operations is what takes time, and this way they are as many as one
member's.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from loopwm.core.cell import BoundedCell
from loopwm.core.grad import Full
from loopwm.core.loop import LoopedCore
from loopwm.core.stack import StackedBounded, StackedLinear, gather
from loopwm.world.baseline import MLPDynamics, UntiedDynamics
from loopwm.world.head import Heads
from loopwm.world.looped import LoopedDynamics
from loopwm.world.model import WorldModel
from loopwm.world.normaliser import Normaliser
from loopwm.world.prediction import Prediction, Trajectory
from loopwm.world.protocol import State

_LAYERS: dict[type[nn.Module], Any] = {nn.Linear: StackedLinear, BoundedCell: StackedBounded}
# Modules that work on rows alone, or take their own tensors with a leading axis of members too.
_ROWWISE = (
    WorldModel,
    LoopedDynamics,
    LoopedCore,
    MLPDynamics,
    UntiedDynamics,
    Heads,
    nn.ModuleList,
    nn.Sequential,
    nn.SiLU,
)


@dataclass(frozen=True)
class Stack:
    """Apply the verbs to all members at once, through a model whose layers are those of them all.

    Attributes:
        model: Takes and returns rows member after member.
        members: The members.
        tensors: Their parameters and buffers.
        addresses: Where the memory of each lay when it was shared.
    """

    model: WorldModel
    members: tuple[WorldModel, ...]
    tensors: tuple[Tensor, ...]
    addresses: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[WorldModel]) -> "Stack | None":
        """Return the members as one model, or None if they are not models that can be stacked."""
        if not _stackable(members):
            return None
        model = _stacked(members)
        every = tuple(chain.from_iterable(_tensors(member) for member in members))
        return cls(model, tuple(members), every, tuple(t.data_ptr() for t in every))

    @property
    def whole(self) -> bool:
        """Say whether the members' weights are still those that the stack shares."""
        return all(
            tensor.data_ptr() == address
            for tensor, address in zip(self.tensors, self.addresses, strict=True)
        )

    def ready(self) -> bool:
        """Say whether the stack now computes what the members would, and take over their settings.

        Members that are trained, or that differ in what is set apart from the weights, have to
        compute for themselves.
        """
        settings = [_settings(member) for member in self.members]
        if any(other != settings[0] for other in settings[1:]) or not settings[0][0]:
            return False
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.tensors):
            return False
        _, self.model.margin, self.model.reward_fn, self.model.termination_fn, solver = settings[0]
        return solver is None

    def start(self, obs: Tensor) -> State:
        """Return the members' states, one after the other."""
        return self._part(self.model.start(self._each(obs)))

    def observe(self, state: State, action: Tensor, obs: Tensor, options: dict[str, Any]) -> State:
        """Let every member take in a real step."""
        joined = self._join(state)
        return self._part(
            self.model.observe(joined, self._each(action), self._each(obs), **options)
        )

    def step(
        self, state: State, action: Tensor, options: dict[str, Any]
    ) -> tuple[State, Prediction]:
        """Imagine one step; the prediction has a leading axis of members."""
        state, each = self.model.step(self._join(state), self._each(action), **options)
        return self._part(state), each

    def predict(self, obs: Tensor, action: Tensor, options: dict[str, Any]) -> Prediction:
        """Predict one step; the prediction has a leading axis of members."""
        return self.model.predict(self._each(obs), self._each(action), **options)

    def imagine(
        self, obs: Tensor | None, state: State | None, actions: Tensor, options: dict[str, Any]
    ) -> Trajectory:
        """Imagine from `obs`, or from `state`; the trajectory has a leading axis of members."""
        first = None if obs is None else self._each(obs)
        joined = None if state is None else self._join(state)
        return self.model.imagine(first, self._each(actions), state=joined, **options)

    def _each(self, tensor: Tensor) -> Tensor:
        """Give every member the same input."""
        return tensor.expand(len(self.members), *tensor.shape)

    def _join(self, state: State) -> State:
        """Turn the members' states, one after the other, into one of all their rows."""
        slots = len(state) // len(self.members)
        return tuple(torch.cat(state[slot::slots]) for slot in range(slots))

    def _part(self, state: State) -> State:
        """Turn a state of all members' rows into their states, one after the other."""
        count = len(self.members)
        parts = [t.view(count, len(t) // count, *t.shape[1:]).unbind() for t in state]
        return tuple(part[member] for member in range(count) for part in parts)


def learn_joined(members: Sequence[WorldModel]) -> bool:
    """Say whether `joined` can stand for the members in training."""
    cells = [each for each in members[0].modules() if isinstance(each, BoundedCell)]
    grad = getattr(members[0].dynamics, "grad", Full())
    return _stackable(members) and isinstance(grad, Full) and all(c.gain is None for c in cells)


def joined(members: Sequence[WorldModel]) -> WorldModel:
    """Return a model that does to each member's rows what that member does, gradients included.

    Its weights are copies of theirs as they are now; rows come member after member.
    """
    return _stacked(members, learning=True)


def _settings(member: WorldModel) -> tuple[Any, ...]:
    solver = getattr(getattr(member.dynamics, "core", None), "solver", None)
    functions = member.reward_fn, member.termination_fn
    return (not member.training, member.margin, *functions, solver)


def _stackable(members: Sequence[WorldModel]) -> bool:
    """Say whether the members are distinct, of one configuration, and made of known layers only."""
    first = members[0]
    normaliser = list(first.normaliser.buffers())
    return (
        len({id(member) for member in members}) == len(members)
        and all(type(member) is WorldModel for member in members)
        and all(member.config == first.config for member in members)
        and first.encoder is None
        and not getattr(first.config, "heads", None)
        and all(_known(member) for member in members)
        and all(
            a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
            for member in members[1:]
            for a, b in zip(normaliser, member.normaliser.buffers(), strict=True)
        )
    )


def _known(module: nn.Module) -> bool:
    kind = type(module)
    if kind is LoopedCore and module.flow is not None:
        return False
    if kind in _LAYERS or kind is Normaliser:
        return True
    return kind in _ROWWISE and all(_known(child) for child in module.children())


def _stacked(modules: Sequence[Any], learning: bool = False) -> Any:
    """Return a module that does to each member's rows what that member's module does."""
    first = modules[0]
    if isinstance(first, Normaliser):
        return first
    if type(first) in _LAYERS:
        return _LAYERS[type(first)](modules, learning)
    twin = copy.copy(first)
    twin._modules = {
        name: None
        if child is None
        else _stacked([module._modules[name] for module in modules], learning)
        for name, child in first._modules.items()
    }
    twin._buffers = {
        name: gather([module._buffers[name] for module in modules], learning)
        for name in first._buffers
    }
    # Plain tensors in place of parameters, which are the members'.
    twin._parameters = {}
    twin.__dict__.update(
        {
            name: gather([module._parameters[name] for module in modules], learning)
            for name in first._parameters
        }
    )
    if isinstance(twin, LoopedCore):
        twin.members = len(modules)
    return twin


def _tensors(member: WorldModel) -> list[Tensor]:
    """Return what the stack shares with a member: everything but the statistics."""
    kept = {id(buffer) for buffer in member.normaliser.buffers()}
    return [t for t in chain(member.parameters(), member.buffers()) if id(t) not in kept]
