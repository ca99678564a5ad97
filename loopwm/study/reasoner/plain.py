"""TRM as published: operation by operation, weights cast at every use, the loss in float64.

It is what our reasoner is timed beside, on the same weights, and an oracle for its numbers.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from loopwm.core.block import Attention, Block, SwiGLU
from loopwm.core.rotary import rotation_of
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.model import Reasoner

_Latents = tuple[Tensor, Tensor]


def plain_loss(model: Reasoner, puzzles: PuzzleBatch, dtype: torch.dtype) -> Float[Tensor, ""]:
    """Return the loss of a first step of thought (arXiv 2510.04871, fig. 3).

    Args:
        model: Whose weights are used.
        puzzles: The puzzles, every token labelled.
        dtype: Number format of latents and products; the loss is computed in float64.
    """
    config = model.config
    e = _embedded(model, puzzles, dtype)
    answer, thought = (
        model.get_buffer(name).to(dtype).expand_as(e) for name in ("start_answer", "start_thought")
    )
    with torch.no_grad():
        for _ in range(config.cycles - 1):
            answer, thought = _cycle(model, answer, thought, e)
    answer, _ = _cycle(model, answer, thought, e)
    logits = _linear(answer, model.decode.weight)[:, config.prefix :].double()
    verdict = _linear(answer[:, 0], model.judge.weight) + model.judge.bias.to(dtype)
    return _loss(logits, verdict[:, 0].float(), puzzles.labels)


def _embedded(model: Reasoner, puzzles: PuzzleBatch, dtype: torch.dtype) -> Tensor:
    config = model.config
    row = F.embedding(puzzles.puzzle_ids, model.adapter.puzzle, sparse=True).to(dtype)
    row = F.pad(row, (0, config.prefix * config.width - row.shape[1]))
    tokens = F.embedding(puzzles.tokens, model.adapter.token.to(dtype))
    whole = torch.cat([row.view(len(row), config.prefix, config.width), tokens], dim=1)
    return math.sqrt(config.width) * whole


def _cycle(model: Reasoner, answer: Tensor, thought: Tensor, e: Tensor) -> _Latents:
    for _ in range(model.config.inner):
        thought = _refined(model, thought, answer + e)
    return _refined(model, answer, thought), thought


def _refined(model: Reasoner, h: Tensor, injected: Tensor) -> Tensor:
    cell = model.core.cell
    h = h + injected
    # The protocol of cells does not say that this one is made of blocks.
    for block in cell.blocks:  # type: ignore[attr-defined]
        assert isinstance(block, Block)
        if isinstance(block.mix, Attention):
            h = _rms(h + _attended(block.mix, h, cell.theta), block.eps)  # type: ignore[attr-defined]
        elif block.mix is not None:
            h = _rms(h.mT + _gated(block.mix, h.mT), block.eps).mT
        h = _rms(h + _gated(block.transform, h), block.eps)
    return h


def _attended(mix: Attention, h: Tensor, theta: float | None) -> Tensor:
    q, k, v = _linear(h, mix.enter.weight).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (mix.heads, -1)).transpose(1, 2) for part in (q, k, v))
    if theta is not None:
        cos, sin = rotation_of(h.shape[1], q.shape[-1], theta, mix.enter.weight)
        whole = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)
        q, k = _turned(q, *whole), _turned(k, *whole)
    mixed = F.scaled_dot_product_attention(q, k, v)
    return _linear(mixed.transpose(1, 2).flatten(2), mix.leave.weight)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def _gated(layer: SwiGLU, x: Tensor) -> Tensor:
    gate, value = _linear(x, layer.enter.weight).chunk(2, dim=-1)
    return _linear(F.silu(gate) * value, layer.leave.weight)


def _rms(x: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x, weight.to(x.dtype))


def _loss(logits: Tensor, verdict: Tensor, labels: Int[Tensor, "B S"]) -> Tensor:
    s = torch.where(logits < 0, 1 / (1 - logits), logits + 1)
    chosen = s.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    answer = -torch.log(chosen / s.sum(-1)).mean(1)
    right = (logits.argmax(-1) == labels).all(1).to(verdict.dtype)
    judged = F.binary_cross_entropy_with_logits(verdict, right, reduction="none")
    return (answer + 0.5 * judged).mean()
