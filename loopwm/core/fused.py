"""One bounded refinement as a single node of the autograd graph, with its backward by hand.

Training a small cell is bound by the number of operations, not by arithmetic: automatic
differentiation of the plain cell runs three times as many. The plain cell is the oracle.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from loopwm.core.block import RMS_EPS


class BoundedRefinement(torch.autograd.Function):
    """Compute `abar*h + injected + W_o(silu(gate) * value)`, gate and value from h normalised."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        h: Tensor,
        injected: Tensor,
        bias: Tensor,
        retention: Tensor,
        enter: Tensor,
        leave: Tensor,
    ) -> Tensor:
        """Refine h [B, D] under its conditioning, injected [B, D] and bias [B, 2*hidden]."""
        width = h.shape[1]
        norm = torch.linalg.vector_norm(h, dim=1, keepdim=True)
        scale = math.sqrt(width) * torch.rsqrt(norm.square() + width * RMS_EPS)
        pre = torch.addmm(bias, h * scale, enter.T)
        gate, value = pre.chunk(2, dim=1)
        hidden = F.silu(gate).mul_(value)
        ctx.save_for_backward(h, scale, pre, hidden, retention, enter, leave)
        return torch.addmm(injected, hidden, leave.T).addcmul_(retention, h)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Return the gradients of all six inputs."""
        (grad,) = grads
        h, scale, pre, hidden, retention, enter, leave = ctx.saved_tensors
        gate, value = pre.chunk(2, dim=1)
        d_hidden = grad @ leave
        d_pre = torch.cat(
            [
                torch.ops.aten.silu_backward(d_hidden * value, gate),
                F.silu(gate).mul_(d_hidden),
            ],
            dim=1,
        )
        normed = h * scale
        d_normed = d_pre @ enter
        along = torch.linalg.vecdot(normed, d_normed).unsqueeze(1) / h.shape[1]
        d_h = torch.addcmul(d_normed, normed, along, value=-1).mul_(scale)
        d_h.addcmul_(retention, grad)
        d_retention = torch.linalg.vecdot(grad, h, dim=0)
        return d_h, grad, d_pre, d_retention, d_pre.T @ normed, grad.T @ hidden
