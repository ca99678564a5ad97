"""The loop as a plain loop over one row at a time, calling the cell directly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
# One iteration of a program: (cell, latents, injection) -> latents.
Cycle = Callable[[nn.Module, State, Tensor], State]


def refine(cell: nn.Module, h: Tensor, e: Tensor) -> Tensor:
    return cell(h, cell.condition(e))  # type: ignore[operator]  # any nn.Module with the verbs of a cell


def one_latent(cell: nn.Module, z: State, e: Tensor) -> State:
    return (refine(cell, z[0], e),)


def trm(inner: int) -> Cycle:
    """TRM, arXiv 2510.04871: n times z_L <- f(z_L, z_H + x), then z_H <- f(z_H, z_L)."""

    def cycle(cell: nn.Module, z: State, e: Tensor) -> State:
        high, low = z
        for _ in range(inner):
            low = refine(cell, low, high + e)
        return refine(cell, high, low), low

    return cycle


@dataclass
class Row:
    state: State
    n_iters: int
    residual: float
    settled: bool = False
    tapped: Tensor | None = None


def change(now: Tensor, before: Tensor) -> float:
    return float(((now - before).norm() / now.norm()).detach())


def run_row(
    cell: nn.Module,
    cycle: Cycle,
    z: State,
    e: Tensor,
    depth: int,
    tap: int | None = None,
    last: int | None = None,
) -> Row:
    """Run one row (leading axis 1); with `last`, detach all but the last iterations.

    A latent that is tapped before those is refined once more.
    """
    tapped, before = None, z
    for t in range(1, depth + 1):
        before = z
        z = cycle(cell, z, e)
        if last is not None and depth - t >= last:
            z = tuple(s.detach() for s in z)
        if t == tap:
            cut = last is not None and depth - t >= last and len(z) == 1
            tapped = cycle(cell, z, e)[0] if cut else z[0]
    return Row(z, depth, change(z[0], before[0]), tapped=tapped)


def run_rows(
    cell: nn.Module,
    cycle: Cycle,
    z: State,
    e: Tensor,
    depths: Sequence[int],
    taps: Sequence[int] | None = None,
    last: int | None = None,
) -> list[Row]:
    return [
        run_row(
            cell,
            cycle,
            tuple(s[i : i + 1] for s in z),
            e[i : i + 1],
            depth,
            None if taps is None else taps[i],
            last,
        )
        for i, depth in enumerate(depths)
    ]


def halt_row(
    cell: nn.Module,
    cycle: Cycle,
    z: State,
    e: Tensor,
    most: int,
    calm: Callable[[Tensor, Tensor], bool],
    patience: int = 1,
) -> Row:
    """Run one row until `calm(now, before)` held `patience` times in a row, or `most` times."""
    quiet, before = 0, z
    for t in range(1, most + 1):
        before, z = z, cycle(cell, z, e)
        quiet = quiet + 1 if calm(z[0], before[0]) else 0
        if quiet == patience:
            return Row(z, t, change(z[0], before[0]), settled=True)
    return Row(z, most, change(z[0], before[0]))


def output_calm(readout: Callable[[Tensor], Tensor], tol: float) -> Callable[..., bool]:
    """The root mean square change of the decoded prediction is below `tol`."""

    def calm(now: Tensor, before: Tensor) -> bool:
        difference = (readout(now) - readout(before)).flatten().tolist()
        return (sum(d * d for d in difference) / len(difference)) ** 0.5 < tol

    return calm


def residual_calm(tol: float) -> Callable[..., bool]:
    """The relative change of the latent is below `tol`."""
    return lambda now, before: change(now, before) < tol


def cat(rows: Sequence[Row], latent: int = 0) -> Tensor:
    return torch.cat([row.state[latent] for row in rows])
