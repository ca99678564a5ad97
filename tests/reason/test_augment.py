"""Augmentations: invertible, all different, and computed from (task, seed, k) alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loopwm.reason.augment import VARIANTS, Augmentation, code, codes, unpack
from tests.reason.test_grid import GRIDS

CODES = st.integers(0, VARIANTS - 1)


@given(GRIDS, CODES)
def test_undoing_an_augmentation_gives_the_grid_back(grid: np.ndarray, number: int):
    shown = Augmentation.of(number)
    np.testing.assert_array_equal(shown.undo(shown.apply(grid)), grid)
    np.testing.assert_array_equal(shown.apply(shown.undo(grid)), grid)


@given(GRIDS)
def test_the_number_zero_changes_nothing(grid: np.ndarray):
    assert Augmentation.of(0) == Augmentation()
    np.testing.assert_array_equal(Augmentation().apply(grid), grid)


def test_every_number_is_another_turn_or_order_of_the_colours_and_the_background_stays():
    turn, colours = unpack(np.arange(VARIANTS))
    assert (colours[:, 0] == 0).all()
    assert (np.bitwise_or.reduce(1 << colours.astype(np.int64), axis=1) == 2**10 - 1).all()
    # Unpacked in the order of the alphabet: each is another than all before it.
    words = colours.astype(np.int64) @ 10 ** np.arange(9, -1, -1)
    assert (np.diff(words)[np.diff(turn) == 0] > 0).all()
    assert np.unique(turn).tolist() == list(range(8))


def test_the_eight_turns_are_the_symmetries_of_the_square():
    # Each once: what they make of a grid without symmetry is closed under turning and mirroring.
    grid = np.arange(4, dtype=np.uint8).reshape(2, 2)
    seen = {Augmentation(turn).apply(grid).tobytes() for turn in range(8)}
    closed = {
        np.rot90(mirrored, quarters).tobytes()
        for mirrored in (grid, grid.T)
        for quarters in range(4)
    }
    assert seen == closed
    assert len(seen) == 8


@given(st.text(max_size=9), st.integers(0, 2**31), st.integers(1, 300))
def test_one_alone_is_the_same_as_one_of_many(task: str, seed: int, k: int):
    assert code(task, seed, k) == codes(task, seed, k + 1)[k]


def test_the_first_one_shows_the_task_as_it_is():
    assert code("a", 3, 0) == codes("a", 3, 5)[0] == 0


def test_tasks_and_seeds_have_augmentations_of_their_own():
    drawn = [codes(task, seed, 1000)[1:] for task in ("a", "b") for seed in (0, 1)]
    # Of 3996 draws among 2.9 million, about 2.7 pairs are equal by chance.
    assert len(np.unique(np.concatenate(drawn))) > 3980


def test_turns_and_colours_are_drawn_uniformly():
    turn, colours = unpack(np.concatenate([codes(f"{i}", 0, 1000)[1:] for i in range(20)]))
    # 19,980 draws: five standard deviations of a share of 1/8, and of 1/9.
    np.testing.assert_allclose(np.bincount(turn, minlength=8) / len(turn), 1 / 8, atol=0.012)
    shares = (colours[:, 1:, None] == np.arange(1, 10)).mean(0)
    np.testing.assert_allclose(shares, 1 / 9, atol=0.012)
