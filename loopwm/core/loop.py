"""The looped core: run one cell to a depth, per row, and let rows that are done leave the batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from loopwm.core.cell import Cell, Conditioning
from loopwm.core.grad import Full, GradientMode
from loopwm.core.halt import Readout, StopRule
from loopwm.core.program import LOOPWM, Program, State


@dataclass(frozen=True, slots=True)
class LoopOutput:
    """Return the refined latents and how the refinement went.

    Attributes:
        state: Refined latents, each [B, L, D].
        n_iters: Iterations that each row ran.
        residual: Relative change of the readout latent in each row's last iteration.
        settled: Whether the stop rule ended the row; without one, always False.
        tapped: The readout latent after the iterations that `tap` asked for, or None.
    """

    state: State
    n_iters: Int[Tensor, " B"]
    residual: Float[Tensor, " B"]
    settled: Bool[Tensor, " B"]
    tapped: Float[Tensor, "B L D"] | None = None


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
            tap: Per-row iteration, between 1 and the row's depth, whose state is returned too.

        Returns:
            The refined latents and, per row, what the loop did.
        """
        fixed = self.program.prepare(self.cell, e)
        if stop is None and isinstance(depth, int) and tap is None:
            return self._run_all(z, fixed, depth, grad)
        if isinstance(depth, int):
            depth = torch.full((e.shape[0],), depth, device=e.device)
        return _ActiveRows(self, fixed, depth, grad, tap).run(z, stop, readout)

    def _run_all(
        self, z: State, fixed: Conditioning, depth: int, grad: GradientMode
    ) -> LoopOutput:
        """Run every row to the same depth: no bookkeeping in the loop."""

        def iterate(*states: Tensor) -> State:
            return self.program.iterate(self.cell, states, fixed)

        before = z
        for t in range(depth):
            before, z = z, grad.step(iterate, z, depth - t)
        rows = z[0].shape[0]
        return LoopOutput(
            state=z,
            n_iters=torch.full((rows,), depth, device=z[0].device),
            residual=relative_change(z[self.program.readout], before[self.program.readout]),
            settled=torch.zeros(rows, dtype=torch.bool, device=z[0].device),
        )


def relative_change(now: Float[Tensor, "B L D"], before: Float[Tensor, "B L D"]) -> Tensor:
    """Return ||now - before|| / ||now|| of each row, without gradient."""
    with torch.no_grad():
        change = torch.linalg.vector_norm((now - before).flatten(1), dim=1)
        return change / torch.linalg.vector_norm(now.flatten(1), dim=1).clamp_min(1e-12)


class _ActiveRows:
    """Keep the rows that are still being refined; rows that are done are set aside.

    Rows leave by being left out of the next gather, so that the time of their iterations is saved
    and not only the arithmetic. All results are put back into the caller's order at the end.
    """

    def __init__(
        self,
        core: LoopedCore,
        fixed: Conditioning,
        depth: Tensor,
        grad: GradientMode,
        tap: Tensor | None,
    ) -> None:
        self.core, self.fixed, self.depth, self.grad, self.tap = core, fixed, depth, grad, tap
        self.rows = torch.arange(len(depth), device=depth.device)
        self.done: list[tuple[Tensor, State, Tensor, Tensor, Tensor]] = []
        self.taps: list[tuple[Tensor, Tensor]] = []

    def run(self, z: State, stop: StopRule | None, readout: Readout | None) -> LoopOutput:
        program, cell = self.core.program, self.core.cell
        signal = None if stop is None else stop.signal(z[program.readout], readout)
        calm = torch.zeros_like(self.depth)
        for t in range(1, int(self.depth.max()) + 1):
            before = z
            # The gathered conditioning is bound now: checkpointing calls the function again later.
            z = self.grad.step(
                lambda *s, fixed=self.fixed: program.iterate(cell, s, fixed), z, self.depth - t + 1
            )
            self._record_taps(z[program.readout], t)
            settled = torch.zeros_like(self.rows, dtype=torch.bool)
            if stop is not None and signal is not None:
                now = stop.signal(z[program.readout], readout)
                calm = torch.where(stop.met(now, signal), calm + 1, 0)
                signal, settled = now, calm >= stop.patience
            leaving = settled | (self.depth <= t)
            if bool(leaving.any()):
                self._set_aside(leaving, settled, z, before, t)
                stay = (~leaving).nonzero().squeeze(1)
                if not len(stay):
                    break
                z, calm = tuple(s[stay] for s in z), calm[stay]
                signal = None if signal is None else signal[stay]
                self._keep(stay)
        return self._assemble()

    def _record_taps(self, h: Tensor, t: int) -> None:
        if self.tap is not None:
            hit = (self.tap == t).nonzero().squeeze(1)
            if len(hit):
                self.taps.append((self.rows[hit], h[hit]))

    def _keep(self, stay: Tensor) -> None:
        self.fixed = tuple(c[stay] for c in self.fixed)
        self.depth, self.rows = self.depth[stay], self.rows[stay]
        self.tap = None if self.tap is None else self.tap[stay]

    def _set_aside(
        self, leaving: Tensor, settled: Tensor, z: State, before: State, t: int
    ) -> None:
        out = leaving.nonzero().squeeze(1)
        chosen = self.core.program.readout
        residual = relative_change(z[chosen][out], before[chosen][out])
        count = torch.full_like(out, t)
        self.done.append(
            (self.rows[out], tuple(s[out] for s in z), count, residual, settled[out])
        )

    def _assemble(self) -> LoopOutput:
        rows, states, counts, residuals, settled = zip(*self.done, strict=True)
        order = torch.cat(rows).argsort()
        tapped = None
        if self.taps:
            tap_order = torch.cat([index for index, _ in self.taps]).argsort()
            tapped = torch.cat([h for _, h in self.taps])[tap_order]
        return LoopOutput(
            state=tuple(torch.cat(parts)[order] for parts in zip(*states, strict=True)),
            n_iters=torch.cat(counts)[order],
            residual=torch.cat(residuals)[order],
            settled=torch.cat(settled)[order],
            tapped=tapped,
        )
