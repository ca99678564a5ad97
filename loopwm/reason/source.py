"""Where the puzzles of training come from."""

from typing import Protocol, runtime_checkable

import torch

from loopwm.reason.carry import PuzzleBatch


@runtime_checkable
class PuzzleSource(Protocol):
    """Draw puzzles with their answers, without end and without memory.

    What `sample` returns depends on the source's settings and the state of the generator alone, so
    that a resumed run sees the puzzles that the uninterrupted one would have seen.
    """

    @property
    def vocabulary(self) -> int:
        """Return the number V of different tokens."""
        ...

    @property
    def length(self) -> int:
        """Return the number S of tokens of each puzzle."""
        ...

    @property
    def num_puzzles(self) -> int:
        """Return the number N of puzzle ids."""
        ...

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        """Draw puzzles.

        Args:
            generator: Source of the draws, on the CPU.
            count: Number of puzzles B, at least 1.

        Returns:
            The puzzles, on the CPU.
        """
        ...
