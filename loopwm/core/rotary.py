"""Rotary positions: queries and keys turned by their place, so that products see distances."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Rotation = tuple[Float[Tensor, "L E"], Float[Tensor, "L E"]]


def rotation_of(tokens: int, width: int, theta: float, like: Tensor) -> Rotation:
    """Return cosine and sine of every token's angles (arXiv 2104.09864, eq. 15).

    Channel i turns together with channel `i + width/2`, by the place times
    `theta^(-2i / width)`.

    Args:
        tokens: Number of places L, counted from 0.
        width: Channels of a head, even; E is half of it.
        theta: Base of the angles.
        like: Gives the device, and the precision, at least single.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    exponents = torch.arange(0, width, 2, device=like.device).to(dtype) / width
    rates = 1 / theta**exponents
    angles = torch.outer(torch.arange(tokens, device=like.device).to(dtype), rates)
    return angles.cos(), angles.sin()


def rotate(x: Float[Tensor, "B H L C"], rotation: Rotation) -> Float[Tensor, "B H L C"]:
    """Turn the channels of each head by the place of their token.

    Args:
        x: Queries or keys of H heads with C channels.
        rotation: What `rotation_of` returned for these tokens.
    """
    cos, sin = rotation
    if torch.compiler.is_compiling():
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
        return turned.to(x.dtype)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Turn.apply(x, cos, sin)
    return _turned(x, cos, sin)


class _Turn(torch.autograd.Function):
    """A turn as one node: automatic differentiation would keep and copy each half."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    # Autograd hands over as many gradients as forward returned, which is one.
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        # By `rotate`, so that the gradient can be differentiated once more.
        return rotate(grad, (cos, -sin)), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x.to(cos.dtype)
    # Laid out as x is, so that the heads of a token stay side by side.
    out = torch.empty_like(wide)
    half = cos.shape[-1]
    first, second = wide[..., :half], wide[..., half:]
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin)
    return out.to(x.dtype)
