"""What a reasoner is made of, and when it halts; free of torch."""

import math
from dataclasses import dataclass, replace

from loopwm.core.config import Attend, PostNorm
from loopwm.core.settings import settle
from loopwm.errors import ConfigError
from loopwm.train.config import FitConfig, Muon

TRAINING = FitConfig(
    updates=2_000,
    batch_size=128,
    lr=5e-3,
    final_lr=0.1,
    weight_decay=0.1,
    clip=None,
    optimizer=Muon(),
    validate_every=250,
)
"""How small reasoners are trained unless told otherwise.

On small sudokus AdamATan2 takes five times as long.
"""


@dataclass(frozen=True)
class ReasonerConfig:
    """Describe a TRM (arXiv 2510.04871).

    Args:
        vocabulary: Number of different tokens V, at least 2.
        length: Tokens S of a puzzle, at least 1.
        puzzles: Number of puzzle ids N, at least 1.
        prefix: Tokens put before each puzzle; the first ones hold what is learned of its id.
        puzzle_width: Numbers learned of each id, at most `prefix * width`.
        width: Width D of the latents.
        cell: The refinement.
        cycles: Cycles T of a step; only the last one has a gradient.
        inner: Refinements n of the thinking latent in each cycle; with 0 there is none, and the
            answer is refined from the puzzle.
    """

    vocabulary: int
    length: int
    puzzles: int = 1
    prefix: int = 16
    puzzle_width: int = 512
    width: int = 512
    cell: PostNorm = PostNorm(Attend(heads=8, theta=1e4))
    cycles: int = 3
    inner: int = 6

    def __post_init__(self) -> None:
        settle(self)
        for name in ("length", "puzzles", "prefix", "puzzle_width", "width", "cycles"):
            _at_least_one(name, getattr(self, name))
        if self.inner < 0:
            raise ConfigError(f"inner must not be negative, got {self.inner}")
        if self.vocabulary < 2:
            raise ConfigError(f"vocabulary must be at least 2, got {self.vocabulary}")
        if self.puzzle_width > self.prefix * self.width:
            raise ConfigError(
                f"puzzle_width={self.puzzle_width} does not fit into prefix={self.prefix} tokens "
                f"of width={self.width}; "
                f"choose prefix={math.ceil(self.puzzle_width / self.width)} or more"
            )

    @property
    def tokens(self) -> int:
        """Return the number L of tokens that the core sees."""
        return self.prefix + self.length


@dataclass(frozen=True)
class Halting:
    """Say when training gives a puzzle up for the next one (arXiv 2510.04871, fig. 3).

    A puzzle leaves when the model takes its answer for right, or after `max_steps`. Exploring, a
    puzzle must stay for a number of steps drawn from 2 to `max_steps`.

    Early in training a further step on the same puzzle teaches less than a new puzzle: with `rise`
    the most steps double from 1 up, in stretches of equal length.

    Args:
        max_steps: Most steps spent on a puzzle, at least 1.
        explore: Probability of exploring, drawn at each step, in [0, 1].
        rise: Share of training over which the most steps grow from 1 to `max_steps`, in [0, 1].
    """

    max_steps: int = 16
    explore: float = 0.1
    rise: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        _at_least_one("Halting.max_steps", self.max_steps)
        for name in ("explore", "rise"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"Halting.{name} must be in [0, 1], got {value}")

    def at(self, progress: float) -> "Halting":
        """Return the rule without rise that holds at a point of training.

        Args:
            progress: Share of the updates that are over, in [0, 1].
        """
        if progress >= self.rise:
            return replace(self, rise=0.0)
        doublings = math.ceil(math.log2(self.max_steps))
        steps = 2 ** int(doublings * progress / self.rise)
        return replace(self, max_steps=min(self.max_steps, steps), rise=0.0)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}")
