"""How many iterations the loop runs: drawn per sequence in training, fixed at inference."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

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
