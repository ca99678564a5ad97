"""Run each row of a batch to a depth known beforehand: rows that are done leave the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopwm.core.cell import Conditioning
from loopwm.core.grad import GradientMode
from loopwm.core.program import State

# The whole loop at once: latent, conditioning, rows of each iteration, rows tapped after each;
# returns each row's last state, the one before it, and the tapped one.
Unroll = Callable[
    [Tensor, Conditioning, Sequence[int], Sequence[Tensor]], tuple[Tensor, Tensor, Tensor]
]
# One iteration: what stays fixed, then the latents; returns the refined latents.
Iterate = Callable[..., State]


@dataclass(frozen=True, slots=True)
class LoopOutput:
    """Return the refined latents and how the refinement went.

    Attributes:
        state: Refined latents, each [B, L, D].
        n_iters: Iterations that each row ran; of a flow, evaluations of the cell.
        residual: Relative change of the readout latent in each row's last iteration.
        settled: Whether the stop rule ended the row; without one, always False.
        tapped: The readout latent after the iterations that `tap` asked for, or None.
    """

    state: State
    n_iters: Int[Tensor, " B"]
    residual: Float[Tensor, " B"]
    settled: Bool[Tensor, " B"]
    tapped: Float[Tensor, "B L D"] | None = None


def run_all(
    iterate: Iterate, z: State, fixed: Conditioning, depth: int, grad: GradientMode, chosen: int
) -> LoopOutput:
    """Run every row to the same depth: no bookkeeping in the loop.

    Args:
        iterate: One iteration: from the conditioning and the states to the states.
        z: Initial states, rows first.
        fixed: What conditions every iteration, rows first.
        depth: Iterations of every row, at least 1.
        grad: How gradients flow through the iterations.
        chosen: Index of the state that the residual is measured on.
    """
    step = partial(iterate, fixed)
    before = z
    for t in range(depth):
        before, z = z, grad.step(step, z, depth - t)
    now = z[chosen]
    return LoopOutput(
        state=z,
        n_iters=torch.full((len(now),), depth, device=now.device),
        residual=relative_change(now, before[chosen]),
        settled=torch.zeros(len(now), dtype=torch.bool, device=now.device),
    )


def run_depths(
    iterate: Iterate,
    z: State,
    fixed: Conditioning,
    depth: Int[Tensor, " R"],
    tap: Int[Tensor, " R"] | None,
    grad: GradientMode,
    chosen: int,
    unroll: Unroll | None = None,
) -> LoopOutput:
    """Run each row to a depth known beforehand.

    The deepest rows come first, so that rows leave from the end and the rest stays a slice, whose
    gradient is cheap; rows that come in another order are sorted and put back.

    Args:
        iterate: One iteration: from the conditioning and the states to the states.
        z: Initial states, rows first.
        fixed: What conditions every iteration, rows first.
        depth: Iterations of each row, at least 1.
        tap: Iteration of each row after which its chosen state is kept too, in 1..depth.
        grad: How gradients flow through the iterations.
        chosen: Index of the state that is tapped and that the residual is measured on.
        unroll: Runs all iterations of a single state in place of `iterate`; the only way for rows
            of several members, one after the other, of which `depth` and `tap` are those of each.
    """
    if bool((depth[1:] > depth[:-1]).any()):
        if len(depth) < len(z[0]):
            raise ValueError("depths of several members must be given in descending order")
        order = depth.argsort(descending=True, stable=True)
        z, fixed = tuple(s[order] for s in z), tuple(c[order] for c in fixed)
        tap = None if tap is None else tap[order]
        out = run_depths(iterate, z, fixed, depth[order], tap, grad, chosen, unroll)
        return _permuted(out, order.argsort())
    # active[t] rows run iteration t + 1; taps[t] of them are tapped after it.
    active = len(depth) - torch.bincount(depth - 1).cumsum(0)
    active = [len(depth), *active.tolist()[:-1]]
    taps = _rows_by_iteration(tap, len(active))
    if unroll is None:
        return _leaving(iterate, z, fixed, depth, active, taps, grad, chosen)
    last, one_before, early = unroll(z[0], fixed, active, () if tap is None else taps)
    return LoopOutput(
        state=(last,),
        n_iters=depth.repeat(len(last) // max(1, len(depth))),
        residual=relative_change(last, one_before),
        settled=torch.zeros(len(last), dtype=torch.bool, device=last.device),
        tapped=None if tap is None else early,
    )


def _leaving(
    iterate: Iterate,
    z: State,
    fixed: Conditioning,
    depth: Int[Tensor, " B"],
    active: Sequence[int],
    taps: list[Tensor],
    grad: GradientMode,
    chosen: int,
) -> LoopOutput:
    """Run the first `active[t]` rows in iteration t; what leaves is set aside."""
    done: list[State] = []
    previous: list[Tensor] = []
    tapped: list[Tensor] = []
    before = z
    for t, rows in enumerate(active):
        if rows < len(z[0]):
            z = _split(z, rows, chosen, before, done, previous)
            fixed = tuple(c[:rows] for c in fixed)
        before, z = z, grad.step(partial(iterate, fixed), z, depth[:rows] - t)
        if len(taps[t]):
            tapped.append(z[chosen].index_select(0, taps[t]))
    _split(z, 0, chosen, before, done, previous)
    state = tuple(torch.cat(parts[::-1]) for parts in zip(*done, strict=True))
    return LoopOutput(
        state=state,
        n_iters=depth,
        residual=relative_change(state[chosen], torch.cat(previous[::-1])),
        settled=torch.zeros_like(depth, dtype=torch.bool),
        tapped=torch.cat(tapped).index_select(0, torch.cat(taps).argsort()) if tapped else None,
    )


def relative_change(now: Float[Tensor, "B L D"], before: Float[Tensor, "B L D"]) -> Tensor:
    """Return ||now - before|| / ||now|| of each row, without gradient."""
    with torch.no_grad():
        change = torch.linalg.vector_norm((now - before).flatten(1), dim=1)
        return change / torch.linalg.vector_norm(now.flatten(1), dim=1).clamp_min(1e-12)


def _split(
    z: State, rows: int, chosen: int, before: State, done: list[State], previous: list[Tensor]
) -> State:
    """Set the rows from index `rows` on aside, and return those before it."""
    parts = [s.split([rows, len(s) - rows]) for s in z]
    done.append(tuple(part[1] for part in parts))
    previous.append(before[chosen][rows:].detach())
    return tuple(part[0] for part in parts)


def _rows_by_iteration(tap: Tensor | None, depth: int) -> list[Tensor]:
    """Return, for each iteration, the rows that are tapped after it."""
    if tap is None:
        return [torch.empty(0, dtype=torch.long)] * depth
    counts = torch.bincount(tap - 1, minlength=depth).tolist()
    return list(tap.argsort(stable=True).split(counts))


def _permuted(out: LoopOutput, order: Tensor) -> LoopOutput:
    return LoopOutput(
        state=tuple(s[order] for s in out.state),
        n_iters=out.n_iters[order],
        residual=out.residual[order],
        settled=out.settled[order],
        tapped=None if out.tapped is None else out.tapped[order],
    )
