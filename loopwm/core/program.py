"""Which latent state is refined from which: one iteration of the loop, as data."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from loopwm.core.cell import Cell, Conditioning, Weights

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Update:
    """Refine one latent: `z[dst] <- cell(z[dst], sum of add)`.

    Args:
        dst: Index of the latent that is refined.
        add: Indices of latents, or "e" for the injection, whose sum conditions the refinement;
            of none of them it is zero.
    """

    dst: int
    add: tuple[int | Literal["e"], ...]


@dataclass(frozen=True)
class Program:
    """List the updates that make one iteration.

    Args:
        cycle: Updates in order; latents are numbered from 0.
        readout: Index of the latent that is decoded and whose change is the residual.
    """

    cycle: tuple[Update, ...]
    readout: int = 0

    @property
    def num_states(self) -> int:
        """Return the number of latents."""
        named = [index for update in self.cycle for index in (update.dst, *update.add)]
        return 1 + max(index for index in named if isinstance(index, int))

    def prepare(self, cell: Cell, e: Tensor) -> Conditioning:
        """Compute once what stays fixed over the iterations.

        Returns:
            The cell's conditioning on e if some update uses e alone, then e itself if some update
            adds it to a latent; every tensor has leading axis B.
        """
        fixed: Conditioning = ()
        if any(update.add == ("e",) for update in self.cycle):
            fixed += cell.condition(e)
        if any("e" in update.add and update.add != ("e",) for update in self.cycle):
            fixed += (e,)
        return fixed

    def iterate(
        self, cell: Cell, z: State, fixed: Conditioning, weights: Weights | None = None
    ) -> State:
        """Run the cycle once.

        Args:
            cell: The shared refinement.
            z: Latents, each [B, L, D].
            fixed: What `prepare` returned.
            weights: What the cell's `constrain` returned.

        Returns:
            The refined latents.
        """
        states = list(z)
        for update in self.cycle:
            if update.add == ("e",):
                conditioning = fixed[: cell.num_conditions]
            else:
                parts = [fixed[-1] if i == "e" else states[i] for i in update.add]
                parts = parts or [torch.zeros_like(states[update.dst])]
                conditioning = cell.condition(sum(parts[1:], start=parts[0]))
            states[update.dst] = cell(states[update.dst], conditioning, weights)
        return tuple(states)


LOOPWM = Program(cycle=(Update(0, ("e",)),))
"""One latent, refined from the injection (arXiv 2606.18208, eq. 5)."""


def trm(inner: int = 6) -> Program:
    """Return the two-latent program of TRM (arXiv 2510.04871): latent 1 thinks, latent 0 answers.

    Args:
        inner: Refinements of latent 1 before each refinement of latent 0, at least 1.
    """
    return Program(cycle=(Update(1, (0, "e")),) * inner + (Update(0, (1,)),))


def one_latent(inner: int = 6) -> Program:
    """Return TRM's program with a single latent that both thinks and answers (its table 1).

    Args:
        inner: Refinements from the injection before each refinement from nothing, at least 1.
    """
    return Program(cycle=(Update(0, ("e",)),) * inner + (Update(0, ()),))
