"""ARC grids as tokens on a square canvas, and back."""

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from loopwm.errors import DataError

PAD, END, FIRST_COLOUR = 0, 1, 2
"""Tokens: nothing, the edge below and right of a grid, and the colour 0."""

COLOURS = 10
VOCABULARY = FIRST_COLOUR + COLOURS


def encode(
    grid: UInt8[ndarray, "R C"], side: int, at: tuple[int, int] = (0, 0)
) -> UInt8[ndarray, " S"]:
    """Lay a grid on a canvas, with its edges marked where they fit.

    Args:
        grid: Colours in [0, 10).
        side: Rows, and columns, of the canvas.
        at: Row and column of the grid's first cell.

    Returns:
        The tokens of the canvas row by row.

    Raises:
        DataError: If the grid does not fit.
    """
    rows, columns = grid.shape
    top, left = at
    bottom, right = top + rows, left + columns
    if min(top, left) < 0 or max(bottom, right) > side:
        raise DataError(
            f"a grid of {rows} x {columns} at {at} does not fit on a canvas of {side} x {side}; "
            "choose a larger side, or only tasks that fit (loopwm.reason.tasks.fitting)"
        )
    canvas = np.full((side, side), PAD, np.uint8)
    # The corner between the two edges stays empty.
    canvas[bottom : bottom + 1, left:right] = END
    canvas[top:bottom, right : right + 1] = END
    canvas[top:bottom, left:right] = grid + FIRST_COLOUR
    return canvas.ravel()


def decode(tokens: Int[ndarray, " S"] | UInt8[ndarray, " S"]) -> UInt8[ndarray, "R C"]:
    """Cut the grid out of a canvas on which it lies in the first corner.

    A canvas that a model has written may hold anything: what is taken is the largest rectangle
    from the first cell that holds colours alone, of two equals the one with fewer rows.

    Args:
        tokens: A square canvas row by row.

    Returns:
        The colours; a grid without cells where the first token is no colour.
    """
    side = int(len(tokens) ** 0.5)
    canvas = tokens.reshape(side, side)
    coloured = (canvas >= FIRST_COLOUR) & (canvas < VOCABULARY)
    # Of each height, the width up to which all rows so far are coloured.
    widths = np.minimum.accumulate(np.logical_and.accumulate(coloured, axis=1).sum(1))
    rows = int((widths * np.arange(1, side + 1)).argmax()) + 1
    return (canvas[:rows, : widths[rows - 1]] - FIRST_COLOUR).astype(np.uint8)
