"""What a block does between its matrix products, each a single node of the autograd graph.

Automatic differentiation of the plain operations keeps a third more memory and runs twice as many,
which at small widths take as long as the products. The plain operations are the oracle, and what
`torch.compile` gets, which fuses them in its own way. A node can be differentiated once.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def gated(both: Float[Tensor, "*B E"], once: bool = True) -> Float[Tensor, "*B F"]:
    """Return `silu(gate) * value` of a gate and a value that lie side by side (arXiv 2002.05202).

    Args:
        both: Gate, then value, of the same width F; E is twice that.
        once: Whether the gradient will not be differentiated itself.
    """
    gate, value = both.chunk(2, dim=-1)
    if torch.compiler.is_compiling():
        return F.silu(gate) * value
    if torch.is_grad_enabled() and both.requires_grad:
        return _Gated.apply(both) if once else F.silu(gate) * value
    return F.silu(gate).mul_(value)


def normed_sum(
    x: Float[Tensor, "*B D"], y: Float[Tensor, "*B D"], eps: float, once: bool = True
) -> Float[Tensor, "*B D"]:
    """Return the sum of two vectors over the root of its mean square, with the type of the sum.

    Args:
        x: One term.
        y: The other.
        eps: Mean square below which the result shrinks.
        once: Whether the gradient will not be differentiated itself.
    """
    if torch.compiler.is_compiling():
        return normed(x + y, eps)
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        if not once:
            return normed(x + y, eps)
        return _NormedSum.apply(x, y, eps)[0]
    return _normed(x + y, eps)[0]


def normed(x: Float[Tensor, "*B D"], eps: float) -> Float[Tensor, "*B D"]:
    """Return a vector over the root of its mean square, by plain operations; see `normed_sum`."""
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, value = both.chunk(2, dim=-1)
        ctx.save_for_backward(both)
        return F.silu(gate).mul_(value)

    @staticmethod
    @once_differentiable
    # The decorator's types take the context by position only, torch's own base class also by name.
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (both,) = ctx.saved_tensors
        gate, value = both.chunk(2, dim=-1)
        into = torch.empty_like(both)
        half = gate.shape[-1]
        torch.ops.aten.silu_backward.grad_input(grad * value, gate, grad_input=into[..., :half])
        torch.mul(F.silu(gate), grad, out=into[..., half:])
        return into


class _NormedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        out, scale = _normed(x + y, eps)
        ctx.save_for_backward(out, scale)
        ctx.types = x.dtype, y.dtype
        ctx.mark_non_differentiable(scale)
        return out, scale

    @staticmethod
    @once_differentiable
    # As above.
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        out, scale = ctx.saved_tensors
        wide, unit = grad.to(scale.dtype), out.to(scale.dtype)
        along = torch.linalg.vecdot(unit, wide).unsqueeze(-1) / out.shape[-1]
        d_sum = torch.addcmul(wide, unit, along, value=-1).mul_(scale)
        of_x, of_y = ctx.types
        return d_sum.to(of_x), d_sum.to(of_y), None


def _normed(total: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Normalise, in place if possible; return the result and what each vector was scaled by."""
    wide = _wide(total)
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return wide.mul_(scale).to(total.dtype), scale


def _wide(x: Tensor) -> Tensor:
    # Squares of 16-bit numbers lose what the mean is made of. The operations that follow are those
    # of published models, one by one: over their cycles a rounding grows twentyfold.
    return x.to(torch.promote_types(x.dtype, torch.float32))
