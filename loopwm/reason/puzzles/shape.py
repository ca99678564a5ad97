"""Sizes of sudokus, and the cells that see one another."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from loopwm.errors import ConfigError


@dataclass(frozen=True)
class SudokuShape:
    """Say how many rows and columns a box has; a row, a column and a box hold each digit once.

    Args:
        box_rows: Rows of a box, at least 2.
        box_columns: Columns of a box, at least 2; at most 9 cells in all.
    """

    box_rows: int = 3
    box_columns: int = 3

    def __post_init__(self) -> None:
        if min(self.box_rows, self.box_columns) < 2 or self.digits > 9:
            raise ConfigError(
                f"boxes of box_rows={self.box_rows} x box_columns={self.box_columns} are not "
                "supported; 2 x 2, 2 x 3, 3 x 2, 2 x 4, 4 x 2 and 3 x 3 are"
            )

    @property
    def digits(self) -> int:
        """Return the number n of digits, and of rows, columns and boxes."""
        return self.box_rows * self.box_columns

    @property
    def length(self) -> int:
        """Return the number S of cells."""
        return self.digits**2

    @property
    def vocabulary(self) -> int:
        """Return the number V of tokens: padding, empty, and each digit."""
        return self.digits + 2

    @cached_property
    def units(self) -> Int[ndarray, "U n"]:
        """Return the cells of each row, each column and each box."""
        cells = np.arange(self.length).reshape(self.digits, self.digits)
        stacks = self.digits // self.box_columns
        boxes = cells.reshape(-1, self.box_rows, stacks, self.box_columns).swapaxes(1, 2)
        return np.concatenate([cells, cells.T, boxes.reshape(self.digits, self.digits)])

    @property
    def tables(self) -> tuple[Int[ndarray, "S P"], Int[ndarray, "U n"]]:
        """Return peers and units."""
        return self.peers, self.units

    @cached_property
    def peers(self) -> Int[ndarray, "S P"]:
        """Return the cells that share a unit with each cell."""
        share = np.zeros((self.length, self.length), bool)
        for unit in self.units:
            share[np.ix_(unit, unit)] = True
        np.fill_diagonal(share, False)
        return np.nonzero(share)[1].reshape(self.length, -1)


SUDOKU_SHAPES = {4: SudokuShape(2, 2), 6: SudokuShape(2, 3), 9: SudokuShape(3, 3)}
"""The usual shape of each number of digits."""
