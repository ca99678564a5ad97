"""AdamATan2: Adam whose step is an angle, so that no epsilon is needed."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class AdamATan2(torch.optim.Optimizer):
    """Step by `lr * atan2(m, sqrt(v))` with decoupled weight decay (arXiv 2407.05872, section 4).

    The factors a and b of the paper are 1 here, as in TRM: steps are at most `lr * pi / 4` where m
    is at most sqrt(v).

    Args:
        params: Parameters, or groups of them, as torch's optimisers take.
        lr: Learning rate.
        betas: Decay of the running mean of gradients and of their squares, both in [0, 1).
        weight_decay: Decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    # The decorator's types do not know that `step` may come without a closure.
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: nn.Parameter, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2), lr = self.state[parameter], group["betas"], group["lr"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        count = int(state["step"])
        mean = state["exp_avg"].lerp_(grad, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        size = (square / (1 - beta2**count)).sqrt_()
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.add_(torch.atan2(mean / (1 - beta1**count), size), alpha=-lr)
