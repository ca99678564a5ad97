"""The compiled solver, against plain Python."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwm.reason.puzzles import digger, solver
from loopwm.reason.puzzles.shape import SUDOKU_SHAPES, SudokuShape
from loopwm.reason.puzzles.sudoku import ratings
from tests.oracles.sudoku import Sudoku

SHAPES = [*SUDOKU_SHAPES.values(), SudokuShape(3, 2)]
HARD = "4.....8.5.3..........7......2.....6.....8.4......1.......6.3.7.5..2.....1.4......"


def oracle(shape: SudokuShape) -> Sudoku:
    return Sudoku(shape.box_rows, shape.box_columns)


def states(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(2**63, size=(count, 1)).astype(np.uint64)


def filled(shape: SudokuShape, count: int, seed: int = 0) -> np.ndarray:
    grids = np.empty((count, shape.length), np.int8)
    digger.fill_all(shape.tables, states(count, seed), grids)
    return grids


def solve(grids: np.ndarray, shape: SudokuShape, limit: int) -> tuple[np.ndarray, np.ndarray]:
    counts, out = np.zeros(len(grids), np.int64), np.zeros_like(grids)
    solver.solve_all(grids, shape.tables, states(len(grids)), limit, counts, out)
    return counts, out


def minimal(shape: SudokuShape, count: int, clues: int = 0) -> tuple[np.ndarray, np.ndarray]:
    solutions = filled(shape, count)
    grids, rated = np.empty_like(solutions), np.zeros(count)
    digger.make(solutions, shape.tables, states(count, 1), clues, 0.0, 0, grids, rated)
    return grids, solutions


@pytest.mark.parametrize("shape", SHAPES)
def test_units_and_peers_are_those_of_rows_columns_and_boxes(shape: SudokuShape):
    slow = oracle(shape)
    assert {tuple(unit) for unit in shape.units.tolist()} == {tuple(u) for u in slow.units}
    assert [set(peers) for peers in shape.peers.tolist()] == slow.peers


@pytest.mark.parametrize("shape", SHAPES)
def test_filled_grids_keep_the_rules(shape: SudokuShape):
    for grid in filled(shape, 20):
        assert all(len(set(grid[unit])) == shape.digits for unit in shape.units)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([4, 6]), st.integers(0, 2**32), st.floats(0.2, 0.9))
def test_as_many_solutions_are_found_as_there_are(digits: int, seed: int, share: float):
    shape, rng = SUDOKU_SHAPES[digits], np.random.default_rng(seed)
    grid = filled(shape, 1, seed)
    grid[rng.random(grid.shape) < share] = 0
    # A digit of which nobody knows whether it fits.
    grid[0, rng.integers(shape.length)] = rng.integers(1, digits + 1)
    expected = list(islice(oracle(shape).solutions(grid[0].tolist()), 4))
    counts, out = solve(grid, shape, 4)
    assert counts[0] == len(expected)
    if len(expected) == 1:
        assert out[0].tolist() == expected[0]


def test_a_puzzle_that_is_hard_for_people_is_solved():
    grid = np.array([[int(c.replace(".", "0")) for c in HARD]], np.int8)
    counts, out = solve(grid, SUDOKU_SHAPES[9], 2)
    assert counts[0] == 1
    assert all(len(set(out[0][unit])) == 9 for unit in SUDOKU_SHAPES[9].units)
    assert (out[0][grid[0] > 0] == grid[0][grid[0] > 0]).all()


@pytest.mark.parametrize(("digits", "count"), [(4, 10), (6, 6), (9, 1)])
def test_puzzles_have_one_solution_and_no_clue_too_many(digits: int, count: int):
    shape = SUDOKU_SHAPES[digits]
    slow = oracle(shape)
    for grid, solution in zip(*minimal(shape, count), strict=True):
        assert list(slow.solutions(grid.tolist())) == [solution.tolist()]
        for cell in np.flatnonzero(grid):
            fewer = grid.copy()
            fewer[cell] = 0
            assert len(list(islice(slow.solutions(fewer.tolist()), 2))) == 2


def test_digging_stops_at_the_number_of_clues_asked_for():
    grids, _ = minimal(SUDOKU_SHAPES[9], 5, clues=40)
    assert ((grids > 0).sum(1) == 40).all()


def test_ratings_are_the_expected_number_of_wrong_guesses():
    shape = SUDOKU_SHAPES[6]
    grids, _ = minimal(shape, 240)
    rated = ratings(grids, shape, orders=4000)
    slow = oracle(shape)
    hard = np.flatnonzero(rated > 0)
    assert len(hard) > 5
    for row in hard:
        cells = slow.start(grids[row].tolist())
        assert cells is not None
        # Six standard errors of the mean over 4000 orders, of a spread of about the mean itself.
        expected = float(slow.wrong_guesses(cells))
        assert rated[row] == pytest.approx(expected, abs=0.1 * max(1, expected))


def test_what_singles_solve_needs_no_guess_and_the_rest_some():
    shape = SUDOKU_SHAPES[9]
    grids, _ = minimal(shape, 40)
    rated = ratings(grids, shape, orders=64)
    for grid, rating in zip(grids, rated, strict=True):
        cells = oracle(shape).start(grid.tolist())
        assert cells is not None
        # Where a guess is needed, 64 lucky ones are out of the question.
        assert (rating == 0) == all(len(options) == 1 for options in cells)
