"""The looped core: run one cell to a depth, per row, and let rows that are done leave the batch."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopwm.core.cell import Cell, Conditioning
from loopwm.core.grad import Full, GradientMode
from loopwm.core.halt import Readout, StopRule
from loopwm.core.program import LOOPWM, Program, State
from loopwm.core.rows import LoopOutput, run_all, run_depths, run_until


class LoopedCore(nn.Module):
    """Refine latents by applying the same cell again and again.

    Args:
        cell: The refinement whose weights every iteration shares.
        program: Which latent is refined from which.
    """

    def __init__(self, cell: Cell, program: Program = LOOPWM) -> None:
        super().__init__()
        if not isinstance(cell, nn.Module):
            raise TypeError(f"cell must be a torch.nn.Module, got {type(cell).__name__}")
        self.cell: Cell = cell
        self.program = program

    def refine(self, h: Float[Tensor, "B L D"], e: Float[Tensor, "B L D"]) -> Tensor:
        """Apply one iteration to a single-latent state, as inference does."""
        return self.program.iterate(self.cell, (h,), self.program.prepare(self.cell, e))[0]

    def forward(
        self,
        z: State,
        e: Float[Tensor, "B L D"],
        depth: int | Int[Tensor, " B"],
        *,
        stop: StopRule | None = None,
        readout: Readout | None = None,
        grad: GradientMode = Full(),
        tap: Int[Tensor, " B"] | None = None,
    ) -> LoopOutput:
        """Refine the latents.

        Args:
            z: Latents to start from, each [B, L, D].
            e: Injection, held fixed over the iterations.
            depth: Iterations to run, at least 1; per row if a tensor. With `stop`, the most.
            stop: Rule by which rows may leave earlier.
            readout: Decodes the readout latent for the stop rule.
            grad: How gradients flow through the iterations.
            tap: Per-row iteration, between 1 and the row's depth, whose state is returned too;
                not together with `stop`.

        Returns:
            The refined latents and, per row, what the loop did.
        """
        weights = self.cell.constrain()

        def iterate(fixed: Conditioning, *states: Tensor) -> State:
            return self.program.iterate(self.cell, states, fixed, weights)

        fixed = self.program.prepare(self.cell, e)
        chosen = self.program.readout
        if stop is not None:
            if tap is not None:
                raise ValueError("tap and stop cannot be used together: tap is for training")
            return run_until(iterate, z, fixed, depth, stop, readout, grad, chosen)
        # A cell may have a faster way to run, and to differentiate, the plain loop.
        unrolls = isinstance(grad, Full) and self.program == LOOPWM
        unrolls = unrolls and getattr(self.cell, "unrolls", False)
        if isinstance(depth, int) and tap is None and not unrolls:
            return run_all(iterate, z, fixed, depth, grad, chosen)
        if isinstance(depth, int):
            depth = torch.full((e.shape[0],), depth, device=e.device)

        def unroll(h: Tensor, fixed: Conditioning, *rows: Any) -> tuple[Tensor, Tensor, Tensor]:
            return self.cell.unroll(h, fixed, weights, *rows)  # type: ignore[attr-defined]

        return run_depths(iterate, z, fixed, depth, tap, grad, chosen, unroll if unrolls else None)
