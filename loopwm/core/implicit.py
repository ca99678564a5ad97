"""The gradient of a settled state: the implicit function theorem as a node of autograd's graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

State = tuple[Tensor, ...]


def settled_state(
    iterate: Callable[..., State], fixed: State, z: State, tol: float, max_iters: int
) -> State:
    """Return the states z with the gradient of the fixed point that they stand for.

    Of `h* = F(h*, e)` the gradient is `v (I - J)^-1 dF` with `J = dF/dh` at h* (arXiv 1909.01377,
    theorem 1). Here v is multiplied by the inverse in the backward pass, by `solve_adjoint`, and
    by dF as the gradient of one iteration.

    Args:
        iterate: One iteration: from the conditioning and the states to the states.
        fixed: What conditions the iteration, rows first; its gradient is wanted.
        z: The settled states, each [B, L, D], taken for constants.
        tol: Relative change at which the backward iteration stops.
        max_iters: Most products with J.
    """
    z = tuple(s.detach() for s in z)
    refined = iterate(fixed, *z)
    # J is taken in a graph of its own, cut off from what made the conditioning: each product would
    # otherwise walk all that came before this loop.
    around = tuple(s.requires_grad_() for s in map(torch.clone, z))
    beside = iterate(tuple(c.detach() for c in fixed), *around)

    def times_jacobian(g: State) -> State:
        return torch.autograd.grad(
            beside, around, g, retain_graph=True, allow_unused=True, materialize_grads=True
        )

    def solve(v: State) -> State:
        return solve_adjoint(times_jacobian, v, tol, max_iters)

    return _Settled.apply(solve, *z, *refined)


def solve_adjoint(
    times_jacobian: Callable[[State], State], v: State, tol: float, max_iters: int
) -> State:
    """Solve `g = v + g J` by iteration, the sum of `v J^i` up to `max_iters`.

    Args:
        times_jacobian: From g to g J, row by row.
        v: Gradients that came in, each [B, L, D].
        tol: Stop when the change of every row is at most this times its norm.
        max_iters: Most products with J.
    """
    g = v
    for _ in range(max_iters):
        before, g = g, tuple(a + b for a, b in zip(v, times_jacobian(g), strict=True))
        change = tuple(a - b for a, b in zip(g, before, strict=True))
        if bool((_norm(change) <= tol * _norm(g)).all()):
            break
    return g


def _norm(parts: State) -> Tensor:
    """Return the norm of each row over all states, [B]."""
    return torch.stack([part.flatten(1).norm(dim=1) for part in parts]).norm(dim=0)


class _Settled(torch.autograd.Function):
    """Hand settled states on as they are, and their gradient, solved for, to one iteration."""

    @staticmethod
    def forward(ctx: Any, solve: Callable[[State], State], *tensors: Tensor) -> State:
        """Return the first half of the tensors, the states; the second half is them refined."""
        ctx.solve = solve
        return tuple(s.clone() for s in tensors[: len(tensors) // 2])

    @staticmethod
    @once_differentiable
    # The decorator's types take the context by position only, torch's own base class also by name.
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return nothing for the states, and the adjoint for them refined."""
        return (None, *(None for _ in grads), *ctx.solve(grads))
