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


class BoundedLoop(torch.autograd.Function):
    """Repeat `abar*h + injected + W_o(silu(gate) * value)`, gate and value from h normalised.

    Rows are ordered by depth, the deepest first: iteration t refines the first `active[t]`.
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
        """Refine h [B, D] under its conditioning, injected [B, D] and bias [B, 2*hidden].

        Args:
            ctx: Autograd's context.
            h: Initial states.
            injected: What each iteration adds.
            bias: What the gates' input adds.
            retention: abar [D].
            enter: Weight [2*hidden, D] into the gates.
            leave: Weight [D, hidden] out of them.
            active: Rows refined by each iteration, not increasing, the first B.
            taps: For each iteration the rows whose state is wanted after it; or empty.

        Returns:
            The last state of each row, the one before it (without gradient), and the tapped one;
            rows that are not tapped hold zeros.
        """
        total, width, half = sum(active), h.shape[1], leave.shape[1]
        normed, scale = h.new_empty(total, width), h.new_empty(total, 1)
        pre, hidden = h.new_empty(total, 2 * half), h.new_empty(total, half)
        last, previous = torch.empty_like(h), torch.empty_like(h)
        tapped = torch.zeros_like(h) if taps else h.new_empty(0, width)
        for t, (rows, part) in enumerate(_parts(active)):
            torch.linalg.vector_norm(h, dim=1, keepdim=True, out=scale[part])
            scale[part].square_().add_(width * RMS_EPS).rsqrt_().mul_(math.sqrt(width))
            torch.mul(h, scale[part], out=normed[part])
            torch.addmm(bias[:rows], normed[part], enter.T, out=pre[part])
            gate, value = pre[part].chunk(2, dim=1)
            torch.mul(F.silu(gate), value, out=hidden[part])
            out = torch.addmm(injected[:rows], hidden[part], leave.T).addcmul_(retention, h)
            if taps:
                tapped.index_copy_(0, taps[t], out.index_select(0, taps[t]))
            stay = active[t + 1] if t + 1 < len(active) else 0
            last[stay:rows], previous[stay:rows] = out[stay:], h[stay:]
            h = out[:stay]
        ctx.active, ctx.taps = active, taps
        ctx.save_for_backward(normed, scale, pre, hidden, retention, enter, leave)
        ctx.mark_non_differentiable(previous)
        return last, previous, tapped

    @staticmethod
    @once_differentiable
    # The decorator's types take the context by position only, torch's own base class also by name.
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of the six tensors."""
        d_last, _, d_tapped = grads
        normed, scale, pre, hidden, retention, enter, leave = ctx.saved_tensors
        active, taps = ctx.active, ctx.taps
        half = hidden.shape[1]
        d_out, d_pre = torch.empty_like(normed), torch.empty_like(pre)
        d_injected = torch.zeros_like(d_last)
        d_bias = d_last.new_zeros(len(d_last), 2 * half)
        stay, d_h = 0, d_last[:0]
        for t, (rows, part) in reversed(list(enumerate(_parts(active)))):
            grad, into = d_out[part], d_pre[part]
            grad[:stay], grad[stay:] = d_h, d_last[stay:rows]
            if taps:
                grad.index_add_(0, taps[t], d_tapped.index_select(0, taps[t]))
            gate, value = pre[part].chunk(2, dim=1)
            d_hidden = grad @ leave
            torch.mul(F.silu(gate), d_hidden, out=into[:, half:])
            torch.ops.aten.silu_backward.grad_input(
                d_hidden.mul_(value), gate, grad_input=into[:, :half]
            )
            d_normed = into @ enter
            along = torch.linalg.vecdot(normed[part], d_normed).unsqueeze(1) / normed.shape[1]
            d_h = d_normed.addcmul_(normed[part], along, value=-1).mul_(scale[part])
            d_h.addcmul_(retention, grad)
            d_injected[:rows] += grad
            d_bias[:rows] += into
            stay = rows
        d_retention = torch.linalg.vecdot(d_out / scale, normed, dim=0)
        d_enter, d_leave = d_pre.T @ normed, d_out.T @ hidden
        return d_h, d_injected, d_bias, d_retention, d_enter, d_leave, None, None


def _parts(active: Sequence[int]) -> list[tuple[int, slice]]:
    """Return how many rows each iteration refines, and where they lie among all of them."""
    parts, start = [], 0
    for rows in active:
        parts.append((rows, slice(start, start + rows)))
        start += rows
    return parts
