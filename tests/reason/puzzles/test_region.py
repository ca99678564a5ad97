"""Enclosed regions, against scipy's components and a search cell by cell."""

from typing import cast

import numpy as np
import pytest
import torch
from scipy import ndimage

from loopwm.errors import ConfigError, DataError
from loopwm.reason.loss import IGNORED
from loopwm.reason.puzzles.region import FILLED, OPEN, WALL, Regions
from loopwm.reason.source import PuzzleSource


def steps_to_know(cells: np.ndarray) -> int:
    """Return the distance of the farthest cell that can be reached from the edge."""
    side = len(cells)
    frontier = {
        (r, c) for r in range(side) for c in range(side)
        if cells[r, c] and (r in (0, side - 1) or c in (0, side - 1))
    }  # fmt: skip
    seen, steps = set(frontier), -1
    while frontier:
        steps += 1
        frontier = {
            (y, x)
            for r, c in frontier
            for y, x in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1))
            if 0 <= y < side and 0 <= x < side and cells[y, x] and (y, x) not in seen
        }
        seen |= frontier
    return max(steps, 0)


@pytest.mark.parametrize(("side", "least", "most"), [(5, 0, None), (12, 8, 10), (20, 12, None)])
def test_filled_is_what_no_open_cell_joins_to_the_edge(side, least, most):
    graded = Regions(side, least, most).test(40)
    tokens, labels = (
        t.view(-1, side, side).numpy() for t in (graded.batch.tokens, graded.batch.labels)
    )
    for grid, answer, difficulty in zip(tokens, labels, graded.difficulty, strict=True):
        regions, count = cast(tuple[np.ndarray, int], ndimage.label(grid == OPEN))
        edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
        enclosed = set(range(1, count + 1)) - set(edge.tolist())
        assert enclosed
        np.testing.assert_array_equal(answer == FILLED, np.isin(regions, list(enclosed)))
        np.testing.assert_array_equal(answer == IGNORED, grid == WALL)
        assert difficulty == steps_to_know(grid == OPEN)
        assert least <= difficulty <= (most if most is not None else side**2)


def test_what_is_drawn_depends_on_the_generator_alone_and_no_grid_is_in_both_parts():
    regions = Regions(5)
    first, again = (regions.sample(torch.Generator().manual_seed(1), 3000) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.labels, again.labels)
    parts = [
        {tuple(row) for row in tokens.tolist()}
        for tokens in (first.tokens, regions.test(3000).batch.tokens)
    ]
    assert not parts[0] & parts[1]


def test_regions_are_a_source():
    regions = Regions(7)
    assert isinstance(regions, PuzzleSource)
    assert (regions.vocabulary, regions.length, regions.num_puzzles) == (4, 49, 1)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ConfigError, match="side"):
        Regions(4)
    with pytest.raises(ConfigError, match="least"):
        Regions(5, 3, 2)
    with pytest.raises(DataError, match="20 to 25 steps"):
        Regions(5, 20).sample(torch.Generator().manual_seed(0), 1)
