"""Run each row until a stop rule lets it go: rows that have left the batch cost no more time."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from loopwm.core.cell import Conditioning
from loopwm.core.grad import GradientMode
from loopwm.core.halt import Readout, StopRule
from loopwm.core.program import State
from loopwm.core.rows import Iterate, LoopOutput, relative_change, run_all


def run_until(
    iterate: Iterate,
    z: State,
    fixed: Conditioning,
    depth: int | Int[Tensor, " B"],
    stop: StopRule,
    readout: Readout | None,
    grad: GradientMode,
    chosen: int,
) -> LoopOutput:
    """Run each row until the stop rule lets it go, or to its depth.

    Args:
        iterate: One iteration: from the conditioning and the states to the states.
        z: Initial states, rows first.
        fixed: What conditions every iteration, rows first.
        depth: Most iterations, of all rows or of each, at least 1.
        stop: Decides after each iteration which rows are settled.
        readout: Decodes the chosen state for stop rules that look at the prediction.
        grad: How gradients flow through the iterations, each of which may be a row's last.
        chosen: Index of the state that the stop rule and the residual look at.
    """
    if not len(z[0]):
        return run_all(iterate, z, fixed, 1, grad, chosen)
    rows = torch.arange(len(z[0]), device=z[0].device)
    limit = depth if isinstance(depth, int) else int(depth.max())
    left, judge = _Left(chosen), _Judge(stop, readout, torch.zeros_like(rows))
    for t in range(1, limit + 1):
        before = z[chosen]
        z = grad.step(partial(iterate, fixed), z, 1)
        settled = judge.settled(t, depth, z[chosen], before)
        if settled is None:
            continue
        leaving = settled | (depth <= t)
        out = leaving.nonzero().squeeze(1)
        if not len(out):
            continue
        left.add(rows, out, z, before, settled, t)
        if len(out) == len(rows):
            break
        # Most of what an iteration reads beside the weights is copied here: once for each time
        # that rows leave, which the iterations that they are spared repay.
        stay = leaving.logical_not().nonzero().squeeze(1)
        z, fixed = _select(z, stay), _select(fixed, stay)
        rows = rows.index_select(0, stay)
        judge.keep(stay)
        depth = depth if isinstance(depth, int) else depth[stay]
    assert left.out is not None
    return left.out


def run_together(  # noqa: PLR0913 - as `run_until`, and of how many members the rows are
    members: int,
    iterate: Iterate,
    z: State,
    fixed: Conditioning,
    depth: int | Int[Tensor, " B"],
    stop: StopRule,
    readout: Readout | None,
    grad: GradientMode,
    chosen: int,
) -> LoopOutput:
    """Run the rows of several members as `run_until`, each member with as many rows at all times.

    A row leaves the batch with the same row of the other members, when the last of them settles;
    what it returns is from when it settled itself.

    Args:
        members: Number of members; they have the same number of rows.
        iterate: One iteration: from the conditioning and the states to the states.
        z: Initial states, member after member.
        fixed: What conditions every iteration, member after member.
        depth: Most iterations of all rows, at least 1; not of each.
        stop: Decides after each iteration which rows are settled.
        readout: Decodes the chosen state for stop rules that look at the prediction.
        grad: How gradients flow through the iterations.
        chosen: Index of the state that the stop rule and the residual look at.
    """
    assert isinstance(depth, int), "members are stacked for inference, which has one depth"
    if not len(z[0]):
        return run_all(iterate, z, fixed, 1, grad, chosen)
    rows = torch.arange(len(z[0]), device=z[0].device)
    left, judge = _Left(chosen), _Judge(stop, readout, torch.zeros_like(rows))
    waiting = torch.ones_like(rows, dtype=torch.bool)
    for t in range(1, depth + 1):
        before = z[chosen]
        z = grad.step(partial(iterate, fixed), z, 1)
        settled = judge.settled(t, depth, z[chosen], before)
        if settled is None:
            continue
        done = (waiting if t == depth else waiting & settled).nonzero().squeeze(1)
        if not len(done) and t < depth:
            continue
        left.add(rows, done, z, before, settled, t)
        waiting = waiting.index_fill(0, done, False)
        stay = waiting.view(members, -1).any(0).repeat(members).nonzero().squeeze(1)
        if not len(stay):
            break
        if len(stay) < len(rows):
            z, fixed = _select(z, stay), _select(fixed, stay)
            rows, waiting = _select((rows, waiting), stay)
            judge.keep(stay)
    assert left.out is not None
    return left.out


@dataclass(slots=True)
class _Judge:
    """Ask a stop rule, and remember of each row in the batch what the rule saw last."""

    stop: StopRule
    readout: Readout | None
    calm: Tensor
    signal: Tensor | None = None

    def settled(self, t: int, depth: int | Tensor, now: Tensor, before: Tensor) -> Tensor | None:
        """Say which rows have settled after iteration t, or None where no row may leave.

        Rows may leave at a stage of the rule and at their depth; where rows have depths of their
        own, the depth of one is a stage for all.
        """
        stages = getattr(self.stop, "stages", ())
        if stages and t not in stages and not _ends(t, depth):
            self.signal = None
            return None
        signal = self.stop.signal(now, self.readout)
        last = self.stop.signal(before, self.readout) if self.signal is None else self.signal
        settled, self.signal = self.stop.met(signal, last), signal
        if self.stop.patience > 1:
            self.calm = torch.where(settled, self.calm + 1, 0)
            settled = self.calm >= self.stop.patience
        return settled

    def keep(self, rows: Tensor) -> None:
        """Forget all but these rows of the batch."""
        assert self.signal is not None
        self.signal, self.calm = _select((self.signal, self.calm), rows)


def _ends(t: int, depth: int | Tensor) -> bool:
    return t == depth if isinstance(depth, int) else bool((depth <= t).any())


@dataclass(slots=True)
class _Left:
    """Hold what rows left with, in their places.

    Whoever leaves first, all rows are put down as they are then: most leave at once, and one copy
    of everything costs less than to collect them and to sort them back.
    """

    chosen: int
    out: LoopOutput | None = None

    def add(
        self, rows: Tensor, leaving: Tensor, z: State, before: Tensor, settled: Tensor, t: int
    ) -> None:
        """Let rows leave after iteration t.

        Args:
            rows: Where the rows of the batch stand in the whole; the first time, all in order.
            leaving: Indices in the batch of the rows that leave.
            z: States of the batch.
            before: The chosen state one iteration earlier.
            settled: Whether the rule ended a row of the batch.
            t: Iterations so far.
        """
        if self.out is None:
            self.out = LoopOutput(
                state=tuple(each.clone() for each in z),
                n_iters=torch.full_like(rows, t),
                residual=relative_change(z[self.chosen], before),
                settled=settled.clone(),
            )
            return
        z, (rows, before, settled) = _select(z, leaving), _select((rows, before, settled), leaving)
        for whole, part in zip(self.out.state, z, strict=True):
            whole.index_copy_(0, rows, part)
        self.out.n_iters.index_fill_(0, rows, t)
        self.out.residual.index_copy_(0, rows, relative_change(z[self.chosen], before))
        self.out.settled.index_copy_(0, rows, settled)


def _select(tensors: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.index_select(0, rows) for tensor in tensors)
