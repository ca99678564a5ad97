"""Make sudokus: fill a grid, take clues away, and climb to harder ones; compiled."""

from typing import no_type_check

import numpy as np
from numpy import ndarray

from loopwm.errors import require
from loopwm.reason.puzzles.solver import Tables, candidates, rate, search, shuffle, solved

numba = require("numba", "arc")

# Of a climb: orders that steer it, moves after which it gives up, clues given in a move. Of those
# tried, these made most puzzles of 20 wrong guesses in a second.
_SKETCH, _MOVES, _MORE = 8, 100, 3


@numba.njit(cache=True, nogil=True)
@no_type_check
def fill(tables: Tables, state: ndarray, grid: ndarray) -> None:
    """Fill an empty grid at random."""
    out = np.empty(len(grid), np.int32)
    grid[:] = 0
    search(candidates(grid, tables[1].shape[1]), tables, state, 1, out)
    solved(out, grid)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _removed(grid: ndarray, cell: int, tables: Tables, state: ndarray, out: ndarray) -> bool:
    """Take a clue away if the solution stays the only one; say whether it was."""
    digit = grid[cell]
    grid[cell] = 0
    start = candidates(grid, tables[1].shape[1])
    # With the clue the solution was the only one, so another one differs here.
    start[cell] &= ~(1 << (digit - 1))
    if search(start, tables, state, 1, out)[0]:
        grid[cell] = digit
    return grid[cell] == 0


@numba.njit(cache=True, nogil=True)
@no_type_check
def dig(grid: ndarray, tables: Tables, state: ndarray, clues: int) -> int:
    """Take clues away, in random order, as long as the solution stays the only one.

    Args:
        grid: A grid with one solution; changed.
        tables: See `loopwm.reason.puzzles.solver`.
        state: State of the random numbers.
        clues: Number of clues to stop at; 0 stops where no clue can go.

    Returns:
        The number of clues left.
    """
    out, order, left = np.empty(len(grid), np.int32), np.arange(len(grid)), 0
    shuffle(state, order)
    for cell in order:
        left += grid[cell] > 0
    for cell in order:
        if left == clues:
            break
        if grid[cell] and _removed(grid, cell, tables, state, out):
            left -= 1
    return left


@numba.njit(cache=True, nogil=True)
@no_type_check
def _neighbour(
    grid: ndarray,
    solution: ndarray,
    tables: Tables,
    state: ndarray,
    more: int,
) -> ndarray:
    """Give some clues more, take away all old ones that can go, then the new ones that can."""
    other, out, order = grid.copy(), np.empty(len(grid), np.int32), np.arange(len(grid))
    shuffle(state, order)
    for cell in order:
        if more and grid[cell] == 0:
            other[cell] = solution[cell]
            more -= 1
    for old in (True, False):
        for cell in order:
            if other[cell] and (grid[cell] > 0) == old:
                _removed(other, cell, tables, state, out)
    return other


@numba.njit(cache=True, nogil=True)
@no_type_check
def climb(
    grid: ndarray,
    solution: ndarray,
    tables: Tables,
    state: ndarray,
    least: float,
    orders: int,
) -> float:
    """Make a minimal puzzle harder by going to neighbours that are not easier.

    Args:
        grid: A minimal puzzle; changed.
        solution: Its solution.
        tables: See `loopwm.reason.puzzles.solver`.
        state: State of the random numbers.
        least: Wrong guesses to reach.
        orders: Orders over which the rating is averaged.

    Returns:
        The rating, below `least` where given up.
    """
    rating = rate(grid, tables, state, _SKETCH)
    for _ in range(_MOVES):
        if rating >= least:
            # Chosen for its rating, a puzzle is rated too high by it: only fresh orders count.
            rating = rate(grid, tables, state, orders)
            if rating >= least:
                return rating
        other = _neighbour(grid, solution, tables, state, _MORE)
        rated = rate(other, tables, state, _SKETCH)
        if rated >= rating:
            grid[:] = other
            rating = rated
    return -1.0


@numba.njit(cache=True, nogil=True)
@no_type_check
def make(
    solutions: ndarray,
    tables: Tables,
    states: ndarray,
    clues: int,
    least: float,
    orders: int,
    grids: ndarray,
    ratings: ndarray,
) -> None:
    """Make a puzzle of each solution.

    Args:
        solutions: The solutions [N, S].
        tables: See `loopwm.reason.puzzles.solver`.
        states: A state of random numbers for each [N, 1].
        clues: Number of clues, 0 for minimal puzzles.
        least: Wrong guesses to reach, 0 for puzzles as they come.
        orders: Orders over which ratings are averaged, 0 for no ratings.
        grids: Receives the puzzles [N, S].
        ratings: Receives the ratings [N]: -1 where what was asked for was not reached.
    """
    for row in range(len(solutions)):
        grids[row] = solutions[row]
        left = dig(grids[row], tables, states[row], clues)
        if clues and left > clues:
            ratings[row] = -1
        elif least > 0:
            ratings[row] = climb(grids[row], solutions[row], tables, states[row], least, orders)
        elif orders:
            ratings[row] = rate(grids[row], tables, states[row], orders)


@numba.njit(cache=True, nogil=True)
@no_type_check
def fill_all(tables: Tables, states: ndarray, grids: ndarray) -> None:
    """Fill each of the grids [N, S] at random, each by its state [N, 1]."""
    for row in range(len(grids)):
        fill(tables, states[row], grids[row])
