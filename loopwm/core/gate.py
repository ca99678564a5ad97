"""A stop rule fitted after training, on a frozen core, to what each row is still to change."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopwm.core.block import rms_norm
from loopwm.core.halt import Readout
from loopwm.errors import ConfigError

# Changes below this are rounding; logarithms start here.
_FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Gate:
    """Stop when a linear model predicts that the decoded prediction has little left to change.

    The prediction is that of `log rms(y_T - y_t)`: y_t the decoded prediction after t iterations,
    y_T the one that the loop would end at. It is linear in the logarithms of the last change of
    the prediction and of the latent state, and in the latent state normalised. The core knows
    nothing of it; `loopwm.study.gate.fit_gate` solves for the weights.

    Args:
        weight: Coefficients [F] of `features`.
        outputs: Number M of decoded components.
        tol: Largest predicted remaining change, root mean square, in standard deviations of the
            predicted quantity, above 0.
        patience: Number of consecutive iterations below `tol`.
    """

    weight: Float[Tensor, " F"]
    outputs: int
    tol: float = 0.02
    patience: int = 1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If one is out of range.
        """
        if not self.tol > 0:
            raise ConfigError(f"Gate.tol must be above 0, got {self.tol}")
        if self.patience < 1:
            raise ConfigError(f"Gate.patience must be at least 1, got {self.patience}")

    def signal(self, h: Float[Tensor, "B L D"], readout: Readout | None) -> Float[Tensor, "B S"]:
        """Return the decoded prediction and the latent state, side by side."""
        if readout is None:
            raise ConfigError("a Gate needs a readout: pass readout= to the core")
        return torch.cat([readout(h), h.flatten(1)], dim=1)

    def met(self, now: Float[Tensor, "B S"], before: Float[Tensor, "B S"]) -> Bool[Tensor, " B"]:
        """Return whether the predicted remaining change is below `tol`."""
        predicted = features(now, before, self.outputs) @ self.weight.to(now)
        return predicted < math.log(self.tol)


def features(
    now: Float[Tensor, "*B S"], before: Float[Tensor, "*B S"], outputs: int
) -> Float[Tensor, "*B F"]:
    """Return what the gate looks at.

    Args:
        now: Decoded prediction and latent state after an iteration, as `Gate.signal` joins them.
        before: The same before it.
        outputs: Number M of decoded components.

    Returns:
        A one, the logarithms of the root mean square change of the prediction and of the relative
        change of the latent, and the latent over its root mean square.
    """
    change, size = now - before, now[..., outputs:].square().mean(-1)
    moved = change[..., :outputs].square().mean(-1)
    shifted = change[..., outputs:].square().mean(-1) / size.clamp_min(_FLOOR**2)
    logs = torch.stack([moved, shifted], dim=-1).clamp_min(_FLOOR**2).log() / 2
    return torch.cat([torch.ones_like(logs[..., :1]), logs, rms_norm(now[..., outputs:])], dim=-1)
