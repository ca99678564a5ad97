"""Count parameters and floating-point operations."""

from collections.abc import Callable

from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(module: nn.Module) -> int:
    """Return the number of parameters, shared ones counted once."""
    return sum(p.numel() for p in module.parameters())


def matmul_flops(function: Callable[[], object]) -> int:
    """Run `function` and return the floating-point operations of its matrix products.

    A multiply-add counts as two. Element-wise operations are left out: they are few here, and
    bound by memory rather than arithmetic.
    """
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
