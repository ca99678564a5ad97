"""Stop rules: when a row's refinement may end. Each row is judged by itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from loopwm.core.settings import settle, whole
from loopwm.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Readout = Callable[["Tensor"], "Tensor"]


@runtime_checkable
class StopRule(Protocol):
    """Judge after each iteration which rows have settled.

    A rule may have `stages` too, the iterations after which it asks (see `OutputDelta`); without
    them it asks after each.

    Attributes:
        patience: Number of consecutive tests that a row must pass before it leaves.
    """

    @property
    def patience(self) -> int:
        """Return how many tests in a row must be passed."""
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

    A row that goes on from the latent state of the step before has less to refine than one that
    begins at the learned start: `Fixed(3, first=5)` asks for less of it, and costs no test.

    Args:
        iterations: Number of iterations, at least 1.
        tol: A row counts as settled if its last relative change of h is below this.
        first: Iterations of rows that begin at the learned start, at least 1; None for as many as
            the others. All rows of a model do whose loop goes on from nothing (`warm=False` or
            `carry=False`).
    """

    iterations: int = 8
    tol: float = 0.05
    first: int | None = None

    def __post_init__(self) -> None:
        # A depth that is no int is taken for one of each row.
        object.__setattr__(self, "iterations", whole("Fixed.iterations", self.iterations))
        if self.first is not None:
            object.__setattr__(self, "first", whole("Fixed.first", self.first))
        if self.iterations < 1:
            raise ConfigError(f"Fixed.iterations must be at least 1, got {self.iterations}")
        if self.first is not None and self.first < 1:
            raise ConfigError(f"Fixed.first must be at least 1 or None, got {self.first}")
        _check_tolerance("Fixed.tol", self.tol)

    def most(self, limit: int | None) -> "Fixed":
        """Return the rule with no more than `limit` iterations, where there is a limit."""
        if limit is None:
            return self
        first = None if self.first is None else min(self.first, limit)
        return replace(self, iterations=min(self.iterations, limit), first=first)


@dataclass(frozen=True)
class OutputDelta:
    """Stop when the decoded prediction stops changing.

    The change is the root mean square, over the components of the standardised prediction, of its
    difference between two iterations: hidden states of a contraction move alike for every input,
    the decoded prediction does not.

    Args:
        tol: Largest change, in standard deviations of the predicted quantity, above 0.
        patience: Number of consecutive tests below `tol`.
        stages: Iterations after which rows may leave, rising, each at least 1; empty for all. A
            test costs about as much as a small cell does, and so does copying the rows that stay:
            one or two stages save more seconds than many, if fewer iterations.
    """

    tol: float = 0.02
    patience: int = 1
    stages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        settle(self)
        _check_tolerance("OutputDelta.tol", self.tol)
        if self.patience < 1:
            raise ConfigError(f"OutputDelta.patience must be at least 1, got {self.patience}")
        if any(now <= before for before, now in pairwise((0, *self.stages))):
            raise ConfigError(
                f"OutputDelta.stages must rise and be at least 1, got {self.stages}; for instance "
                "(2, 4)"
            )

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
        patience: Number of consecutive iterations that change no more.
    """

    tol: float = 0.01
    patience: int = 1

    def __post_init__(self) -> None:
        settle(self)
        _check_tolerance("Residual.tol", self.tol)
        if self.patience < 1:
            raise ConfigError(f"Residual.patience must be at least 1, got {self.patience}")

    def signal(self, h: "Tensor", readout: Readout | None) -> "Tensor":
        """Return the latent state, flattened to [B, L*D]."""
        return h.flatten(1)

    def met(self, now: "Tensor", before: "Tensor") -> "Tensor":
        """Return whether the relative change is at most `tol`; a state at rest in 0 has none."""
        change = (now - before).norm(dim=1)
        return (change <= self.tol * now.norm(dim=1)) & change.isfinite()


@dataclass(frozen=True)
class Certified:
    """Stop when the decoded prediction is proven to be within `tol` of the one at the fixed point.

    Of a contraction at rate r, `||h_t - h*|| <= r / (1 - r) * ||h_t - h_{t-1}||` (Banach), and the
    head stretches no difference by more than its spectral norm. The proof assumes exact
    arithmetic; in float32 rounding added some 1e-6 to the error of a trained model. It is
    conservative: `OutputDelta` stops earlier at the same error. It is refused together with
    `core.solver`, whose states are no iterates of the loop.

    Args:
        tol: Largest root mean square error, in standard deviations of the change that is predicted,
            above 0.
        patience: Number of consecutive iterations below `tol`.
        factor: Error of the prediction for each unit of the state's last change; the model that
            the rule is given to sets it.
    """

    tol: float = 0.02
    patience: int = 1
    factor: float | None = None

    def __post_init__(self) -> None:
        settle(self)
        _check_tolerance("Certified.tol", self.tol)
        if self.patience < 1:
            raise ConfigError(f"Certified.patience must be at least 1, got {self.patience}")

    def proven(self, rate: float, gain: float, outputs: int) -> "Certified":
        """Return the rule for a loop of that rate.

        Args:
            rate: Proven contraction rate.
            gain: Lipschitz constant of the decoding.
            outputs: Number of decoded components.

        Raises:
            ConfigError: If the rate is not below 1.
        """
        if not rate < 1:
            raise ConfigError(
                f"halt=Certified needs a proven rate below 1, got {rate:.6g}: rounded weights may "
                "prove no more; choose a smaller lw.Contractive(rate), or compute in float32"
            )
        return replace(self, factor=gain / math.sqrt(outputs) * rate / (1 - rate))

    def signal(self, h: "Tensor", readout: Readout | None) -> "Tensor":
        """Return the latent state, flattened to [B, L*D]."""
        if self.factor is None:
            raise ConfigError(
                "halt=Certified needs a proven rate: pass it to a model with cell=lw.Contractive()"
            )
        return h.flatten(1)

    def met(self, now: "Tensor", before: "Tensor") -> "Tensor":
        """Return whether the proven error is at most `tol`."""
        assert self.factor is not None
        return self.factor * (now - before).norm(dim=1) <= self.tol
