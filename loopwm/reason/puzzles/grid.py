"""What puzzles on square grids have in common that are made anew for every batch."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.puzzles.graded import Graded, check_seed
from loopwm.seed import torch_rng


class GridSource(ABC):
    """Make puzzles on square grids that follow one rule; a `PuzzleSource`.

    Attributes:
        side: Rows, and columns.
        vocabulary: Number V of different tokens.
        name: Names the random numbers of the test part.
        num_puzzles: 1: all puzzles follow one rule.
    """

    side: int
    vocabulary: ClassVar[int]
    name: ClassVar[str]
    num_puzzles = 1

    @property
    def length(self) -> int:
        """Return the number S of cells."""
        return self.side**2

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        """Make puzzles of which none is in the test part.

        Args:
            generator: Source of the draws, on the CPU.
            count: Number of puzzles B.

        Raises:
            DataError: If puzzles of the difficulty asked for are not found.
        """
        return self.make(generator, count, test=False).batch

    def test(self, count: int, seed: int = 0) -> Graded:
        """Return puzzles of the test part, always the same ones, and how difficult each is.

        Args:
            count: How many, at least 1.
            seed: Seed, not negative.

        Raises:
            ConfigError: If a number is out of range.
            DataError: If puzzles of the difficulty asked for are not found.
        """
        check_seed(seed)
        return self.make(torch_rng(seed, self.name, "test"), count, test=True)

    @abstractmethod
    def make(self, generator: torch.Generator, count: int, test: bool) -> Graded:
        """Make puzzles.

        Args:
            generator: Source of the draws, on the CPU.
            count: Number of puzzles B.
            test: Whether they belong to the test part.

        Raises:
            DataError: If puzzles of the difficulty asked for are not found.
        """
        ...
