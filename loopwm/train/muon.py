"""Muon, whose products are taken in the number format that the device is fast in."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

# The quintic of https://kellerjordan.github.io/posts/muon/: steepest at zero, and within [.7, 1.2]
# from there to one after five steps.
_COEFFICIENTS, _STEPS, _EPS = (3.4445, -4.7750, 2.0315), 5, 1e-7

# A matrix and the settings of its group.
_Pair = tuple[nn.Parameter, dict[str, Any]]


class Muon(torch.optim.Optimizer):
    """Step by the orthogonalised momentum of each matrix (arXiv 2502.16982, section 2).

    The step of `torch.optim.Muon(nesterov=True, adjust_lr_fn="match_rms_adamw")`, which takes its
    products in bfloat16, which takes a processor without instructions for it many times as long
    as float32. Here only a GPU takes them so, and matrices of one shape go together.

    Args:
        params: Matrices, or groups of them, as torch's optimisers take.
        lr: Learning rate; steps have the size that AdamW's have at that rate.
        momentum: Decay of the momentum, in [0, 1).
        weight_decay: Decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    # The decorator's types do not know that `step` may come without a closure.
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        pairs = [(p, group) for group in self.param_groups for p in group["params"]]
        pairs = sorted(((p, g) for p, g in pairs if p.grad is not None), key=_kind)
        for _, alike in groupby(pairs, _kind):
            self._update(list(alike))
        return loss

    def _update(self, alike: Sequence[_Pair]) -> None:
        """Update matrices of one shape, each as its group says."""
        momenta = [self._nesterov(matrix, group["momentum"]) for matrix, group in alike]
        directions = orthogonal(torch.stack(momenta))
        size = 0.2 * math.sqrt(max(momenta[0].shape))
        for (matrix, group), direction in zip(alike, directions.unbind(), strict=True):
            lr = group["lr"]
            matrix.mul_(1 - lr * group["weight_decay"]).add_(direction, alpha=-lr * size)

    def _nesterov(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        grad, state = matrix.grad, self.state[matrix]
        assert grad is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        return grad.lerp(state["momentum_buffer"].lerp_(grad, 1 - momentum), momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices with the same singular vectors, whose singular values are all about one.

    Args:
        matrices: Any matrices [N, R, C].

    Returns:
        Matrices [N, R, C]. What is below a thousandth of a matrix's norm may stay below one.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_EPS)
    x = x.bfloat16() if x.is_cuda else x
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _kind(pair: _Pair) -> tuple[Any, ...]:
    matrix, _ = pair
    return (*matrix.shape, str(matrix.dtype), str(matrix.device))
