"""Keep the gradient that single rows send back through time from drowning the rest of a batch."""

from typing import Any

import torch
from torch import Tensor

from loopwm.world.protocol import State


class _Limited(torch.autograd.Function):
    """Pass values on, and shorten the gradients of rows that are far longer than the median."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, limit: float, members: int) -> Tensor:
        ctx.limit, ctx.members = limit, members
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        norms = gradient.flatten(1).norm(dim=1).reshape(ctx.members, -1)
        longest = ctx.limit * norms.median(dim=1, keepdim=True).values
        # Where most rows send nothing back, as near the ends of episodes, none is shortened.
        shorten = (longest > 0) & (norms > longest)
        scale = torch.where(shorten, longest / norms, 1.0)
        return gradient * scale.reshape(-1, *[1] * (gradient.ndim - 1)), None, None


def limited(state: State, limit: float, members: int = 1) -> State:
    """Return a state unchanged, whose rows send no gradient far longer than the others' back.

    An imagined future can depend on its beginning so steeply that the gradient of one row, grown
    from step to step, is all that is left of a batch's; then clipping the whole keeps its length
    and loses its direction, and training can end in ever larger gradients.

    Args:
        state: Tensors [B, ...], member after member.
        limit: Largest norm of a row's gradient, in each tensor, over the median of its member's
            rows; 0 limits nothing.
        members: Number of models that the rows belong to, as many for each.
    """
    if not limit:
        return state
    return tuple(
        _Limited.apply(part, limit, members) if part.requires_grad and part.numel() else part
        for part in state
    )
