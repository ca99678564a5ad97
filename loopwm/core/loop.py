"""The looped core: run one cell to a depth, per row, and let rows that are done leave the batch."""

from dataclasses import replace
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from loopwm.core.anderson import Anderson
from loopwm.core.cell import Cell, Conditioning, Unrolls, Weights
from loopwm.core.depth import Flow
from loopwm.core.flow import run_flow
from loopwm.core.grad import FixedPointMode, Full, GradientMode, LastK
from loopwm.core.halt import Certified, Readout, StopRule
from loopwm.core.program import LOOPWM, Program, State
from loopwm.core.rows import Iterate, LoopOutput, Unroll, run_all, run_depths
from loopwm.core.until import run_together, run_until
from loopwm.errors import ConfigError


class LoopedCore(nn.Module):
    """Refine latents by applying the same cell again and again.

    Args:
        cell: The refinement whose weights every iteration shares.
        program: Which latent is refined from which.
        flow: Runs the cell in continuous time in place of the loop.

    Attributes:
        solver: Extrapolates between iterations where no gradient is wanted; None for the plain
            loop, which it is unless set.
        members: Number of models whose cells the cell stands for (see `core.stack`), mostly 1. In
            training all have the same depths: those of one are given.
    """

    def __init__(self, cell: Cell, program: Program = LOOPWM, flow: Flow | None = None) -> None:
        super().__init__()
        if not isinstance(cell, nn.Module):
            raise TypeError(f"cell must be a torch.nn.Module, got {type(cell).__name__}")
        self.cell: Cell = cell
        self.program = program
        self.flow = flow
        self.solver: Anderson | None = None
        self.members = 1
        # Asked once: to look a protocol up takes as long as a small refinement.
        self._unrolls = program == LOOPWM and isinstance(cell, Unrolls)

    def refine(self, h: Float[Tensor, "B L D"], e: Float[Tensor, "B L D"]) -> Tensor:
        """Apply one iteration to a single-latent state, as inference does."""
        return self.program.iterate(self.cell, (h,), self.program.prepare(self.cell, e))[0]

    def forward(
        self,
        z: State,
        e: Float[Tensor, "B L D"],
        depth: int | Int[Tensor, " R"],
        *,
        stop: StopRule | None = None,
        readout: Readout | None = None,
        grad: GradientMode = Full(),
        tap: Int[Tensor, " R"] | None = None,
    ) -> LoopOutput:
        """Refine the latents.

        Args:
            z: Latents to start from, each [B, L, D].
            e: Injection, held fixed over the iterations.
            depth: Iterations to run, at least 1; per row if a tensor. With `stop`, the most. Of a
                flow, how long it runs. Of several members, R is the rows of each, else R = B.
            stop: Rule by which rows may leave earlier.
            readout: Decodes the readout latent for the stop rule.
            grad: How gradients flow through the iterations.
            tap: Per-row iteration, between 1 and the row's depth, whose state is returned too;
                not together with `stop`. Where the iterations before it have no gradient it is
                refined once more, with gradient; this needs a program of one latent.

        Returns:
            The refined latents and, per row, what the loop did.

        Raises:
            ConfigError: If a flow is given a stop rule or a gradient mode that counts iterations,
                or if the solver leaves the loop that the stop rule is proven of.
            NumericalError: If the solver of a flow cannot go on.
        """
        if tap is not None and stop is not None:
            raise ValueError("tap and stop cannot be used together: tap is for training")
        weights = self.cell.constrain()
        iterate = partial(self._iterate, weights)
        fixed = self.program.prepare(self.cell, e)
        if self.solver is not None and not self._learns_from(*z, *fixed):
            self.check_solver(stop)
            iterate, z = partial(self.solver.step, iterate), self.solver.begin(z)
        chosen = self.program.readout
        full = isinstance(grad, Full)
        unroll = self._unroll(weights) if full else None
        at_rest = grad if not full and isinstance(grad, FixedPointMode) else None
        if at_rest is not None:
            z = tuple(s.detach() for s in z)
        if self.flow is not None:
            _check_flow(self.flow, stop, grad)
            once = partial(_evaluate, grad, iterate)
            out = run_flow(once, z, fixed, depth, tap, chosen, self.flow, self.parameters())
        elif stop is not None:
            until = run_until if self.members == 1 else partial(run_together, self.members)
            out = until(iterate, z, fixed, depth, stop, readout, grad, chosen)
        elif isinstance(depth, int) and tap is None and unroll is None:
            out = run_all(iterate, z, fixed, depth, grad, chosen)
        else:
            if isinstance(depth, int):
                depth = torch.full((e.shape[0] // self.members,), depth, device=e.device)
            out = run_depths(iterate, z, fixed, depth, tap, grad, chosen, unroll)
        if at_rest is not None and self._learns_from(*fixed):
            return self._finished(out, at_rest, iterate, fixed)
        if isinstance(grad, LastK) and tap is not None and self._learns_from(*fixed):
            out = self._followed(out, out.n_iters - tap >= grad.k, iterate, fixed)
        return replace(out, state=out.state[: self.program.num_states])

    def check_solver(self, stop: StopRule | None) -> None:
        """Refuse a solver that cannot run this core, or not under a stop rule.

        Args:
            stop: The rule by which rows may leave.

        Raises:
            ConfigError: If the solver cannot.
        """
        if self.solver is None:
            return
        if self.program.num_states > 1 or self.flow is not None:
            raise ConfigError(
                "core.solver extrapolates loops of one latent; "
                "set it to None for other programs and for flows"
            )
        if isinstance(stop, Certified):
            raise ConfigError(
                f"halt={stop} is proven of the plain loop, which core.solver={self.solver} leaves: "
                "set core.solver to None, or stop by OutputDelta"
            )

    def _unroll(self, weights: Weights) -> Unroll | None:
        """Return the cell's faster way to run, and to differentiate, the plain loop."""
        if not self._unrolls:
            return None
        cell = cast(Unrolls, self.cell)
        return partial(cell.unroll, weights=weights) if cell.unrolls else None

    def _iterate(self, weights: Weights, fixed: Conditioning, *states: Tensor) -> State:
        return self.program.iterate(self.cell, states, fixed, weights)

    def _learns_from(self, *given: Tensor) -> bool:
        """Say whether what the iterations are given, or a parameter, wants a gradient."""
        sources = (*given, *self.parameters())
        return torch.is_grad_enabled() and any(source.requires_grad for source in sources)

    def _finished(
        self, out: LoopOutput, grad: FixedPointMode, iterate: Iterate, fixed: Conditioning
    ) -> LoopOutput:
        """Give the states of a loop that ran without gradient the one that the mode makes."""
        tapped = out.tapped
        if tapped is not None:
            if self.program.num_states > 1:
                raise ValueError(
                    f"grad={grad} cannot refine a tapped state on: it keeps one of "
                    f"{self.program.num_states} latents; use Full, Checkpointed or LastK"
                )
            tapped = iterate(fixed, tapped)[0]
        return replace(out, state=grad.finish(iterate, fixed, out.state), tapped=tapped)

    def _followed(
        self, out: LoopOutput, early: Bool[Tensor, " B"], iterate: Iterate, fixed: Conditioning
    ) -> LoopOutput:
        """Refine tapped states once more, with gradient, where the iterations before had none."""
        rows, tapped = early.nonzero().squeeze(1), out.tapped
        if tapped is None or not len(rows) or self.program.num_states > 1:
            return out
        chosen = tuple(each.index_select(0, rows) for each in fixed)
        refined = iterate(chosen, tapped.index_select(0, rows))[0]
        return replace(out, tapped=tapped.index_copy(0, rows, refined))


def _evaluate(grad: GradientMode, iterate: Iterate, fixed: Conditioning, *states: Tensor) -> State:
    """Evaluate the cell for a solver, each time as if it were the last iteration."""
    return grad.step(partial(iterate, fixed), states, 1)


def _check_flow(flow: Flow, stop: StopRule | None, grad: GradientMode) -> None:
    """Refuse what only iterations have."""
    if stop is not None:
        raise ConfigError(
            f"halt={stop} stops between iterations, and a flow has none: use lw.Fixed, which says "
            "how long it runs"
        )
    if isinstance(grad, LastK):
        raise ConfigError(
            f"grad={grad} counts iterations, and a flow has none: use Full, Checkpointed, Phantom "
            "or Implicit"
        )
    if flow.adjoint and not isinstance(grad, Full):
        raise ConfigError(f"Flow.adjoint needs grad=Full(), got {grad}")
