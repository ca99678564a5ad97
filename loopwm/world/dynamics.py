"""What a world model is built around: a carried state, an input, and the feature they make."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopwm.core.depth import Depth
from loopwm.core.halt import Fixed, Readout, StopRule

Carry = tuple[Tensor, ...]


@dataclass(frozen=True)
class Run:
    """Say how far to refine at one environment step; models without a loop ignore it.

    Attributes:
        depth: Iterations, per row if a tensor; with `stop`, the most.
        stop: Rule by which rows may stop earlier.
        readout: Decodes a latent state [B, L, D] for the stop rule.
        tap: Per-row iteration whose feature is wanted as well.
        settled_tol: Largest relative change in the last iteration that counts as settled where no
            rule decides.
        drift: Whether `Advance.drift` is wanted.
        generator: Draws stochastic latents; None, as in inference, takes their means.
        first: Iterations of rows that begin at the learned start, or None for `depth` as well.
    """

    depth: int | Tensor
    stop: StopRule | None = None
    readout: Readout | None = None
    tap: Tensor | None = None
    settled_tol: float = 0.05
    drift: bool = False
    generator: torch.Generator | None = None
    first: int | None = None

    @classmethod
    def of(
        cls,
        depth: Depth,
        halt: Fixed | StopRule | None,
        max_iters: int | None,
        readout: Readout | None,
    ) -> "Run":
        """Plan inference.

        Args:
            depth: The model's training depth; its `typical` value is the default at inference.
            halt: Stop rule, or None for the typical depth.
            max_iters: Most iterations; by default twice the typical depth under a stop rule.
            readout: Decodes a latent state for the stop rule.
        """
        if halt is None:
            halt = Fixed(depth.typical)
        if isinstance(halt, Fixed):
            halt = halt.most(max_iters)
            # Where both are one number, no row has to be looked at.
            first = None if halt.first == halt.iterations else halt.first
            return cls(halt.iterations, settled_tol=halt.tol, first=first)
        return cls(2 * depth.typical if max_iters is None else max_iters, halt, readout)


@dataclass(frozen=True, slots=True)
class Advance:
    """Return what one environment step did to the carried state.

    Attributes:
        carry: State to carry on, each with leading axis B.
        feature: What the heads decode.
        n_iters: Iterations that each row ran; 1 for a model without a loop.
        residual: Relative change in the last iteration; 0 for a model without a loop.
        settled: Whether the refinement had settled; True for a model without a loop.
        tapped: The feature after the iterations that `Run.tap` asked for, or None.
        drift: How far one further iteration would move the state, squared and relative to its
            norm, with gradient, if `Run.drift` asked for it, else None.
    """

    carry: Carry
    feature: Float[Tensor, "B D"]
    n_iters: Int[Tensor, " B"]
    residual: Float[Tensor, " B"]
    settled: Bool[Tensor, " B"]
    tapped: Float[Tensor, "B D"] | None = None
    drift: Float[Tensor, " B"] | None = None

    @classmethod
    def single(cls, carry: Carry, feature: Tensor, n_iters: int = 1) -> "Advance":
        """Return the advance of a model that does not refine."""
        rows = feature.shape[0]
        return cls(
            carry,
            feature,
            torch.full((rows,), n_iters, device=feature.device),
            torch.zeros(rows, device=feature.device, dtype=feature.dtype),
            torch.ones(rows, device=feature.device, dtype=torch.bool),
        )


@runtime_checkable
class Dynamics(Protocol):
    """Turn an input and the carried state into a feature and the next carried state.

    Attributes:
        width: Width D of the feature.
        carries: Whether anything is carried from step to step.
    """

    width: int
    carries: bool

    def initial(self, batch: int) -> Carry:
        """Return what is carried before the first step, for `batch` rows."""
        ...

    def __call__(self, carry: Carry, x: Tensor, run: Run) -> Advance:
        """Advance by one environment step.

        Args:
            carry: What the previous step carried on.
            x: Standardised observations (or zeros), action and mask flag [B, X].
            run: How far to refine.
        """
        ...


@runtime_checkable
class Infers(Protocol):
    """Be dynamics whose latent is inferred from observations and expected before them."""

    def divergence(self, carry: Carry, x: Tensor) -> Tensor:
        """Return what it costs that the two differ [B], weighed as the training loss adds it.

        Args:
            carry: What a step carried on.
            x: Input that shows the real observation that followed; its action is not looked at.
        """
        ...
