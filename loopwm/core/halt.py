"""Stop rules: when a row's refinement may end. Each row is judged by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from loopwm.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Readout = Callable[["Tensor"], "Tensor"]


@runtime_checkable
class StopRule(Protocol):
    """Judge after each iteration which rows have settled.

    Attributes:
        patience: Number of consecutive iterations for which `met` must hold before a row leaves.
    """

    @property
    def patience(self) -> int:
        """Return how many iterations in a row must pass the test."""
        ...

    def signal(self, h: "Tensor", readout: Readout | None) -> "Tensor":
        """Return what is compared between iterations, with leading axis B.

        Args:
            h: Latent state [B, L, D].
            readout: Maps h to a decoded, standardised prediction [B, M], where there is one.
        """
        ...

    def met(self, now: "Tensor", before: "Tensor") -> "Tensor":
        """Return a bool [B]: whether a row's signal has stopped moving."""
        ...


def _check_tolerance(name: str, tol: float) -> None:
    if not tol > 0:
        raise ConfigError(f"{name} must be above 0, got {tol}")


@dataclass(frozen=True)
class Fixed:
    """Never stop early: run exactly this many iterations.

    Args:
        iterations: Number of iterations, at least 1.
        tol: A row counts as settled if its last relative change of h is below this.
    """

    iterations: int = 8
    tol: float = 0.05

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ConfigError(f"Fixed.iterations must be at least 1, got {self.iterations}")
        _check_tolerance("Fixed.tol", self.tol)


@dataclass(frozen=True)
class OutputDelta:
    """Stop when the decoded prediction stops changing.

    The change is the root mean square, over the components of the standardised prediction, of its
    difference between two iterations: hidden states of a contraction move alike for every input,
    the decoded prediction does not.

    Args:
        tol: Largest change, in standard deviations of the predicted quantity, above 0.
        patience: Number of consecutive iterations below `tol`.
    """

    tol: float = 0.02
    patience: int = 1

    def __post_init__(self) -> None:
        _check_tolerance("OutputDelta.tol", self.tol)
        if self.patience < 1:
            raise ConfigError(f"OutputDelta.patience must be at least 1, got {self.patience}")

    def signal(self, h: "Tensor", readout: Readout | None) -> "Tensor":
        """Return the decoded prediction [B, M]."""
        if readout is None:
            raise ConfigError(
                "halt=OutputDelta needs a readout: pass readout= to the core, or use Residual"
            )
        return readout(h)

    def met(self, now: "Tensor", before: "Tensor") -> "Tensor":
        """Return whether the root mean square change is below `tol`."""
        return (now - before).square().flatten(1).mean(1) < self.tol**2


@dataclass(frozen=True)
class Residual:
    """Stop when the latent state itself stops changing, relative to its norm.

    Args:
        tol: Largest relative change, above 0.
        patience: Number of consecutive iterations below `tol`.
    """

    tol: float = 0.01
    patience: int = 1

    def __post_init__(self) -> None:
        _check_tolerance("Residual.tol", self.tol)
        if self.patience < 1:
            raise ConfigError(f"Residual.patience must be at least 1, got {self.patience}")

    def signal(self, h: "Tensor", readout: Readout | None) -> "Tensor":
        """Return the latent state, flattened to [B, L*D]."""
        return h.flatten(1)

    def met(self, now: "Tensor", before: "Tensor") -> "Tensor":
        """Return whether the relative change is below `tol`."""
        return (now - before).norm(dim=1) < self.tol * now.norm(dim=1)
