"""What leaves a sudoku the same: renaming digits, swapping rows and columns, transposing."""

from itertools import permutations, product
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Int8, Int16
from numpy import ndarray

from loopwm.errors import require
from loopwm.reason.puzzles.shape import SudokuShape
from loopwm.reason.puzzles.split import held_out

numba = require("numba", "arc")


def canonical(
    solutions: Int8[ndarray, "N S"], clues: Int8[ndarray, "N S"], shape: SudokuShape
) -> tuple[Int8[ndarray, "N S"], Int8[ndarray, "N S"]]:
    """Return the same form for all puzzles that symmetries turn into one another.

    Of all forms of the solution it is the first in the order of the alphabet; where several
    symmetries lead there, the first of the forms of the clues.

    Args:
        solutions: Filled grids.
        clues: Puzzles that have these solutions alone, 0 where empty.
        shape: Their shape.

    Returns:
        The forms of the solutions and of the puzzles.
    """
    n = shape.digits
    grids = np.ascontiguousarray(solutions).reshape(-1, n, n)
    masks = (np.ascontiguousarray(clues).reshape(-1, n, n) > 0).astype(np.int8)
    best, bits = np.full_like(grids, n + 1), np.ones_like(masks)
    _canonical_all(grids, masks, _column_orders(shape), shape.box_rows, best, bits)
    if shape.box_rows == shape.box_columns:
        grids, masks = (np.ascontiguousarray(each.swapaxes(1, 2)) for each in (grids, masks))
        _canonical_all(grids, masks, _column_orders(shape), shape.box_rows, best, bits)
    return best.reshape(solutions.shape), (best * bits).reshape(clues.shape)


def kept_for_testing(
    solutions: Int8[ndarray, "N S"], shape: SudokuShape, one_in: int = 10
) -> Bool[ndarray, " N"]:
    """Return whose solutions belong to the test set.

    All symmetric copies of a solution belong to the same set. The 288 solutions of 4 x 4 are of
    two kinds only: there each solution is on its own.

    Args:
        solutions: Filled grids.
        shape: Their shape.
        one_in: Reciprocal of the share that is kept, of classes of solutions.
    """
    if shape.digits > 4:
        solutions, _ = canonical(solutions, solutions, shape)
    return held_out(solutions, one_in)


def shuffled(
    grids: Int8[ndarray, "B 2 S"], shape: SudokuShape, generator: torch.Generator
) -> Int8[ndarray, "B 2 S"]:
    """Turn each puzzle and its solution into another one by a random symmetry, each alike.

    Args:
        grids: Clues, 0 where empty, and solutions.
        shape: Their shape.
        generator: Source of the draws.
    """
    count, n = len(grids), shape.digits
    rows = _random_lines(count, n, shape.box_rows, generator)
    columns = _random_lines(count, n, shape.box_columns, generator)
    names = np.zeros((count, n + 1), np.int8)
    names[:, 1:] = _random_orders(count, n, generator) + 1
    source = rows[:, :, None] * n + columns[:, None, :]
    if shape.box_rows == shape.box_columns:
        turned = torch.rand(count, generator=generator).numpy() < 0.5
        source = np.where(turned[:, None, None], source.swapaxes(1, 2), source)
    moved = np.take_along_axis(grids, source.reshape(count, 1, -1), axis=2)
    return np.take_along_axis(names[:, None], moved.astype(np.int64), axis=2)


def _random_orders(count: int, size: int, generator: torch.Generator) -> ndarray:
    return torch.rand(count, size, generator=generator).argsort(1).numpy()


def _random_lines(count: int, n: int, group: int, generator: torch.Generator) -> ndarray:
    groups = _random_orders(count, n // group, generator)
    inside = _random_orders(count * (n // group), group, generator)
    return (groups[:, :, None] * group + inside.reshape(count, -1, group)).reshape(count, n)


def _column_orders(shape: SudokuShape) -> Int16[ndarray, "P n"]:
    width, stacks = shape.box_columns, shape.digits // shape.box_columns
    inside = list(permutations(range(width)))
    return np.array(
        [
            [
                stack * width + column
                for stack, order in zip(outer, inner, strict=True)
                for column in order
            ]
            for outer in permutations(range(stacks))
            for inner in product(inside, repeat=stacks)
        ],
        np.int16,
    )


@numba.njit(cache=True, nogil=True)
@no_type_check
def _row_order(first: ndarray, names: ndarray, group: int, order: ndarray) -> None:
    """Order rows so that the first column rises within each band, and over bands' first rows."""
    n = len(first)
    row_of = np.empty(n + 1, np.int64)
    for row in range(n):
        row_of[names[first[row]]] = row
    filled = np.full(n // group, -1, np.int64)
    bands = 0
    for digit in range(1, n + 1):
        row = row_of[digit]
        band = row // group
        if filled[band] < 0:
            filled[band] = bands * group
            bands += 1
        order[filled[band]] = row
        filled[band] += 1


@numba.njit(cache=True, nogil=True)
@no_type_check
def _compare(grid: ndarray, names: ndarray, order: ndarray, column: ndarray, best: ndarray) -> int:
    """Return a negative number if a form comes before the best so far, 0 if it is the same."""
    for i in range(len(grid)):
        for j in range(len(grid)):
            sign = names[grid[order[i], column[j]]] - best[i, j]
            if sign:
                return sign
    return 0


@numba.njit(cache=True, nogil=True)
@no_type_check
def _canonical(
    grid: ndarray, mask: ndarray, columns: ndarray, group: int, best: ndarray, bits: ndarray
) -> None:
    """Replace `best` and `bits` by the first form of a grid, if it comes before them."""
    n, same = len(grid), np.arange(2, dtype=np.int8)
    names, order = np.empty(n + 1, np.int8), np.empty(n, np.int64)
    for first in range(n):
        for column in columns:
            # The first row reads 1 to n in every form.
            for j in range(n):
                names[grid[first, column[j]]] = j + 1
            _row_order(grid[:, column[0]], names, group, order)
            sign = _compare(grid, names, order, column, best)
            if sign < 0 or (sign == 0 and _compare(mask, same, order, column, bits) < 0):
                for i in range(n):
                    for j in range(n):
                        best[i, j] = names[grid[order[i], column[j]]]
                        bits[i, j] = mask[order[i], column[j]]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _canonical_all(
    grids: ndarray,
    masks: ndarray,
    columns: ndarray,
    group: int,
    best: ndarray,
    bits: ndarray,
) -> None:
    for row in range(len(grids)):
        _canonical(grids[row], masks[row], columns, group, best[row], bits[row])
