"""How gradients flow through the loop. A mode receives one iteration as a function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from loopwm.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

State = tuple["Tensor", ...]
Iterate = Callable[..., State]


@runtime_checkable
class GradientMode(Protocol):
    """Run one iteration so that its backward pass is the one wanted."""

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration.

        Args:
            iterate: One iteration: tensors of the state in, the refined state out.
            z: Latent states, each [B, L, D].
            remaining: Iterations left including this one; an int, or int64 [B] per row.

        Returns:
            The refined states.
        """
        ...


@dataclass(frozen=True)
class Full:
    """Backpropagate through every iteration, keeping all activations."""

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration under plain automatic differentiation."""
        return iterate(*z)


@dataclass(frozen=True)
class Checkpointed:
    """Backpropagate through every iteration, recomputing it in the backward pass.

    The gradients equal those of `Full`; the activations of one iteration are alive at a time.
    """

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration under activation checkpointing."""
        import torch
        from torch.utils.checkpoint import checkpoint

        if not torch.is_grad_enabled():
            return iterate(*z)
        return checkpoint(iterate, *z, use_reentrant=False, preserve_rng_state=False)  # type: ignore[return-value]


@dataclass(frozen=True)
class LastK:
    """Backpropagate through the last k iterations of each row; the earlier ones are constants.

    Truncated backpropagation as in arXiv 2606.18208 and 2604.12946; it is biased.

    Args:
        k: Number of iterations that carry gradient, at least 1.
    """

    k: int = 4

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"LastK.k must be at least 1, got {self.k}")

    def step(self, iterate: Iterate, z: State, remaining: "int | Tensor") -> State:
        """Apply one iteration, cut off from gradient where more than k are left."""
        import torch

        if isinstance(remaining, int):
            if remaining <= self.k:
                return iterate(*z)
            with torch.no_grad():
                return iterate(*z)
        early = remaining > self.k
        if bool(early.all()):
            with torch.no_grad():
                return iterate(*z)
        early = early[:, None, None]
        return tuple(torch.where(early, s.detach(), s) for s in iterate(*z))
