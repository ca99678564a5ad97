"""The unlooped counterparts, with the same inputs, heads and verbs as the looped model."""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.block import init_linear, rms_norm
from loopwm.core.make import make_cell
from loopwm.core.stack import per_row
from loopwm.world.config import GRU, MLP, Untied
from loopwm.world.dynamics import Advance, Carry, Run


class MLPDynamics(nn.Module):
    """Pass the input through a perceptron with SiLU, as mbrl-lib does.

    Args:
        inputs: Width X of the input.
        config: Width and depth.
    """

    carries = False

    def __init__(self, inputs: int, config: MLP) -> None:
        super().__init__()
        self.width = config.width
        widths = [inputs] + [config.width] * config.depth
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        for layer in layers:
            init_linear(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    @property
    def enter(self) -> nn.Module:
        """Return the layer that takes the input, named as in the other models."""
        return self.layers[0]

    def initial(self, batch: int) -> Carry:
        """Return nothing: a perceptron carries nothing."""
        return ()

    def forward(self, carry: Carry, x: Float[Tensor, "B X"], run: Run) -> Advance:
        """Compute the feature from the input alone."""
        for layer in self.layers:
            x = F.silu(layer(x))
        return Advance.single((), x)


class UntiedDynamics(nn.Module):
    """Apply a stack of cells once each, every one with weights of its own.

    Args:
        inputs: Width X of the input.
        config: Number of blocks, width and cell.
    """

    def __init__(self, inputs: int, config: Untied) -> None:
        super().__init__()
        self.width = config.width
        self.carries = config.carry
        self.enter = nn.Linear(inputs, config.width)
        init_linear(self.enter.weight)
        nn.init.zeros_(self.enter.bias)
        self.recall = nn.Linear(config.width, config.width, bias=False) if config.carry else None
        if self.recall is not None:
            init_linear(self.recall.weight, gain=0.1)
        self.origin = nn.Parameter(torch.zeros(config.width))
        self.cells = nn.ModuleList(
            make_cell(config.width, config.cell) for _ in range(config.blocks)
        )

    def initial(self, batch: int) -> Carry:
        """Return the learned starting state for `batch` rows, if the state is carried."""
        return (per_row(self.origin, batch),) if self.carries else ()

    def forward(self, carry: Carry, x: Float[Tensor, "B X"], run: Run) -> Advance:
        """Refine the carried state once by each block."""
        h = (carry[0] if self.carries else per_row(self.origin, x.shape[0])).unsqueeze(1)
        e = self.enter(x).unsqueeze(1)
        if self.recall is not None:
            e = e + self.recall(rms_norm(h))
        cells: Any = self.cells
        for cell in cells:
            h = cell(h, cell.condition(e))
        feature = h.squeeze(1)
        return Advance.single((feature,) if self.carries else (), feature, len(self.cells))


class GRUDynamics(nn.Module):
    """Carry a gated recurrent state from step to step (arXiv 1406.1078).

    Args:
        inputs: Width X of the input.
        config: Width of the state.
    """

    carries = True

    def __init__(self, inputs: int, config: GRU) -> None:
        super().__init__()
        self.width = config.width
        self.enter = nn.Linear(inputs, config.width)
        self.cell = nn.GRUCell(config.width, config.width)
        self.leave = nn.Linear(config.width, config.width)

    def initial(self, batch: int) -> Carry:
        """Return zeros for `batch` rows."""
        return (self.enter.weight.new_zeros(batch, self.width),)

    def forward(self, carry: Carry, x: Float[Tensor, "B X"], run: Run) -> Advance:
        """Update the recurrent state and decode a feature from it."""
        h = self.cell(F.silu(self.enter(x)), carry[0])
        return Advance.single((h,), F.silu(self.leave(h)))
