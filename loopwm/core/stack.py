"""Layers of several models as one: one batched product takes the place of a product for each.

Weights have a leading axis of members. Rows come member after member, the same number of each.
For inference the members' weights become views of one memory; for training they are copied, so
that gradients reach each.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.block import rms_norm
from loopwm.core.cell import BoundedCell, Conditioning, Weights
from loopwm.core.fused import unroll_bounded


def share(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors along a new leading axis, and let each be a view of its part from then on.

    What changes one of them in place thereby changes the stack.
    """
    whole = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, whole, strict=True):
        tensor.data = part
    return whole


def gather(tensors: Sequence[Tensor], learning: bool) -> Tensor:
    """Stack tensors along a new leading axis: a copy that gradients go through, or shared."""
    return torch.stack(list(tensors)) if learning else share(tensors)


def per_row(value: Float[Tensor, "*M D"], rows: int) -> Float[Tensor, "B D"]:
    """Give each of `rows` rows the value [D] of all, or that of its member out of [M, D]."""
    if value.ndim == 1:
        return value.expand(rows, -1)
    return value.repeat_interleave(rows // len(value), 0)


class StackedLinear(nn.Module):
    """Apply to each member's rows the linear layer of that member.

    Args:
        layers: Layers of one size.
        learning: Whether gradients are to reach the layers.
    """

    def __init__(self, layers: Sequence[nn.Linear], learning: bool = False) -> None:
        super().__init__()
        self.weight = gather([layer.weight for layer in layers], learning)
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = gather(biases, learning).unsqueeze(1) if biases else None

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Transform the last axis."""
        flat = x.reshape(len(self.weight), -1, x.shape[-1])
        if self.bias is None:
            out = torch.bmm(flat, self.weight.mT)
        else:
            out = torch.baddbmm(self.bias, flat, self.weight.mT)
        return out.view(*x.shape[:-1], out.shape[-1])


class StackedBounded(nn.Module):
    """Refine each member's rows by the bounded cell of that member.

    Args:
        cells: Cells of one size and form.
        learning: Whether gradients are to reach the cells.

    Attributes:
        unrolls: Whether `unroll` stands in for repeated calls: where the cells are trained.
    """

    num_conditions = BoundedCell.num_conditions

    def __init__(self, cells: Sequence[BoundedCell], learning: bool = False) -> None:
        super().__init__()
        self.unrolls = learning and cells[0].unrolls
        self.gain, self.min_rate = cells[0].gain, cells[0].min_rate
        self.log_rate = gather([cell.log_rate for cell in cells], learning).unsqueeze(1)
        self.from_state = gather([cell.from_state for cell in cells], learning)
        self.leave = gather([cell.leave for cell in cells], learning)
        self.from_injection = StackedLinear([cell.from_injection for cell in cells], learning)
        self.inject = StackedLinear([cell.inject for cell in cells], learning)

    def constrain(self) -> Weights:
        """Return the retention and its complement, each [M, 1, D]."""
        rate = self.log_rate.exp() + self.min_rate
        return torch.exp(-rate), -torch.expm1(-rate)

    def condition(self, e: Float[Tensor, "*B D"]) -> Conditioning:
        """Return what depends on the injection alone, as `BoundedCell.condition`."""
        return self.inject(e), self.from_injection(e)

    def forward(
        self,
        h: Float[Tensor, "*B D"],
        conditioning: Conditioning,
        weights: Weights | None = None,
    ) -> Tensor:
        """Refine h once under the conditioning of `condition`."""
        if self.unrolls:
            each = len(h) // len(self.leave)
            return self.unroll(h, conditioning, (each,), (), weights or self.constrain())[0]
        retention, renewal = weights or self.constrain()
        flat, injected, bias = (
            part.reshape(len(self.leave), -1, part.shape[-1]) for part in (h, *conditioning)
        )
        pre = torch.baddbmm(bias, rms_norm(flat), self.from_state.mT)
        gate, value = pre.chunk(2, dim=2)
        renewed = torch.baddbmm(injected, F.silu(gate) * value, self.leave.mT)
        if self.gain is not None:
            renewed = (self.gain * renewal) * rms_norm(renewed)
        return torch.addcmul(renewed, retention, flat).view_as(h)

    def unroll(
        self,
        h: Float[Tensor, "B *L D"],
        conditioning: Conditioning,
        active: Sequence[int],
        taps: Sequence[Tensor],
        weights: Weights,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine the first `active[t]` rows of each member in iteration t (see `BoundedCell`)."""
        own = weights[0], self.from_state, self.leave
        return unroll_bounded(h, conditioning, *own, active, taps)
