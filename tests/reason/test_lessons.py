"""Lessons: their puzzles fit their reasoners, their looks fit their tokens."""

import pytest
import torch

from loopwm.errors import ConfigError, DataError
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.check import check_puzzles
from loopwm.reason.glyphs import Glyphs, arc, maze, region, sudoku
from loopwm.reason.kinds import OneKind
from loopwm.reason.lessons import LESSONS, lesson
from loopwm.reason.mixture import Mixture
from loopwm.reason.puzzles.shape import SUDOKU_SHAPES
from loopwm.train.config import AdamATan2, SignSGD
from tests.reason.echo import Reversed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", LESSONS)
def test_the_look_of_a_lesson_has_a_symbol_for_each_token(name: str):
    taught = LESSONS[name]
    assert len(taught.look.symbols) == taught.model.vocabulary
    # One row more where something is told, which takes the symbols of turns.
    told = taught.look.columns * ("h" in taught.look.symbols)
    assert taught.look.columns**2 + told == taught.model.length


@pytest.mark.parametrize("name", ["sudoku-4x4", "maze-9", "region-10"])
def test_the_puzzles_of_a_lesson_fit_its_reasoner(name: str):
    taught = lesson(name)
    material = taught.make()
    config = taught.model
    source = material.source
    assert (source.vocabulary, source.length) == (config.vocabulary, config.length)
    drawn = source.sample(generator(), 20)
    for puzzles in (drawn, *material.tests.values()):
        check_puzzles(puzzles, config)
        blank, asked = puzzles.tokens == taught.look.blank, puzzles.labels >= 0
        # What is asked for is what is blank.
        assert torch.equal(blank, asked)
    seen = {tuple(row) for row in drawn.tokens.tolist()}
    held = {tuple(row) for each in material.tests.values() for row in each.tokens.tolist()}
    assert not seen & held


def test_there_is_a_line_for_a_lesson_that_does_not_exist():
    with pytest.raises(ConfigError, match="there is no lesson 'chess'; choose one of sudoku-4x4"):
        lesson("chess")


def test_rows_of_puzzles_are_trained_as_published():
    # The reference's puzzle_emb_lr and puzzle_emb_weight_decay of Sudoku and of ARC.
    rates = {"sudoku": SignSGD(lr=1e-4, weight_decay=1.0), "arc": SignSGD(1e-2, 0.1)}
    for name, rows in rates.items():
        assert lesson(name).training.optimizer == AdamATan2(rows=rows)


def solutions(kind, count: int) -> set[tuple[int, ...]]:
    puzzles = OneKind(kind, clues=8).sample(generator(), count)
    assert len(puzzles) == count
    whole = torch.where(puzzles.labels < 0, puzzles.tokens, puzzles.labels) - 1
    return {tuple(row) for row in whole.tolist()}


def test_the_two_kinds_of_small_sudokus_share_no_solution_up_to_symmetry():
    larger, smaller = solutions("larger", 600), solutions("smaller", 600)
    assert not larger & smaller
    # 192 and 96 in all, of which a part is kept for testing elsewhere.
    assert 96 < len(larger) <= 192
    assert len(smaller) <= 96
    shape = SUDOKU_SHAPES[4]
    for grid in larger | smaller:
        assert all(sorted(grid[cell] for cell in unit) == [1, 2, 3, 4] for unit in shape.units)
    # Of the smaller kind, by an invariant of symmetry: bands and stacks pair the same digits.
    assert len({pairs(grid) for grid in smaller}) == 1
    assert pairs(next(iter(smaller))) not in {pairs(grid) for grid in larger}


def pairs(grid: tuple[int, ...]) -> int:
    """Count the pairs of rows, or of columns, that are split into the same two pairs of digits."""
    rows = [grid[4 * k : 4 * k + 4] for k in range(4)]
    columns = [grid[k::4] for k in range(4)]
    total = 0
    for lines in (rows, columns):
        halves = [frozenset({frozenset(line[:2]), frozenset(line[2:])}) for line in lines]
        total += sum(halves[a] == halves[b] for a in range(4) for b in range(a))
    return total


class Constant(Reversed):
    """Draw puzzles that say which source they are of, and how many came before them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        batch = super().sample(generator, count)
        return PuzzleBatch(
            tokens=torch.full_like(batch.tokens, self.value),
            labels=torch.arange(count)[:, None].expand(-1, 3),
            puzzle_ids=batch.puzzle_ids,
        )


def test_a_mixture_draws_from_each_source_alike_and_in_its_order():
    mixture = Mixture([Constant(0), Constant(1), Constant(2)])
    drawn = mixture.sample(generator(), 3_000)
    shares = torch.bincount(drawn.tokens[:, 0], minlength=3) / 3_000
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    for value in range(3):
        of_one = drawn.labels[drawn.tokens[:, 0] == value, 0]
        assert of_one.tolist() == list(range(len(of_one)))
    again = mixture.sample(generator(), 3_000)
    assert torch.equal(drawn.tokens, again.tokens)
    assert len(mixture.sample(generator(), 1)) == 1


def test_sources_of_different_sizes_do_not_mix():
    class Longer(Reversed):
        length = 4

    with pytest.raises(ConfigError, match="one vocabulary, length and number of puzzles"):
        Mixture([Reversed(), Longer()])
    with pytest.raises(ConfigError, match="a mixture needs sources"):
        Mixture([])


@pytest.mark.parametrize("look", [sudoku(4, 4), maze(4), region(4), arc(4)])
def test_what_is_written_can_be_read(look: Glyphs):
    # Where cells are asked for there is no padding.
    first = 0 if look.blank is None else 1
    tokens = [first + k % (len(look.symbols) - first) for k in range(16)]
    text = look.write(tokens)
    assert [len(line) for line in text.splitlines()] == [4] * 4
    assert look.read(text, 16) == tokens


def test_empty_cells_may_be_written_in_other_ways():
    assert sudoku(4, 2).read("1_ 0.", 4) == [2, 1, 1, 1]
    assert sudoku(4, 2).read("1-2-", 4) == [2, 1, 3, 1]
    assert maze(2).read("-#SG", 4) == [2, 1, 3, 4]
    assert region(2).read("-#0_", 4) == [2, 1, 2, 2]
    # Of ARC, 0 is a colour.
    assert arc(2).read("00", 2) == [2, 2]
    assert arc(2).read("-|", 2) == [0, 1]


def test_given_cells_stay_as_they_are():
    look = sudoku(4, 2)
    assert look.filled([1, 3, 1, 4], [2, 2, 2, 2]) == [2, 3, 2, 4]
    assert arc(2).filled([1, 3, 1, 4], [2, 2, 2, 2]) == [2, 2, 2, 2]


def test_what_is_no_puzzle_is_refused():
    look = sudoku(4, 4)
    with pytest.raises(DataError, match="'x' is no symbol"):
        look.read("x" * 16, 16)
    with pytest.raises(DataError, match="the puzzle has 3 cells, and must have 16"):
        look.read("123", 16)
    with pytest.raises(ConfigError, match="all different"):
        Glyphs("aa", ("#000000",) * 2, 1)
    with pytest.raises(ConfigError, match="a colour for each of 2 symbols"):
        Glyphs("ab", ("#000000",), 1)
    with pytest.raises(ConfigError, match="columns must be at least 1"):
        Glyphs("a", ("#000000",), 0)
