"""How far the loop runs: iterations or time, drawn per sequence in training, fixed at inference."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from loopwm.core.settings import settle
from loopwm.errors import ConfigError

if TYPE_CHECKING:
    from torch import Generator, Tensor


@runtime_checkable
class Depth(Protocol):
    """Choose iteration counts for a batch of sequences."""

    @property
    def typical(self) -> int:
        """Return the number of iterations run at inference unless another is asked for."""
        ...

    def sample(self, batch: int, generator: "Generator") -> "Tensor":
        """Draw iteration counts for training.

        Args:
            batch: Number of sequences B.
            generator: Source of randomness.

        Returns:
            Int64 counts [B], each at least 1.
        """
        ...


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Fixed:
    """Run every sequence to the same depth.

    Args:
        iterations: Number of iterations, at least 1; 1 is the cell without a loop.
    """

    iterations: int = 8

    def __post_init__(self) -> None:
        settle(self)
        _check_count("Fixed.iterations", self.iterations)

    @property
    def typical(self) -> int:
        """Return the fixed depth."""
        return self.iterations

    def sample(self, batch: int, generator: "Generator") -> "Tensor":
        """Return the fixed depth for each of the `batch` sequences."""
        import torch

        return torch.full((batch,), self.iterations, device=generator.device)


@dataclass(frozen=True)
class Uniform:
    """Draw each sequence's depth uniformly.

    Args:
        low: Smallest depth, at least 1.
        high: Largest depth, at least `low`.
    """

    low: int = 3
    high: int = 12

    def __post_init__(self) -> None:
        settle(self)
        _check_count("Uniform.low", self.low)
        if self.high < self.low:
            raise ConfigError(
                f"Uniform.high must be at least low, got low={self.low}, high={self.high}"
            )

    @property
    def typical(self) -> int:
        """Return the mean depth, rounded up."""
        return math.ceil((self.low + self.high) / 2)

    def sample(self, batch: int, generator: "Generator") -> "Tensor":
        """Draw one depth for each of the `batch` sequences."""
        import torch

        return torch.randint(
            self.low, self.high + 1, (batch,), generator=generator, device=generator.device
        )


@dataclass(frozen=True)
class Poisson:
    """Draw each sequence's depth as max(1, Poisson(mean)), clipped (arXiv 2606.18208, eq. 9).

    Drawing per sequence rather than per batch is what makes every depth usable at inference
    (arXiv 2604.12946).

    Args:
        mean: Mean of the Poisson distribution, above 0.
        max: Largest depth; by default twice the mean, rounded up.
    """

    mean: float = 6.0
    max: int | None = None

    def __post_init__(self) -> None:
        settle(self)
        if not self.mean > 0:
            raise ConfigError(f"Poisson.mean must be above 0, got {self.mean}")
        if self.max is not None:
            _check_count("Poisson.max", self.max)

    @property
    def limit(self) -> int:
        """Return the largest depth that is drawn."""
        return self.max if self.max is not None else math.ceil(2 * self.mean)

    @property
    def typical(self) -> int:
        """Return a third more than the mean: gains saturate near the trained depth."""
        return min(self.limit, max(1, math.ceil(4 * self.mean / 3)))

    def sample(self, batch: int, generator: "Generator") -> "Tensor":
        """Draw one depth for each of the `batch` sequences."""
        import torch

        rates = torch.full((batch,), float(self.mean), device=generator.device)
        return torch.poisson(rates, generator=generator).long().clamp(1, self.limit)


Method = Literal["dopri5", "dopri8", "bosh3", "adaptive_heun", "euler", "midpoint", "rk4"]
_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
_STEPPED = ("euler", "midpoint", "rk4")


@dataclass(frozen=True)
class Flow:
    """Run the cell in continuous time, `dh/dtau = F(h, e) - h`, by a solver of torchdiffeq.

    A unit of tau stands for an iteration: Euler's method with step 1 is the loop, and both rest at
    the same states. Wherever a number of iterations is asked for, such as `lw.Fixed(8)`, it is how
    long the flow runs. `n_iters` reports the solver's evaluations of the cell, one number for all
    rows of a batch: they share their steps, so that neighbours change a row within the tolerances,
    and all run as long as the longest. `residual` is `||F(h) - h|| / ||h||` at the row's end. Stop
    rules do not apply, nor does `LastK`. What is proven of the loop holds for the exact flow too
    (contraction by `exp(-(1 - rate) tau)`), but not for a solver's steps.

    Args:
        tau: How long to run, drawn as iterations would be.
        method: Solver; "dopri5", "dopri8", "bosh3" and "adaptive_heun" choose their steps.
        rtol: Relative tolerance of those, above 0.
        atol: Absolute tolerance of those, above 0.
        max_steps: Most steps of those on the way to the end, or from one whole time to the next
            where rows end or are tapped at different ones, at least 1.
        step: Step of "euler", "midpoint" and "rk4", above 0; None for the others.
        adjoint: Solve for the gradient backwards in time (arXiv 1806.07366) in place of
            differentiating the solver's steps: memory stays the same for any number of them. The
            gradient is then only as good as the tolerances, and worse: backwards, what contracts
            expands, and errors grow by about `exp(tau)` (arXiv 1902.10298). Needs `grad=Full()`.
    """

    tau: Fixed | Uniform | Poisson = Poisson(6)
    method: Method = "dopri5"
    rtol: float = 1e-3
    atol: float = 1e-3
    max_steps: int = 1000
    step: float | None = None
    adjoint: bool = False

    def __post_init__(self) -> None:
        settle(self)
        if self.method not in _ADAPTIVE + _STEPPED:
            known = ", ".join(_ADAPTIVE + _STEPPED)
            raise ConfigError(f"Flow.method must be one of {known}, got {self.method!r}")
        for name in ("rtol", "atol", "max_steps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Flow.{name} must be above 0, got {getattr(self, name)}")
        if self.method in _ADAPTIVE and self.step is not None:
            raise ConfigError(
                f"Flow.step is for {', '.join(_STEPPED)}: {self.method} chooses its own, "
                f"got {self.step}"
            )
        if self.method in _STEPPED and not (self.step is not None and self.step > 0):
            raise ConfigError(
                f"Flow.step must be above 0 for method={self.method!r}, got {self.step}"
            )

    @property
    def options(self) -> dict[str, float]:
        """Return what torchdiffeq calls the options of the method."""
        if self.step is not None:
            return {"step_size": self.step}
        return {"max_num_steps": self.max_steps}

    @property
    def typical(self) -> int:
        """Return how long inference runs unless told otherwise."""
        return self.tau.typical

    def sample(self, batch: int, generator: "Generator") -> "Tensor":
        """Draw how long to run for each of the `batch` sequences."""
        return self.tau.sample(batch, generator)
