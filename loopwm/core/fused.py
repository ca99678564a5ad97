"""The whole bounded loop as a single node of the autograd graph, with its backward by hand.

Training a small cell is bound by the number of operations, not by arithmetic: automatic
differentiation of the plain cell runs three times as many, and a node for each iteration as well
copies what rows have left. Weight gradients are one matrix product over all iterations. The plain
cell is the oracle.
"""

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
        width, smallest = h.shape[1], h.new_full((), RMS_EPS)
        normed, scales, pres, last, previous = [], [], [], [], []
        tapped = torch.zeros_like(h) if taps else h.new_empty(0, width)
        # What each iteration keeps are small tensors of its own: writes into large buffers for all
        # of them miss the cache.
        for t, (rows, stay) in enumerate(zip(active, (*active[1:], 0), strict=True)):
            scale = torch.linalg.vector_norm(h, dim=1, keepdim=True)
            torch.addcmul(smallest, scale, scale, value=1 / width, out=scale).rsqrt_()
            normed.append(h * scale)
            pre = torch.addmm(bias, normed[t], enter.T)
            gate, value = pre.chunk(2, dim=1)
            out = torch.addmm(injected, F.silu(gate).mul_(value), leave.T)
            out.addcmul_(retention, h)
            scales.append(scale)
            pres.append(pre)
            if taps:
                tapped.index_copy_(0, taps[t], out.index_select(0, taps[t]))
            if stay < rows or not rows:
                last.append(out[stay:])
                previous.append(h[stay:])
                out, injected, bias = out[:stay], injected[:stay], bias[:stay]
            h = out
        ctx.active, ctx.taps = active, taps
        ctx.save_for_backward(retention, enter, leave, *normed, *scales, *pres)
        one_before = torch.cat(previous[::-1])
        ctx.mark_non_differentiable(one_before)
        return torch.cat(last[::-1]), one_before, tapped

    @staticmethod
    @once_differentiable
    # The decorator's types take the context by position only, torch's own base class also by name.
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of the six tensors."""
        d_last, _, d_tapped = grads
        retention, enter, leave, *saved = ctx.saved_tensors
        active, taps, steps = ctx.active, ctx.taps, len(ctx.active)
        normed, scales, pres = saved[:steps], saved[steps : 2 * steps], saved[2 * steps :]
        all_normed, pre = torch.cat(normed), torch.cat(pres)
        gate, value = pre.chunk(2, dim=1)
        # The derivatives of hidden = silu(gate) * value, for all iterations at once.
        by_value, by_gate = F.silu(gate), torch.ops.aten.silu_backward(value, gate)
        d_out, d_pre = torch.empty_like(all_normed), torch.empty_like(pre)
        d_injected = torch.zeros_like(d_last)
        d_bias = d_last.new_zeros(len(d_last), pre.shape[1])
        buffers = (d_out, d_pre, *d_pre.chunk(2, dim=1), by_gate, by_value)
        parts = list(zip(*(buffer.split(active) for buffer in buffers), strict=True))
        d_h = d_last[:0]
        for t in reversed(range(steps)):
            grad, into, d_gate, d_value, by_gate_t, by_value_t = parts[t]
            torch.cat((d_h, d_last[len(d_h) : active[t]]), out=grad)
            if taps:
                grad.index_add_(0, taps[t], d_tapped.index_select(0, taps[t]))
            d_hidden = grad @ leave
            torch.mul(by_gate_t, d_hidden, out=d_gate)
            torch.mul(by_value_t, d_hidden, out=d_value)
            d_normed = into @ enter
            along = torch.linalg.vecdot(normed[t], d_normed).unsqueeze_(1)
            d_h = d_normed.addcmul_(normed[t], along, value=-1 / normed[t].shape[1])
            d_h.mul_(scales[t]).addcmul_(retention, grad)
            d_injected[: active[t]] += grad
            d_bias[: active[t]] += into
        d_retention = (d_out * all_normed).div_(torch.cat(scales)).sum(0)
        d_enter, d_leave = d_pre.T @ all_normed, d_out.T @ by_value.mul_(value)
        return d_h, d_injected, d_bias, d_retention, d_enter, d_leave, None, None
