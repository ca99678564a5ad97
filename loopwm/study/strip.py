"""A strip of bars under a film: one for each step, those that have passed in colour."""

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from loopwm.errors import require

HEIGHT = 48
_EDGE = 8
_CAPTION = 18
_PAST, _AHEAD, _INK = (31, 119, 180), (205, 205, 205), (34, 34, 34)


def draw_strip(
    values: Int[ndarray, " T"], step: int, width: int, name: str
) -> UInt8[ndarray, "48 X 3"]:
    """Draw a value for each step as bars from zero, and the latest one as a number.

    Args:
        values: Values of all steps, at least one above 0.
        step: Number of steps that have passed; their bars are coloured.
        width: Width of the strip in pixels.
        name: What the values are.
    """
    image, drawing, font = (
        require(f"PIL.{module}", "viz") for module in ("Image", "ImageDraw", "ImageFont")
    )
    canvas = image.new("RGB", (width, HEIGHT), (255, 255, 255))
    pen, foot, room = drawing.Draw(canvas), HEIGHT - 4, HEIGHT - 4 - _CAPTION
    edges = np.linspace(_EDGE, width - _EDGE, len(values) + 1).round().astype(int).tolist()
    heights = (values / values.max() * room).round().astype(int).tolist()
    for t, height in enumerate(heights):
        colour = _PAST if t < step else _AHEAD
        # Where there is room for it, a gap keeps neighbours apart.
        right = max(edges[t], edges[t + 1] - (2 if edges[t + 1] - edges[t] > 3 else 1))
        if height:
            pen.rectangle([edges[t], foot - height, right, foot], fill=colour)
    now = f": {values[step - 1]}" if step else ""
    caption = f"{name}{now} (most {values.max()}, mean {values.mean():.1f})"
    letters = font.load_default(size=12)
    pen.text((_EDGE, _CAPTION // 2 + 1), caption, fill=_INK, font=letters, anchor="lm")
    return np.asarray(canvas)
