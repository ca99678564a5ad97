"""Tables of which each batch touches a few rows: their optimiser keeps no state and no copies."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from loopwm.errors import ConfigError


class SignSGDRows(Optimizer):
    """Step by the sign of the gradient, in the rows that have one; the others are not read.

    A row that a batch uses more than once has one gradient, the sum. Weight decay too acts on
    touched rows alone, as in TRM (arXiv 2510.04871).

    Args:
        params: Tables [N, E] whose gradients are sparse, as `F.embedding(..., sparse=True)` makes
            them; or groups of such tables.
        lr: Length of the step of each number.
        weight_decay: Decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the touched rows of every table.

        Raises:
            ConfigError: If a gradient is not sparse.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                if not table.grad.is_sparse:
                    raise ConfigError("SignSGDRows needs sparse gradients: embed with sparse=True")
                grad = table.grad.coalesce()
                rows = grad.indices()[0]
                kept = table[rows] * (1 - group["lr"] * group["weight_decay"])
                table[rows] = kept.sub_(grad.values().sign(), alpha=group["lr"])
        return loss


def is_table(parameter: nn.Parameter) -> bool:
    """Say whether a parameter is updated row by row: it carries the attribute `_sparse_rows`."""
    return hasattr(parameter, "_sparse_rows")


def values(grad: torch.Tensor) -> torch.Tensor:
    """Return the numbers of a gradient, sparse or not, duplicate rows summed."""
    return grad.coalesce().values() if grad.is_sparse else grad
