"""Cells that `torch.compile` runs while they train, and nothing of it afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from loopwm.core.loop import LoopedCore


@contextmanager
def compiled_cells(module: nn.Module) -> Iterator[None]:
    """Compile the cells of all looped cores in a module while the block runs.

    In evaluation mode a cell is run as it is: other numbers of rows would each be compiled anew.

    Args:
        module: What is trained.
    """
    # Two cores may share a cell, which is compiled once.
    cells = {core.cell for core in module.modules() if isinstance(core, LoopedCore)}
    with ExitStack() as stack:
        for cell in cells:
            stack.enter_context(_compiled(cell))
        yield


@contextmanager
def _compiled(cell: Any) -> Iterator[None]:
    plain, fast = cell.forward, torch.compile(cell.forward)

    def forward(*given: Any) -> Any:
        return (fast if cell.training else plain)(*given)

    # It hides the method of the class, and no weight changes its name.
    cell.forward = forward
    try:
        yield
    finally:
        del cell.forward
