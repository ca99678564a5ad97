"""The layers that cells are made of: normalisation, SwiGLU, attention, and their block."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.rotary import Rotation, rotate
from loopwm.core.sublayer import gated, normed, normed_sum

RMS_EPS = 1e-6


def rms_norm(x: Float[Tensor, "*B D"], eps: float = RMS_EPS) -> Float[Tensor, "*B D"]:
    """Scale each vector to norm sqrt(D); one shorter than about sqrt(D * eps) shrinks to 0.

    The bound `||rms_norm(x)|| <= sqrt(D)` holds for every x, which is what the cells build on.
    """
    width = x.shape[-1]
    # The vector norm is one fused kernel on a CPU, twice as fast as F.rms_norm at width 64.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * (math.sqrt(width) * torch.rsqrt(norm.square() + width * eps))


def init_linear(weight: Tensor, gain: float = 1.0) -> None:
    """Fill a weight [out, in] with normal values of variance gain^2 / in."""
    nn.init.normal_(weight, std=gain / math.sqrt(weight.shape[1]))


class SwiGLU(nn.Module):
    """Apply a gated two-layer perceptron (arXiv 2002.05202).

    Args:
        width: Width D of input and output.
        hidden: Width of the gated layer.
        gain: Scale of the output layer at initialisation.
    """

    def __init__(self, width: int, hidden: int, gain: float = 1.0) -> None:
        super().__init__()
        self.enter = nn.Linear(width, 2 * hidden, bias=False)
        self.leave = nn.Linear(hidden, width, bias=False)
        init_linear(self.enter.weight)
        init_linear(self.leave.weight, gain)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Transform each token by itself."""
        return self.leave(gated(self.enter(x), once=self.training))


class Attention(nn.Module):
    """Mix tokens by multi-head self-attention without mask.

    Args:
        width: Width D of the tokens, a multiple of `heads`.
        heads: Number of attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"width must be a multiple of heads, got width={width}, heads={heads}; "
                f"nearest valid width is {heads * max(1, round(width / heads))}"
            )
        self.heads = heads
        self.enter = nn.Linear(width, 3 * width, bias=False)
        self.leave = nn.Linear(width, width, bias=False)
        init_linear(self.enter.weight)
        init_linear(self.leave.weight)

    def forward(
        self, x: Float[Tensor, "B L D"], rotation: Rotation | None = None
    ) -> Float[Tensor, "B L D"]:
        """Let every token attend to all tokens of its row, turned by their places if asked to."""
        if x.shape[1] == 1:
            # A single token attends to itself alone: its value is all that there is to mix.
            return self.leave(F.linear(x, self.enter.weight[-x.shape[2] :]))
        parts = self.enter(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)
        pairs, v = parts.split([2 * self.heads, self.heads], dim=1)
        if rotation is not None:
            pairs = rotate(pairs, rotation)
        q, k = pairs.chunk(2, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.leave(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Mix tokens, then transform each: two residual sublayers with RMS normalisation.

    Args:
        width: Width D of the tokens.
        mix: `Attention`, or a `SwiGLU` over the tokens of each channel, or None for no mixing.
        hidden: Width of the gated layer that transforms each token.
        norm: "pre" normalises each sublayer's input, "post" each sum, as TRM does. Around a
            mixing `SwiGLU` it is the tokens of each channel that are normalised.
        eps: Mean square below which normalisation shrinks.
    """

    def __init__(
        self,
        width: int,
        mix: Attention | SwiGLU | None,
        hidden: int,
        norm: Literal["pre", "post"] = "pre",
        eps: float = RMS_EPS,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.eps = eps
        self.mix = mix
        self.transform = SwiGLU(width, hidden)

    def forward(
        self, x: Float[Tensor, "B L D"], rotation: Rotation | None = None
    ) -> Float[Tensor, "B L D"]:
        """Apply the sublayers in order; `rotation` tells the attention the tokens' places."""
        if isinstance(self.mix, Attention):
            x = self._add(x, partial(self.mix, rotation=rotation))
        elif self.mix is not None:
            x = self._add(x.mT, self.mix).mT
        return self._add(x, self.transform)

    def _add(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.norm == "pre":
            return x + sublayer(normed(x, self.eps))
        return normed_sum(x, sublayer(x), self.eps, once=self.training)
