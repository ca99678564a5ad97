"""Grids on a canvas: what is laid down is found again, edges and corners included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loopwm.errors import DataError
from loopwm.reason.grid import decode, encode

SIDE = 6
GRIDS = st.tuples(st.integers(1, SIDE), st.integers(1, SIDE)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 9))
)


@given(GRIDS)
def test_what_is_encoded_is_decoded(grid: np.ndarray):
    np.testing.assert_array_equal(decode(encode(grid, SIDE)), grid)


def test_a_grid_inside_the_canvas_has_an_edge_below_and_right_and_an_empty_corner():
    canvas = encode(np.array([[0, 9]], np.uint8), 5, at=(1, 1)).reshape(5, 5)
    assert canvas.tolist() == [
        [0, 0, 0, 0, 0],
        [0, 2, 11, 1, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_a_grid_that_touches_the_canvas_has_no_edge_there():
    canvas = encode(np.zeros((2, 1), np.uint8), 2).reshape(2, 2)
    assert canvas.tolist() == [[2, 1], [2, 1]]


@given(arrays(np.int64, SIDE**2, elements=st.integers(0, 13)))
def test_of_any_canvas_the_largest_coloured_rectangle_from_the_first_cell_is_cut(
    tokens: np.ndarray,
):
    canvas = tokens.reshape(SIDE, SIDE)
    coloured = (canvas >= 2) & (canvas <= 11)
    areas = {
        (r, c): r * c
        for r in range(1, SIDE + 1)
        for c in range(1, SIDE + 1)
        if coloured[:r, :c].all()
    }
    cut = decode(tokens)
    assert cut.size == max(areas.values(), default=0)
    if areas:
        # Of equal ones the first, which is the flattest.
        assert cut.shape == max(areas, key=areas.__getitem__)
        np.testing.assert_array_equal(cut, canvas[: cut.shape[0], : cut.shape[1]] - 2)


@pytest.mark.parametrize("at", [(0, 0), (2, 0), (-1, 0)])
def test_a_grid_that_does_not_fit_is_refused(at: tuple[int, int]):
    grid = np.zeros((4 if at == (0, 0) else 2, 2), np.uint8)
    with pytest.raises(DataError, match="does not fit on a canvas of 3 x 3"):
        encode(grid, 3, at)
