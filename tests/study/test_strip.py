"""The strip of bars under a film."""

import numpy as np

from loopwm.study.strip import HEIGHT, draw_strip

BLUE = np.array([31, 119, 180])


def test_bars_that_have_passed_are_coloured_and_as_high_as_their_values() -> None:
    values = np.array([2, 4, 1, 3])
    strip = draw_strip(values, 3, 416, "iterations")
    assert strip.shape == (HEIGHT, 416, 3)
    columns = (strip == BLUE).all(axis=2).sum(axis=0)
    # Four bars of 100 pixels from the margin on; the middle of each says how high it is.
    heights = columns[[58, 158, 258, 358]]
    tallest = heights[1]
    np.testing.assert_allclose(heights / tallest, [0.5, 1, 0.25, 0], atol=0.05)


def test_more_steps_than_pixels_are_drawn_all_the_same() -> None:
    strip = draw_strip(np.arange(1, 1001), 1000, 64, "iterations")
    assert (strip == BLUE).all(axis=2).any()
    assert (draw_strip(np.ones(3, int), 0, 64, "n") != BLUE).any(axis=2).all()
