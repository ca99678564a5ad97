"""Sudokus to train on: made anew for every batch, or drawn from a set and turned."""

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from loopwm.errors import ConfigError, DataError
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.puzzles.graded import Graded, accepted
from loopwm.reason.puzzles.shape import SudokuShape
from loopwm.reason.puzzles.sudoku import SudokuSet, check_clues, encoded, generate, make_sudokus
from loopwm.reason.puzzles.symmetry import shuffled


class _Sudokus:
    """Tell a `PuzzleSource`'s numbers of sudokus of a shape, which all follow one rule."""

    num_puzzles = 1

    def __init__(self, shape: SudokuShape) -> None:
        self.shape = shape

    @property
    def vocabulary(self) -> int:
        """Return the number V of different tokens."""
        return self.shape.vocabulary

    @property
    def length(self) -> int:
        """Return the number S of cells."""
        return self.shape.length


class SudokuStream(_Sudokus):
    """Make sudokus for every batch; a `PuzzleSource`. No solution comes from the test part.

    Args:
        shape: Shape of the puzzles.
        clues: Clues of each puzzle; 0 takes as many away as can go.

    Raises:
        ConfigError: If the number of clues is out of range.
    """

    def __init__(self, shape: SudokuShape, clues: int = 0) -> None:
        check_clues(shape, clues)
        super().__init__(shape)
        self.clues = clues

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        """Make puzzles.

        Args:
            generator: Source of the draws, on the CPU.
            count: Number of puzzles B.

        Raises:
            DataError: If puzzles of so few clues are not found.
        """

        def attempt(rows: int) -> tuple[tuple[ndarray, ndarray], Bool[ndarray, " N"]]:
            words = torch.randint(2**62, (rows, 1), generator=generator).numpy()
            states = words.astype(np.uint64)
            clues, solutions, _, good = make_sudokus(
                states, self.shape, self.clues, 0.0, 0, "train"
            )
            return (clues, solutions), good

        return encoded(*accepted(attempt, count, f"{self.clues} clues"))

    def test(self, count: int, seed: int = 0) -> Graded:
        """Return puzzles like these of the test part, always the same ones, and their ratings.

        Args:
            count: How many.
            seed: Seed.
        """
        puzzles = generate(self.shape, count, seed, clues=self.clues, part="test")
        return Graded(puzzles.batch(), puzzles.ratings)


class SudokuPool(_Sudokus):
    """Draw sudokus from a set and turn each by a random symmetry; a `PuzzleSource`.

    A symmetric copy of a puzzle has the same difficulty, and stays in the part that it is of.

    Args:
        puzzles: The set.
        symmetries: Whether to turn puzzles. Of 4 x 4, where this would lead from one part to the
            other, they cannot be.

    Raises:
        ConfigError: If symmetries are asked for at 4 x 4.
        DataError: If the set is empty.
    """

    def __init__(self, puzzles: SudokuSet, symmetries: bool = True) -> None:
        if symmetries and puzzles.shape.digits == 4:
            raise ConfigError(
                "symmetries of 4 x 4 lead from training to test puzzles: choose symmetries=False, "
                "or a SudokuStream"
            )
        if not len(puzzles):
            raise DataError("the set of sudokus is empty")
        super().__init__(puzzles.shape)
        self.symmetries = symmetries
        self._grids = np.stack([puzzles.clues, puzzles.solutions], axis=1)

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        """Draw puzzles, each uniformly.

        Args:
            generator: Source of the draws, on the CPU.
            count: Number of puzzles B.
        """
        rows = torch.randint(len(self._grids), (count,), generator=generator).numpy()
        grids = self._grids[rows]
        if self.symmetries:
            grids = shuffled(grids, self.shape, generator)
        return encoded(grids[:, 0], grids[:, 1])
