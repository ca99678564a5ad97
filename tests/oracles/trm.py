"""TRM by its equations (arXiv 2510.04871), one row, head and token at a time, in float64.

Weights come by their published names, so that this knows nothing of how the library holds them.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
EPS = 1e-5


def rms(x: Tensor) -> Tensor:
    """Divide a vector by the root of its mean square."""
    return x / ((x * x).sum() / x.numel() + EPS).sqrt()


def gated(weights: Weights, name: str, x: Tensor) -> Tensor:
    """down(silu(gate) * value) of one vector; the gate is the first half."""
    both = weights[f"{name}.gate_up_proj.weight"] @ x
    half = len(both) // 2
    gate, value = both[:half], both[half:]
    return weights[f"{name}.down_proj.weight"] @ (gate / (1 + torch.exp(-gate)) * value)


def turned(x: Tensor, place: int, theta: float) -> Tensor:
    """Channels i and i + C/2 are a complex number, multiplied by exp(1j * angle)."""
    half = len(x) // 2
    out = []
    for i in range(half):
        angle = place * theta ** (-2 * i / len(x))
        turn = torch.polar(torch.ones(()).double(), torch.tensor(angle, dtype=torch.float64))
        out.append(torch.complex(x[i], x[i + half]) * turn)
    stacked = torch.stack(out)
    return torch.cat([stacked.real, stacked.imag])


def attention(weights: Weights, name: str, h: Tensor, heads: int, theta: float) -> Tensor:
    """Multi-head attention of one row [L, D]; queries, keys, values lie one after the other."""
    tokens, width = h.shape
    size = width // heads
    qkv = [weights[f"{name}.qkv_proj.weight"] @ h[t] for t in range(tokens)]

    def part(t: int, which: int, head: int) -> Tensor:
        begin = which * width + head * size
        return qkv[t][begin : begin + size]

    rows = []
    for t in range(tokens):
        outputs = []
        for head in range(heads):
            query = turned(part(t, 0, head), t, theta)
            scores = torch.stack(
                [query @ turned(part(s, 1, head), s, theta) for s in range(tokens)]
            )
            share = torch.exp(scores / math.sqrt(size))
            share = share / share.sum()
            outputs.append(sum(share[s] * part(s, 2, head) for s in range(tokens)))
        rows.append(weights[f"{name}.o_proj.weight"] @ torch.cat(outputs))
    return torch.stack(rows)


def block(weights: Weights, index: int, h: Tensor, heads: int, theta: float) -> Tensor:
    """Mix the tokens of one row [L, D], then transform each; normalise every sum."""
    name = f"L_level.layers.{index}"
    if f"{name}.self_attn.qkv_proj.weight" in weights:
        h = h + attention(weights, f"{name}.self_attn", h, heads, theta)
        h = torch.stack([rms(token) for token in h])
    else:
        channels = [h[:, c] + gated(weights, f"{name}.mlp_t", h[:, c]) for c in range(h.shape[1])]
        h = torch.stack([rms(channel) for channel in channels], dim=1)
    return torch.stack([rms(token + gated(weights, f"{name}.mlp", token)) for token in h])


def refine(
    weights: Weights, h: Tensor, injected: Tensor, heads: int = 2, theta: float = 1e4
) -> Tensor:
    """Refine one row: all blocks, once, on the sum of state and injection."""
    h = h + injected
    index = 0
    while f"L_level.layers.{index}.mlp.down_proj.weight" in weights:
        h = block(weights, index, h, heads, theta)
        index += 1
    return h


def embed(weights: Weights, tokens: list[int], puzzle: int, prefix: int) -> Tensor:
    """The puzzle's row, filled up with zeros and cut into tokens, then the embeddings."""
    table, embedding = weights["puzzle_emb.weights"], weights["embed_tokens.embedding_weight"]
    width = embedding.shape[1]
    blank = torch.zeros(prefix * width - table.shape[1]).double()
    learned = torch.cat([table[puzzle], blank])
    first = [learned[i * width : (i + 1) * width] for i in range(prefix)]
    return math.sqrt(width) * torch.stack(first + [embedding[token] for token in tokens])


def begin(weights: Weights, length: int) -> tuple[Tensor, Tensor]:
    """The latents of one row at the start: answer, thought."""
    high, low = weights["H_init"], weights["L_init"]
    return torch.stack([high] * length), torch.stack([low] * length)


def step(
    weights: Weights,
    state: tuple[Tensor, Tensor],
    tokens: list[int],
    puzzle: int,
    *,
    prefix: int,
    cycles: int,
    inner: int,
    heads: int = 2,
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """One step of one row; all cycles but the last are constants."""
    e = embed(weights, tokens, puzzle, prefix)
    high, low = state
    for cycle in range(cycles):
        for _ in range(inner):
            low = refine(weights, low, high + e, heads)
        high = refine(weights, high, low, heads)
        if cycle < cycles - 1:
            high, low = high.detach(), low.detach()
    logits = high[prefix:] @ weights["lm_head.weight"].T
    verdict = weights["q_head.weight"] @ high[0] + weights["q_head.bias"]
    return (high, low), logits, verdict


def stablemax(x: Tensor) -> Tensor:
    """s(x) / sum s(x) (arXiv 2501.04697, eq. 3)."""
    s = torch.stack([v + 1 if v >= 0 else 1 / (1 - v) for v in x])
    return s / s.sum()


def row_loss(logits: Tensor, q_halt: Tensor, labels: list[int]) -> Tensor:
    """Mean over labelled tokens of -log stablemax, and half the cross-entropy of the verdict."""
    losses, right = [], True
    for scores, label in zip(logits, labels, strict=True):
        if label >= 0:
            losses.append(-torch.log(stablemax(scores)[label]))
            right = right and int(scores.argmax()) == label
    chance = 1 / (1 + torch.exp(-q_halt))
    verdict = -torch.log(chance if right else 1 - chance)
    return torch.stack(losses).mean() + 0.5 * verdict
