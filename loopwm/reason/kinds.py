"""Sudokus of 4 x 4 split by the symmetry of their solutions: there are two kinds."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool

from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.puzzles.shape import SUDOKU_SHAPES
from loopwm.reason.puzzles.sudoku_source import SudokuStream
from loopwm.reason.puzzles.symmetry import canonical

Kind = Literal["larger", "smaller"]

# Of the smaller kind: its boxes are the rows of a group table.
_EXAMPLE = np.array([[1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]], np.int8)
_SHAPE = SUDOKU_SHAPES[4]


class OneKind:
    """Make sudokus of 4 x 4 whose solution is of one kind; a `PuzzleSource`.

    Symmetries turn the 288 solutions into one another within two kinds, of 192 and of 96. To be
    tested on the one kind after training on the other is to be tested on solutions that are new up
    to every symmetry.

    Args:
        kind: The kind of 192 solutions or that of 96.
        clues: Clues of each puzzle; 0 takes as many away as can go.

    Raises:
        ConfigError: If the number of clues is out of range.
    """

    num_puzzles = 1

    def __init__(self, kind: Kind, clues: int = 0) -> None:
        self.kind = kind
        self._stream = SudokuStream(_SHAPE, clues)

    @property
    def vocabulary(self) -> int:
        """Return the number V of different tokens."""
        return self._stream.vocabulary

    @property
    def length(self) -> int:
        """Return the number S of cells."""
        return self._stream.length

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        """Make puzzles.

        Args:
            generator: Source of the draws, on the CPU.
            count: Number of puzzles B.

        Raises:
            DataError: If puzzles of so few clues are not found.
        """
        parts: list[PuzzleBatch] = []
        missing = count
        while missing:
            made = self._stream.sample(generator, 2 * missing)
            rows = torch.from_numpy(self._wanted(made)).nonzero().squeeze(1)[:missing]
            parts.append(made.rows(rows))
            missing -= len(rows)
        return PuzzleBatch(
            tokens=torch.cat([part.tokens for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            puzzle_ids=torch.cat([part.puzzle_ids for part in parts]),
        )

    def _wanted(self, made: PuzzleBatch) -> Bool[np.ndarray, " N"]:
        # What is given is not asked for: a label or a token has each digit, one above itself.
        whole = torch.where(made.labels < 0, made.tokens, made.labels) - 1
        solutions = whole.numpy().astype(np.int8)
        forms, _ = canonical(solutions, solutions, _SHAPE)
        example, _ = canonical(_EXAMPLE, _EXAMPLE, _SHAPE)
        return (forms == example).all(1) == (self.kind == "smaller")
