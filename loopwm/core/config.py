"""Choices of refinement cell, as plain data."""

import math
from dataclasses import dataclass

from loopwm.core.settings import settle
from loopwm.errors import ConfigError


@dataclass(frozen=True)
class Bounded:
    """Choose the BoundedCell: diagonal retention and a residual that sees normalised input.

    Args:
        expand: Width of the hidden layer over the latent width, above 0.
        gain: None for `abar*h + B e + R`; a number g for `abar*h + D N(B e + R)`, whose every
            component stays within g*sqrt(width) whatever the weights.
        max_retention: Largest retention abar of a channel, in (0, 1).
        retention: Retention at initialisation, in (0, max_retention); sqrt(1/5) follows
            arXiv 2604.12946.
    """

    expand: float = 1.0
    gain: float | None = None
    max_retention: float = 0.98
    retention: float = 0.4472

    def __post_init__(self) -> None:
        settle(self)
        if not self.expand > 0:
            raise ConfigError(f"Bounded.expand must be above 0, got {self.expand}")
        if self.gain is not None and not self.gain > 0:
            raise ConfigError(f"Bounded.gain must be above 0 or None, got {self.gain}")
        if not 0 < self.retention < self.max_retention < 1:
            raise ConfigError(
                "Bounded needs 0 < retention < max_retention < 1, got "
                f"retention={self.retention}, max_retention={self.max_retention}"
            )


@dataclass(frozen=True)
class Contractive:
    """Choose the ContractiveCell: a contraction in the state for every input and all weights.

    Args:
        rate: Largest factor by which an iteration shrinks the distance of two states, in (0, 1).
            Close to 1 the cell is freer and settles more slowly.
        layers: Number of 1-Lipschitz layers, at least 1.
        expand: Width of their rectified layers over the latent width, above 0.
        gated: Whether each input divides the rate between retaining and mixing anew.
    """

    rate: float = 0.95
    layers: int = 2
    expand: float = 2.0
    gated: bool = False

    def __post_init__(self) -> None:
        settle(self)
        if not 0 < self.rate < 1:
            raise ConfigError(f"Contractive.rate must be between 0 and 1, got {self.rate}")
        if self.layers < 1:
            raise ConfigError(f"Contractive.layers must be at least 1, got {self.layers}")
        if not self.expand > 0:
            raise ConfigError(f"Contractive.expand must be above 0, got {self.expand}")


@dataclass(frozen=True)
class Attend:
    """Choose self-attention, without mask, to mix the tokens of a row.

    Args:
        heads: Number of attention heads, at least 1; they divide the width.
        theta: Base of the rotary angles that tell tokens their places (arXiv 2104.09864, eq. 15),
            above 1; None leaves the tokens a set.
    """

    heads: int = 8
    theta: float | None = None

    def __post_init__(self) -> None:
        settle(self)
        if self.heads < 1:
            raise ConfigError(f"Attend.heads must be at least 1, got {self.heads}")
        if self.theta is not None and not self.theta > 1:
            raise ConfigError(f"Attend.theta must be above 1 or None, got {self.theta}")


@dataclass(frozen=True)
class MixTokens:
    """Choose a gated perceptron over the tokens of each channel, which fixes their number."""


@dataclass(frozen=True)
class PostNorm:
    """Choose the PostNormCell: blocks that normalise each sum, as TRM's (arXiv 2510.04871).

    Args:
        mixer: How tokens are mixed; None leaves each token to itself.
        layers: Number of blocks, at least 1.
        expand: Width of a plain perceptron of the same size as the gated ones over the width that
            they transform, above 0.
        multiple: Gated layers are widened to a multiple of this, at least 1.
        eps: Mean square below which normalisation shrinks, above 0.
    """

    mixer: Attend | MixTokens | None = Attend()
    layers: int = 2
    expand: float = 4.0
    multiple: int = 256
    eps: float = 1e-5

    def __post_init__(self) -> None:
        settle(self)
        for name in ("layers", "multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"PostNorm.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("expand", "eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"PostNorm.{name} must be above 0, got {getattr(self, name)}")

    def hidden(self, width: int) -> int:
        """Return the hidden width of a gated layer over `width` channels or tokens."""
        # A gated layer has three matrices where a plain one has two.
        return self.multiple * math.ceil(round(self.expand * width * 2 / 3) / self.multiple)

    def check_width(self, width: int) -> None:
        """Refuse a width that the attention's heads do not divide, evenly for rotary places.

        Raises:
            ConfigError: If they do not.
        """
        if not isinstance(self.mixer, Attend):
            return
        heads, rotary = self.mixer.heads, self.mixer.theta is not None
        parts = 2 * heads if rotary else heads
        if width % parts:
            why = "twice the heads for rotary places" if rotary else "the heads"
            raise ConfigError(
                f"width must be a multiple of {why}, got width={width}, heads={heads}; "
                f"nearest valid width is {parts * max(1, round(width / parts))}"
            )


CellConfig = Bounded | Contractive | PostNorm
