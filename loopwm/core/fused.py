"""The whole bounded loop as a single node of the autograd graph, with its backward by hand.

Training a small cell is bound by the number of operations, not by arithmetic: automatic
differentiation of the plain cell runs three times as many, and a node for each iteration as well
copies what rows have left. Weight gradients are one matrix product over all iterations. The plain
cell is the oracle.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from loopwm.core.block import RMS_EPS


def unroll_bounded(
    h: Tensor,
    conditioning: Sequence[Tensor],
    retention: Tensor,
    enter: Tensor,
    leave: Tensor,
    active: Sequence[int],
    taps: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Refine the first `active[t]` rows of each member in iteration t.

    Args:
        h: States [B, *L, D], the rows with the most iterations first; of several members, the rows
            [M*B, *L, D] of one after those of the other.
        conditioning: What is added after and inside the gates, rows as in h.
        retention: abar [D], or [M, 1, D].
        enter: Weight [2*hidden, D] into the gates, with a leading axis M of members.
        leave: Weight [D, hidden] out of them, the same.
        active: Rows of each iteration, not increasing; the first is B.
        taps: For each iteration, the rows of 0..B-1 whose state is wanted after it; or empty.

    Returns:
        The last state of each row, the one before it, without gradient, and the tapped one.
    """
    tokens = math.prod(h.shape[1:-1])
    if tokens > 1:
        offsets = torch.arange(tokens, device=h.device)
        active = [rows * tokens for rows in active]
        taps = [(tap[:, None] * tokens + offsets).flatten() for tap in taps]
    members = enter.shape[:-2]
    flat = [part.reshape(*members, -1, part.shape[-1]) for part in (h, *conditioning)]
    last, previous, tapped = BoundedLoop.apply(*flat, retention, enter, leave, active, taps)
    return last.view_as(h), previous.view_as(h), tapped.view(-1, *h.shape[1:])


class BoundedLoop(torch.autograd.Function):
    """Repeat `abar*h + injected + W_o(silu(gate) * value)`, gate and value from h normalised.

    Rows are ordered by depth, the deepest first: iteration t refines the first `active[t]`. With
    a leading axis of members M, every tensor has it, and all members have the same depths.
    """

    @staticmethod
    def forward(  # noqa: PLR0913 - autograd hands over tensors one by one
        ctx: Any,
        h: Tensor,
        injected: Tensor,
        bias: Tensor,
        retention: Tensor,
        enter: Tensor,
        leave: Tensor,
        active: Sequence[int],
        taps: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine h [*M, B, D] under its conditioning, injected like h and bias [*M, B, 2*hidden].

        Args:
            ctx: Autograd's context.
            h: Initial states.
            injected: What each iteration adds.
            bias: What the gates' input adds.
            retention: abar [D], or [M, 1, D].
            enter: Weight [*M, 2*hidden, D] into the gates.
            leave: Weight [*M, D, hidden] out of them.
            active: Rows refined by each iteration, not increasing, the first B.
            taps: For each iteration the rows whose state is wanted after it; or empty.

        Returns:
            The last state of each row, the one before it (without gradient), and the tapped one;
            rows that are not tapped hold zeros.
        """
        width, smallest = h.shape[-1], h.new_full((), RMS_EPS)
        affine = torch.addmm if h.ndim == 2 else torch.baddbmm
        into, out_of = enter.mT, leave.mT
        normed, scales, pres, last, previous = [], [], [], [], []
        tapped = torch.zeros_like(h) if taps else h.new_empty(0, width)
        # What each iteration keeps are small tensors of its own: writes into large buffers for all
        # of them miss the cache.
        for t, (rows, stay) in enumerate(zip(active, (*active[1:], 0), strict=True)):
            scale = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
            torch.addcmul(smallest, scale, scale, value=1 / width, out=scale).rsqrt_()
            normed.append(h * scale)
            pre = affine(bias, normed[t], into)
            gate, value = pre.chunk(2, dim=-1)
            out = affine(injected, F.silu(gate).mul_(value), out_of)
            out.addcmul_(retention, h)
            scales.append(scale)
            pres.append(pre)
            if taps:
                tapped.index_copy_(-2, taps[t], out.index_select(-2, taps[t]))
            if stay < rows or not rows:
                last.append(out.narrow(-2, stay, rows - stay))
                previous.append(h.narrow(-2, stay, rows - stay))
                out, injected = out.narrow(-2, 0, stay), injected.narrow(-2, 0, stay)
                bias = bias.narrow(-2, 0, stay)
            h = out
        ctx.active, ctx.taps = active, taps
        ctx.save_for_backward(retention, enter, leave, *normed, *scales, *pres)
        one_before = torch.cat(previous[::-1], dim=-2)
        ctx.mark_non_differentiable(one_before)
        return torch.cat(last[::-1], dim=-2), one_before, tapped

    @staticmethod
    @once_differentiable
    # The decorator's types take the context by position only, torch's own base class also by name.
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of the six tensors."""
        d_last, _, d_tapped = grads
        retention, enter, leave, *saved = ctx.saved_tensors
        active, taps, steps = ctx.active, ctx.taps, len(ctx.active)
        normed, scales, pres = saved[:steps], saved[steps : 2 * steps], saved[2 * steps :]
        all_normed, pre = torch.cat(normed, dim=-2), torch.cat(pres, dim=-2)
        gate, value = pre.chunk(2, dim=-1)
        # The derivatives of hidden = silu(gate) * value, for all iterations at once.
        by_value, by_gate = F.silu(gate), torch.ops.aten.silu_backward(value, gate)
        d_out, d_pre = torch.empty_like(all_normed), torch.empty_like(pre)
        d_injected = torch.zeros_like(d_last)
        d_bias = d_last.new_zeros(*d_last.shape[:-1], pre.shape[-1])
        buffers = (d_out, d_pre, *d_pre.chunk(2, dim=-1), by_gate, by_value)
        parts = list(zip(*(buffer.split(active, dim=-2) for buffer in buffers), strict=True))
        d_h = d_last.narrow(-2, 0, 0)
        for t in reversed(range(steps)):
            grad, into, d_gate, d_value, by_gate_t, by_value_t = parts[t]
            deeper = d_h.shape[-2]
            torch.cat((d_h, d_last.narrow(-2, deeper, active[t] - deeper)), dim=-2, out=grad)
            if taps:
                grad.index_add_(-2, taps[t], d_tapped.index_select(-2, taps[t]))
            d_hidden = grad @ leave
            torch.mul(by_gate_t, d_hidden, out=d_gate)
            torch.mul(by_value_t, d_hidden, out=d_value)
            d_normed = into @ enter
            along = torch.linalg.vecdot(normed[t], d_normed).unsqueeze_(-1)
            d_h = d_normed.addcmul_(normed[t], along, value=-1 / normed[t].shape[-1])
            d_h.mul_(scales[t]).addcmul_(retention, grad)
            d_injected.narrow(-2, 0, active[t]).add_(grad)
            d_bias.narrow(-2, 0, active[t]).add_(into)
        d_retention = (d_out * all_normed).div_(torch.cat(scales, dim=-2))
        d_retention = d_retention.sum(-2).view_as(retention)
        d_enter, d_leave = d_pre.mT @ all_normed, d_out.mT @ by_value.mul_(value)
        return d_h, d_injected, d_bias, d_retention, d_enter, d_leave, None, None
