"""Symmetries of sudoku, against all of them applied one by one."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwm.reason.puzzles.shape import SUDOKU_SHAPES, SudokuShape
from loopwm.reason.puzzles.split import held_out
from loopwm.reason.puzzles.symmetry import canonical, kept_for_testing, shuffled
from tests.reason.puzzles.test_solver import filled, minimal

FOUR = SUDOKU_SHAPES[4]


def lines(groups, inside) -> list[int]:
    size = len(inside[0])
    return [group * size + i for group, order in zip(groups, inside, strict=True) for i in order]


def turned(grid: np.ndarray, rows, columns, names, transpose: bool) -> np.ndarray:
    n = len(rows)
    square = grid.reshape(n, n)
    square = square.T if transpose else square
    return np.array([0, *names], np.int8)[square[rows][:, columns]].ravel()


def orbit(grid: np.ndarray) -> set[bytes]:
    """Apply all symmetries of 4 x 4."""
    orders = list(permutations(range(2)))
    all_lines = [lines(g, i) for g in orders for i in product(orders, repeat=2)]
    return {
        turned(grid, rows, columns, names, transpose).tobytes()
        for rows in all_lines
        for columns in all_lines
        for names in permutations(range(1, 5))
        for transpose in (False, True)
    }


@st.composite
def symmetries(draw, shape: SudokuShape):
    n = shape.digits

    def drawn(group: int):
        groups = draw(st.permutations(range(n // group)))
        return lines(groups, [draw(st.permutations(range(group))) for _ in groups])

    transpose = draw(st.booleans()) if shape.box_rows == shape.box_columns else False
    names = draw(st.permutations(range(1, n + 1)))
    return drawn(shape.box_rows), drawn(shape.box_columns), names, transpose


@pytest.mark.parametrize("digits", [4, 6, 9])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_symmetric_puzzles_have_one_canonical_form(digits: int, data):
    shape = SUDOKU_SHAPES[digits]
    grids, solutions = minimal(shape, 3)
    symmetry = data.draw(symmetries(shape))
    before = canonical(solutions, grids, shape)
    moved, asked = (
        np.stack([turned(each, *symmetry) for each in both]) for both in (solutions, grids)
    )
    after = canonical(moved, asked, shape)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_canonical_form_is_the_first_of_all_forms():
    for solution in filled(FOUR, 4):
        form, _ = canonical(solution[None], solution[None], FOUR)
        assert form[0].tobytes() == min(orbit(solution))


def test_puzzles_have_one_canonical_form_only_if_they_are_symmetric():
    grids, solutions = minimal(FOUR, 60, clues=6)
    grids, solutions = grids[(grids > 0).sum(1) == 6], solutions[(grids > 0).sum(1) == 6]
    forms = canonical(solutions, grids, FOUR)[1]
    equal = 0
    for i in range(12):
        copies = orbit(grids[i])
        for j in range(len(grids)):
            same = forms[i].tobytes() == forms[j].tobytes()
            assert same == (grids[j].tobytes() in copies)
            equal += same and i != j
    assert equal > 0


@pytest.mark.parametrize(("digits", "classes"), [(4, 2), (6, 49)])
def test_solutions_fall_into_the_known_number_of_classes(digits: int, classes: int):
    # E. Russell and F. Jarvis counted 2 of 4 x 4, 49 of 6 x 6.
    shape = SUDOKU_SHAPES[digits]
    grids = filled(shape, 8000)
    assert len(np.unique(canonical(grids, grids, shape)[0], axis=0)) == classes


@pytest.mark.parametrize("digits", [6, 9])
def test_shuffled_puzzles_are_other_puzzles_of_the_same_class(digits: int):
    shape = SUDOKU_SHAPES[digits]
    both = np.stack(minimal(shape, 12), axis=1)
    turned = shuffled(both, shape, torch.Generator().manual_seed(0))
    assert (turned != both).any((1, 2)).all()
    before = canonical(both[:, 1], both[:, 0], shape)
    after = canonical(turned[:, 1], turned[:, 0], shape)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)


def test_shuffling_reaches_every_symmetric_copy():
    (grid,), (solution,) = minimal(FOUR, 1)
    both = np.repeat(np.stack([grid, solution])[None], 60_000, axis=0)
    turned = shuffled(both, FOUR, torch.Generator().manual_seed(0))
    assert {each.tobytes() for each in turned[:, 0]} == orbit(grid)


@pytest.mark.parametrize("digits", [6, 9])
def test_copies_of_a_solution_are_all_kept_for_testing_or_none(digits: int):
    shape = SUDOKU_SHAPES[digits]
    solutions = filled(shape, 60)
    both = np.stack([solutions, solutions], axis=1)
    for seed in range(3):
        copies = shuffled(both, shape, torch.Generator().manual_seed(seed))[:, 1]
        np.testing.assert_array_equal(
            kept_for_testing(copies, shape),
            kept_for_testing(solutions, shape),
        )


@pytest.mark.parametrize(("digits", "count"), [(4, 4000), (6, 4000), (9, 300)])
def test_about_a_tenth_of_the_solutions_is_kept_for_testing(digits: int, count: int):
    shape = SUDOKU_SHAPES[digits]
    assert 0.03 < kept_for_testing(filled(shape, count), shape).mean() < 0.17


def test_one_in_so_many_keys_is_held_out_whatever_their_pattern():
    keys = np.arange(2**14)[:, None] >> np.arange(14) & 1
    for one_in in (3, 10):
        # Five standard deviations.
        assert held_out(keys, one_in).mean() == pytest.approx(1 / one_in, abs=0.02)
