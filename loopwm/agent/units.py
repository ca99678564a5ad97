"""Actions as planners search them: -1 to 1 in every dimension, or indices."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from gymnasium.spaces import Box, Discrete
from numpy import ndarray
from torch import Tensor

from loopwm.agent.imagination import action_space_of
from loopwm.data.excitation import bounded_box
from loopwm.data.meta import DatasetMeta
from loopwm.errors import ConfigError, EnvironmentUnsupported
from loopwm.world.arrays import to_tensor


@dataclass(frozen=True, eq=False)
class Units:
    """Map between the units of a search and those of the environment.

    Attributes:
        space: The space of one action: a bounded Box of floats, or Discrete from 0.
    """

    space: Box | Discrete

    @classmethod
    def of(cls, space: gym.Space[Any] | None, model: Any) -> "Units":
        """Take the space that is given, or the one of the model's training data.

        Raises:
            ConfigError: If neither is known, or the model was trained on actions of another kind.
            EnvironmentUnsupported: If the space has no bounds, or its indices do not begin at 0.
        """
        meta = getattr(model, "meta", None)
        if space is None:
            space = action_space_of(meta)
        if not isinstance(space, Discrete):
            space = bounded_box(space)
        elif space.start != 0:
            raise EnvironmentUnsupported(f"discrete actions must begin at 0, got {space}")
        _check_trained(space, meta)
        return cls(space)

    @property
    def choices(self) -> int | None:
        """Return the number of discrete actions, or None for continuous ones."""
        return int(self.space.n) if isinstance(self.space, Discrete) else None

    @property
    def axes(self) -> tuple[int, ...]:
        """Return the trailing axes of an action: (A,), or () for indices."""
        return self.space.shape or ()

    def restore(self, unit: Tensor) -> Tensor:
        """Return actions in environment units, inside the bounds."""
        if isinstance(self.space, Discrete):
            return unit
        low, high = self._bounds(unit)
        # Rounding alone may cross a bound.
        return torch.clamp(low + (unit + 1) * ((high - low) / 2), low, high)

    def as_action(self, action: ndarray) -> ndarray:
        """Return an action in the type of the space; float32 may round a float64 bound up."""
        typed = action.astype(self.space.dtype)
        return typed if isinstance(self.space, Discrete) else typed.clip(*self._limits)

    def scale(self, action: Any, like: Tensor) -> Tensor:
        """Return actions in the units of the search, those out of bounds moved to them.

        Args:
            action: Actions in environment units, or indices.
            like: A tensor of the wanted device and floating type.
        """
        tensor = to_tensor(action, like.device)
        if isinstance(self.space, Discrete):
            return tensor.long()
        low, high = self._bounds(like)
        half = ((high - low) / 2).clamp_min(torch.finfo(like.dtype).tiny)
        return ((tensor.to(like.dtype) - (low + high) / 2) / half).clamp(-1, 1)

    def spread(self, uniform: Tensor) -> Tensor:
        """Map numbers uniform on [0, 1) to actions that are uniform in the units of the search."""
        if self.choices is not None:
            return (uniform * self.choices).long()
        return 2 * uniform - 1

    @property
    def _limits(self) -> tuple[ndarray, ndarray]:
        assert isinstance(self.space, Box)
        return self.space.low, self.space.high

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (
            torch.as_tensor(bound, dtype=like.dtype, device=like.device) for bound in self._limits
        )
        return low, high


def _check_trained(space: Box | Discrete, meta: Any) -> None:
    """Refuse actions that a model does not take; other bounds than those of its data are fine."""
    if not isinstance(meta, DatasetMeta) or (meta.num_actions is None and meta.action_low is None):
        return
    trained = action_space_of(meta)
    same = trained == space if isinstance(trained, Discrete) else trained.shape == space.shape
    if not same:
        raise ConfigError(f"action_space is {space}, but the model was trained on {trained}")
