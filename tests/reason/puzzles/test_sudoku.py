"""Sets of sudokus: as difficult as asked for, no copies, and nothing in both parts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from loopwm.errors import ConfigError, DataError, StoreError
from loopwm.files import write_tree
from loopwm.reason.loss import IGNORED
from loopwm.reason.puzzles.shape import SUDOKU_SHAPES, SudokuShape
from loopwm.reason.puzzles.sudoku import (
    SudokuSet,
    generate,
    hard_sudokus,
    histogram,
    ratings,
)
from loopwm.reason.puzzles.sudoku_source import SudokuPool, SudokuStream
from loopwm.reason.puzzles.symmetry import canonical
from loopwm.reason.source import PuzzleSource

FOUR, SIX, NINE = SUDOKU_SHAPES.values()


def classes_and_forms(puzzles: SudokuSet) -> tuple[set[bytes], set[bytes]]:
    """Return what symmetric copies share: of the solutions, and of the puzzles."""
    solutions, clues = canonical(puzzles.solutions, puzzles.clues, puzzles.shape)
    return {form.tobytes() for form in solutions}, {form.tobytes() for form in clues}


@pytest.mark.parametrize("shape", [SIX, NINE])
def test_no_puzzle_is_a_copy_and_no_solution_is_in_both_parts(shape: SudokuShape):
    train, test = (generate(shape, 40, seed=0, part=part) for part in ("train", "test"))
    (ours, one), (theirs, other) = classes_and_forms(train), classes_and_forms(test)
    assert len(one) == len(other) == 40
    assert not ours & theirs
    for puzzles in (train, test):
        given = puzzles.clues > 0
        np.testing.assert_array_equal(puzzles.clues[given], puzzles.solutions[given])


def test_of_four_digits_no_solution_is_in_both_parts():
    train, test = (generate(FOUR, 20, clues=8, part=part) for part in ("train", "test"))
    solutions = [{s.tobytes() for s in puzzles.solutions} for puzzles in (train, test)]
    assert not solutions[0] & solutions[1]
    assert ((train.clues > 0).sum(1) == 8).all()


def test_threads_do_not_change_the_puzzles_and_seeds_do():
    one, two = (generate(SIX, 30, seed=3, workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(one.clues, two.clues)
    np.testing.assert_array_equal(one.ratings, two.ratings)
    assert not np.array_equal(one.clues, generate(SIX, 30, seed=4).clues)


def test_hard_puzzles_are_as_hard_by_orders_that_did_not_choose_them():
    hard = generate(NINE, 5, seed=0, least=10.0)
    assert (hard.ratings >= 10).all()
    again = ratings(hard.clues, NINE, seed=1, orders=256)
    # Those that seemed harder than they are got in more easily, so the mean is a little lower.
    assert again.mean() > 10
    assert again.mean() == pytest.approx(hard.ratings.mean(), rel=0.35)


@pytest.mark.slow
def test_the_hard_sets_that_ship_are_what_generate_makes():
    train, test = hard_sudokus()
    assert (len(train), len(test)) == (1_000, 500)
    (ours, one), (theirs, other) = classes_and_forms(train), classes_and_forms(test)
    assert (len(one), len(other)) == (1_000, 500)
    assert not ours & theirs
    for made, shipped in (
        (generate(NINE, 2, least=20.0, part="train"), train),
        (generate(NINE, 2, least=20.0, part="test"), test),
    ):
        np.testing.assert_array_equal(shipped.clues[:2], made.clues)
        np.testing.assert_array_equal(shipped.ratings[:2], made.ratings)
        assert shipped.ratings.min() >= 20
        given = shipped.clues > 0
        np.testing.assert_array_equal(shipped.clues[given], shipped.solutions[given])


def test_a_histogram_counts_each_puzzle_once():
    summary = histogram(np.array([0.0, 0.0, 0.5, 7.0, 1e3]))
    counted = dict(zip(summary["from"], summary["count"], strict=True))
    assert counted == {0: 2, 0.01: 1, 1: 0, 2: 0, 5: 1, 10: 0, 20: 0, 30: 0, 50: 0, 100: 1}
    assert summary["p50"] == 0.5


def test_a_set_is_the_same_after_saving(tmp_path: Path):
    puzzles = generate(SudokuShape(3, 2), 5)
    puzzles.save(tmp_path / "set")
    loaded = SudokuSet.load(tmp_path / "set")
    assert loaded.shape == puzzles.shape
    for name in ("clues", "solutions", "ratings"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(puzzles, name))


@pytest.mark.parametrize(("shape", "clues"), [(FOUR, 8), (SIX, 0), (SIX, 14), (NINE, 30)], ids=str)
def test_a_stream_makes_puzzles_with_their_solutions(shape: SudokuShape, clues: int):
    stream = SudokuStream(shape, clues)
    batch = stream.sample(torch.Generator().manual_seed(0), 50)
    assert isinstance(stream, PuzzleSource)
    assert batch.tokens.min() == 1
    assert batch.tokens.max() == stream.vocabulary - 1
    empty = batch.tokens == 1
    assert torch.equal(batch.labels == IGNORED, ~empty)
    if clues:
        assert ((~empty).sum(1) == clues).all()
    whole = torch.where(empty, batch.labels, batch.tokens)
    for unit in shape.units:
        assert torch.equal(
            whole[:, unit].sort(1).values, torch.arange(2, shape.digits + 2).expand(50, -1)
        )


def test_a_stream_depends_on_the_generator_alone_and_never_shows_the_test_part():
    stream = SudokuStream(SIX)
    first, again = (stream.sample(torch.Generator().manual_seed(5), 200) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.labels, again.labels)
    graded = stream.test(30)
    shown, kept = (
        torch.where(batch.tokens == 1, batch.labels, batch.tokens).numpy().astype(np.int8) - 1
        for batch in (first, graded.batch)
    )
    parts = [{f.tobytes() for f in canonical(each, each, SIX)[0]} for each in (shown, kept)]
    assert not parts[0] & parts[1]
    assert len(graded) == len(graded.difficulty) == 30


@pytest.mark.parametrize("symmetries", [True, False])
def test_a_pool_shows_its_puzzles_turned_or_as_they_are(symmetries: bool):
    puzzles = generate(SIX, 20)
    pool = SudokuPool(puzzles, symmetries)
    batch = pool.sample(torch.Generator().manual_seed(0), 300)
    assert isinstance(pool, PuzzleSource)
    clues = batch.tokens.numpy().astype(np.int8) - 1
    solutions = np.where(clues == 0, batch.labels.numpy() - 1, clues).astype(np.int8)
    drawn = SudokuSet(SIX, clues, solutions, np.zeros(300))
    assert classes_and_forms(drawn)[1] == classes_and_forms(puzzles)[1]
    as_they_are = {each.tobytes() for each in puzzles.clues}
    assert all(each.tobytes() in as_they_are for each in clues) == (not symmetries)


def test_another_kind_of_directory_is_no_set_of_sudokus(tmp_path: Path):
    write_tree(tmp_path, {}, {"reasoner": {}})
    with pytest.raises(StoreError, match="holds no set of sudokus"):
        SudokuSet.load(tmp_path)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ConfigError, match="seed must not be negative, got -1"):
        generate(SUDOKU_SHAPES[4], 2, seed=-1)
    with pytest.raises(ConfigError, match="count must be at least 1, got 0"):
        SudokuStream(SUDOKU_SHAPES[4]).sample(torch.Generator(), 0)
    with pytest.raises(ConfigError, match="box_rows=4"):
        SudokuShape(4, 4)
    with pytest.raises(ConfigError, match=r"\[17, 81\], got 16"):
        SudokuStream(NINE, 16)
    with pytest.raises(ConfigError, match="count"):
        generate(NINE, 0)
    with pytest.raises(ConfigError, match="exclude each other"):
        generate(NINE, 1, clues=30, least=5.0)
    with pytest.raises(ConfigError, match="least"):
        generate(NINE, 1, least=-1.0)
    with pytest.raises(ConfigError, match="symmetries=False"):
        SudokuPool(generate(FOUR, 3))
    with pytest.raises(DataError, match="different sudokus"):
        generate(FOUR, 5000)


def test_without_numba_the_reasoner_is_whole_and_sudokus_name_the_extra():
    code = """
import sys
sys.modules["numba"] = None
import loopwm.reason.model, loopwm.reason.poll, loopwm.reason.puzzles.region
try:
    import loopwm.reason.puzzles.sudoku
except ImportError as error:
    print(type(error).__name__, error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert printed.startswith("MissingExtra")
    assert "loopwm[arc]" in printed
