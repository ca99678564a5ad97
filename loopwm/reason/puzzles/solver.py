"""Solve and rate sudokus of any size up to 9: compiled search with naked and hidden singles.

A candidate set is an integer whose bit d says that the digit d + 1 is possible. `tables` are the
peers [S, P], the cells that share a unit with each cell, and the units [U, n], the cells of each
row, column and box (see `loopwm.reason.puzzles.shape`).
"""

from typing import no_type_check

import numpy as np
from numpy import ndarray

from loopwm.errors import require

numba = require("numba", "arc")

Tables = tuple[ndarray, ndarray]

_SIZES = np.array([bin(mask).count("1") for mask in range(1 << 9)], np.int8)


# The checks of the tests would wrap what numba compiles.
@numba.njit(cache=True, nogil=True)
@no_type_check
def draw(state: ndarray, below: int) -> int:
    """Return a number in [0, below), and advance the state, one uint64 (splitmix64)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    word = state[0]
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    # The upper half, scaled: no bias that matters, and no division.
    return np.int64(((word >> np.uint64(32)) * np.uint64(below)) >> np.uint64(32))


@numba.njit(cache=True, nogil=True)
@no_type_check
def shuffle(state: ndarray, values: ndarray) -> None:
    """Put values into random order."""
    for last in range(len(values) - 1, 0, -1):
        other = draw(state, last + 1)
        values[last], values[other] = values[other], values[last]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _eliminate(cand: ndarray, peers: ndarray, todo: ndarray, count: int) -> bool:
    """Take the digit of each cell on the list `todo` from its peers; naked singles join it."""
    while count:
        count -= 1
        cell = todo[count]
        bit = cand[cell]
        for peer in peers[cell]:
            left = cand[peer]
            if left & bit:
                left &= ~bit
                cand[peer] = left
                if left == 0:
                    return False
                if left & (left - 1) == 0:
                    todo[count] = peer
                    count += 1
    return True


@numba.njit(cache=True, nogil=True)
@no_type_check
def _hidden(cand: ndarray, units: ndarray, todo: ndarray) -> int:
    """List the cells that are the only place of a digit in a unit; -1 where a digit has none."""
    count, every = 0, (1 << units.shape[1]) - 1
    for unit in units:
        once, twice = 0, 0
        for cell in unit:
            twice |= once & cand[cell]
            once |= cand[cell]
        if once != every:
            return -1
        once &= ~twice
        if once == 0:
            continue
        for cell in unit:
            only = cand[cell] & once
            if only and only != cand[cell]:
                if only & (only - 1):
                    return -1
                cand[cell] = only
                todo[count] = cell
                count += 1
    return count


@numba.njit(cache=True, nogil=True)
@no_type_check
def _propagate(cand: ndarray, tables: Tables, todo: ndarray, count: int) -> bool:
    while count > 0:
        if not _eliminate(cand, tables[0], todo, count):
            return False
        count = _hidden(cand, tables[1], todo)
    return count == 0


@numba.njit(cache=True, nogil=True)
@no_type_check
def _branch(cand: ndarray, state: ndarray) -> int:
    """Return one of the cells with fewest candidates, at random; -1 if all are solved."""
    best, size, ties = -1, 99, 0
    for cell in range(len(cand)):
        count = _SIZES[cand[cell]]
        if 1 < count < size:
            best, size, ties = cell, count, 1
        elif count == size:
            ties += 1
            if draw(state, ties) == 0:
                best = cell
    return best


@numba.njit(cache=True, nogil=True)
@no_type_check
def _begin(cand: ndarray, tables: Tables, todo: ndarray) -> bool:
    """Draw all conclusions from the cells that are solved."""
    count = 0
    for cell in range(len(cand)):
        if _SIZES[cand[cell]] == 1:
            todo[count] = cell
            count += 1
    if count == 0:
        count = _hidden(cand, tables[1], todo)
    return _propagate(cand, tables, todo, count)


@numba.njit(cache=True, nogil=True)
@no_type_check
def _guess(left: int, state: ndarray) -> int:
    """Return one bit of a candidate set at random."""
    for _ in range(draw(state, _SIZES[left])):
        left &= left - 1
    return left & -left


@numba.njit(cache=True, nogil=True)
@no_type_check
def search(
    start: ndarray, tables: Tables, state: ndarray, limit: int, out: ndarray
) -> tuple[int, int]:
    """Look for solutions; where singles do not suffice, guess in random order.

    Args:
        start: Candidates of each cell.
        tables: See the module.
        state: State of the random numbers.
        limit: Solutions after which to stop.
        out: Receives the candidates of the solution that was found last.

    Returns:
        The number of solutions found, and of the guesses that proved wrong before the first.
    """
    size, found, wrong, depth = len(start), 0, 0, 0
    stack, todo = np.empty((size + 1, size), np.int32), np.empty(size, np.int64)
    cells, left = np.zeros(size + 1, np.int64), np.zeros(size + 1, np.int32)
    stack[0] = start
    if not _begin(stack[0], tables, todo):
        return found, wrong
    going = True
    while going:
        # The position at `depth` is new: it is solved, or guessed on.
        cell = cells[depth] = _branch(stack[depth], state)
        left[depth] = stack[depth, cell] if cell >= 0 else 0
        if cell < 0:
            out[:] = stack[depth]
            found += 1
            if found == limit:
                return found, wrong
        going = False
        while depth >= 0 and not going:
            if left[depth] == 0:
                # All guesses here failed, and so did the one that led here.
                wrong += depth > 0 and found == 0
                depth -= 1
                continue
            bit = _guess(left[depth], state)
            left[depth] &= ~bit
            stack[depth + 1] = stack[depth]
            todo[0] = cells[depth]
            stack[depth + 1, todo[0]] = bit
            going = _propagate(stack[depth + 1], tables, todo, 1)
            depth += going
            wrong += not going and found == 0
    return found, wrong


@numba.njit(cache=True, nogil=True)
@no_type_check
def candidates(grid: ndarray, digits: int) -> ndarray:
    """Return the candidates of each cell of a grid, where 0 is empty, before any thought."""
    cand = np.empty(len(grid), np.int32)
    for cell in range(len(grid)):
        cand[cell] = 1 << (grid[cell] - 1) if grid[cell] else (1 << digits) - 1
    return cand


@numba.njit(cache=True, nogil=True)
@no_type_check
def rate(grid: ndarray, tables: Tables, state: ndarray, orders: int) -> float:
    """Return the mean number of wrong guesses over random orders of guessing.

    Args:
        grid: A puzzle with one solution, 0 where empty.
        tables: See the module.
        state: State of the random numbers.
        orders: How many.
    """
    out, total = np.empty(len(grid), np.int32), 0
    start = candidates(grid, tables[1].shape[1])
    for _ in range(orders):
        total += search(start, tables, state, 1, out)[1]
    return total / orders


@numba.njit(cache=True, nogil=True)
@no_type_check
def solved(cand: ndarray, grid: ndarray) -> None:
    """Write the digits of solved cells into a grid."""
    for cell in range(len(grid)):
        # As many lower bits as there are lower digits.
        grid[cell] = 1 + _SIZES[cand[cell] - 1]


@numba.njit(cache=True, nogil=True)
@no_type_check
def rate_all(grids: ndarray, tables: Tables, states: ndarray, orders: int, out: ndarray) -> None:
    """Rate many puzzles; see `rate`.

    Args:
        grids: The puzzles [N, S].
        tables: See the module.
        states: A state of random numbers for each [N, 1].
        orders: Orders over which ratings are averaged.
        out: Receives the ratings [N].
    """
    for row in range(len(grids)):
        out[row] = rate(grids[row], tables, states[row], orders)


@numba.njit(cache=True, nogil=True)
@no_type_check
def solve_all(
    grids: ndarray, tables: Tables, states: ndarray, limit: int, counts: ndarray, out: ndarray
) -> None:
    """Count the solutions of many puzzles.

    Args:
        grids: The puzzles [N, S].
        tables: See the module.
        states: A state of random numbers for each [N, 1].
        limit: Solutions after which to stop.
        counts: Receives the number of solutions found [N].
        out: Receives the solution found last [N, S], where there is one.
    """
    cand = np.empty(grids.shape[1], np.int32)
    for row in range(len(grids)):
        start = candidates(grids[row], tables[1].shape[1])
        counts[row] = search(start, tables, states[row], limit, cand)[0]
        if counts[row]:
            solved(cand, out[row])
