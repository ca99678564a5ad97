"""Decode a feature: the observation's change, its spread, the reward and termination."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.stack import per_row
from loopwm.world.config import Gaussian, Head, ModuleFactory

_HIDDEN = 32
# Logit of a termination that does not happen: a probability of 2e-9.
_NEVER = -20.0


def small_head(width: int, outputs: int) -> nn.Sequential:
    """Return a one-hidden-layer head from [..., D] to [..., outputs]."""
    return nn.Sequential(nn.Linear(width, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, outputs))


def deep_head(width: int, outputs: int) -> nn.Sequential:
    """Return a head of two hidden layers, from [..., D] to [..., outputs], for sharp bounds."""
    enter, leave = nn.Linear(width, _HIDDEN), nn.Linear(_HIDDEN, outputs)
    return nn.Sequential(enter, nn.SiLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(), leave)


def linear_head(width: int, outputs: int) -> nn.Linear:
    """Return a linear head from [..., D] to [..., outputs] that starts near zero."""
    head = nn.Linear(width, outputs)
    nn.init.normal_(head.weight, std=0.1 / math.sqrt(width))
    nn.init.zeros_(head.bias)
    return head


class Heads(nn.Module):
    """Hold the heads of a world model; all work in standardised units.

    Whether a step ends the episode is read off the observation that it leads to, for that is what
    environments read it off. Read off the feature, it failed on states unlike those of training.

    Args:
        width: Width D of the feature.
        obs_dim: Number of observation dimensions O.
        shown_dim: Number X of inputs that an observation is shown as.
        kind: Mean or Gaussian.
        custom: Factories that replace heads by name.
    """

    spread_scale: Tensor

    def __init__(
        self,
        width: int,
        obs_dim: int,
        shown_dim: int,
        kind: Head,
        custom: dict[str, ModuleFactory],
    ) -> None:
        super().__init__()
        self.change = custom.get("change", linear_head)(width, obs_dim)
        self.reward = custom.get("reward", small_head)(width, 1)
        self.termination = custom.get("termination", deep_head)(shown_dim, 1)
        self.floor = kind.floor if isinstance(kind, Gaussian) else None
        self.spread = small_head(width, obs_dim) if self.floor is not None else None
        # Set after training so that standardised errors have unit variance on held-out data.
        self.register_buffer("spread_scale", torch.ones(obs_dim))

    def end_nothing(self) -> None:
        """Predict that no step ends an episode, for no data will teach when one does."""
        assert isinstance(self.termination, nn.Sequential)
        leave = self.termination[-1]
        assert isinstance(leave, nn.Linear)
        nn.init.zeros_(leave.weight)
        nn.init.constant_(leave.bias, _NEVER)

    @property
    def ends_nothing(self) -> bool:
        """Say whether `end_nothing` was called, and no training since."""
        leave = self.termination[-1] if isinstance(self.termination, nn.Sequential) else None
        return (
            isinstance(leave, nn.Linear)
            and not leave.weight.any()
            and bool((leave.bias == _NEVER).all())
        )

    def std(self, feature: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"] | None:
        """Return the predicted spread of the change, in its standard deviations, or None."""
        if self.spread is None or self.floor is None:
            return None
        std = F.softplus(self.spread(feature)) + self.floor
        if self.spread_scale.ndim == 1:
            return std * self.spread_scale
        # Several members as one: each member's rows have their own scale.
        scale = per_row(self.spread_scale, len(std))
        return std * scale.view(len(std), *(1,) * (std.ndim - 2), std.shape[-1])
