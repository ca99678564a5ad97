"""What a reasoner can be taught, by name: puzzles, sizes and how to train; free of torch."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from loopwm.errors import ConfigError
from loopwm.reason import glyphs
from loopwm.reason.config import TRAINING, Halting, ReasonerConfig
from loopwm.reason.glyphs import Glyphs
from loopwm.reason.presets import preset
from loopwm.train.config import AdamATan2, FitConfig, SignSGD

if TYPE_CHECKING:
    from loopwm.reason.carry import PuzzleBatch
    from loopwm.reason.source import PuzzleSource

HELD_OUT = 500
# Puzzles as they come that stand beside the hard ones, and are learned first.
_EASIER = 1_000


@dataclass(frozen=True)
class Material:
    """Hold the puzzles of a lesson.

    Attributes:
        source: Draws puzzles for training.
        tests: Held-out puzzles by name; the first ones validate. Empty for ARC, whose questions
            are put to the vote (`loopwm.reason.poll`).
    """

    source: "PuzzleSource"
    tests: "dict[str, PuzzleBatch]" = field(default_factory=dict)


@dataclass(frozen=True)
class Lesson:
    """Say what is taught, and how.

    Args:
        about: A sentence for lists.
        model: Sizes of the reasoner.
        look: How its tokens look.
        make: Makes the puzzles; needs the extra `arc`.
        training: How to train.
        halting: When a puzzle leaves its slot.
        is_arc: Whether the puzzles are tasks of ARC.
    """

    about: str
    model: ReasonerConfig
    look: Glyphs
    make: Callable[[], Material]
    training: FitConfig = TRAINING
    halting: Halting = Halting(max_steps=16, rise=0.5)
    is_arc: bool = False


def lesson(name: str) -> Lesson:
    """Return the lesson of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in LESSONS:
        raise ConfigError(f"there is no lesson {name!r}; choose one of {', '.join(LESSONS)}")
    return LESSONS[name]


def _small_sudokus() -> Material:
    from loopwm.reason.kinds import OneKind
    from loopwm.reason.mixture import Mixture
    from loopwm.seed import torch_rng

    names = {"8 clues": 8, "6 clues": 6, "minimal": 0}
    tests = {
        name: OneKind("smaller", clues).sample(torch_rng(0, "lesson", name), HELD_OUT)
        for name, clues in names.items()
    }
    return Material(Mixture([OneKind("larger", clues) for clues in names.values()]), tests)


def _sudokus(digits: int, clues: tuple[int, ...]) -> Material:
    from loopwm.reason.mixture import Mixture
    from loopwm.reason.puzzles.shape import SUDOKU_SHAPES
    from loopwm.reason.puzzles.sudoku_source import SudokuStream

    streams = {each: SudokuStream(SUDOKU_SHAPES[digits], each) for each in clues}
    tests = {
        f"{each} clues" if each else "minimal": stream.test(HELD_OUT).batch
        for each, stream in streams.items()
    }
    return Material(Mixture(tuple(streams.values())), tests)


def _hard_sudokus() -> Material:
    from loopwm.reason.mixture import Mixture
    from loopwm.reason.puzzles.shape import SUDOKU_SHAPES
    from loopwm.reason.puzzles.sudoku import generate, hard_sudokus
    from loopwm.reason.puzzles.sudoku_source import SudokuPool

    hard, asked = hard_sudokus()
    shape = SUDOKU_SHAPES[9]
    easier, usual = generate(shape, _EASIER), generate(shape, HELD_OUT, part="test")
    tests = {"rated 20 and more": asked.batch(), "minimal": usual.batch()}
    return Material(Mixture([SudokuPool(hard), SudokuPool(easier)]), tests)


def _mazes(side: int, least: int, long: int) -> Material:
    from loopwm.reason.puzzles.maze import Mazes

    source, harder = Mazes(side, least), Mazes(side, long)
    tests = {"like training": source.test(HELD_OUT).batch}
    tests[f"{long} steps or more"] = harder.test(HELD_OUT).batch
    return Material(source, tests)


def _regions(side: int, least: int, deep: int) -> Material:
    from loopwm.reason.puzzles.region import Regions

    source, harder = Regions(side, least), Regions(side, deep)
    tests = {"like training": source.test(HELD_OUT).batch}
    tests[f"{deep} steps or more"] = harder.test(HELD_OUT).batch
    return Material(source, tests)


def _arc(side: int, augmentations: int, told: bool = False) -> Material:
    from loopwm.reason.arc import Arc, ArcConfig
    from loopwm.reason.tasks import fitting, load_arc

    training, evaluation = (fitting(tasks, side) for tasks in load_arc(1))
    return Material(Arc(training, evaluation, ArcConfig(side, augmentations, told=told)))


_ARC_TRAINING = replace(TRAINING, updates=20_000, batch_size=64)
_PUBLISHED_TRAINING = replace(
    TRAINING,
    updates=65_000,
    batch_size=768,
    optimizer=AdamATan2(),
    lr=1e-4,
    final_lr=1.0,
    weight_decay=1.0,
)

LESSONS = {
    "sudoku-4x4": Lesson(
        "Sudoku of 4 x 4: 8 clues, 6, and as few as can be; tested on solutions of another kind.",
        preset("sudoku-4x4"),
        glyphs.sudoku(4, 4),
        _small_sudokus,
        replace(TRAINING, updates=400),
        Halting(max_steps=8, rise=0.6),
    ),
    "sudoku-6x6": Lesson(
        "Sudoku of 6 x 6: 18 clues, 14, and as few as can be. Minutes on one core.",
        preset("sudoku-6x6"),
        glyphs.sudoku(6, 6),
        partial(_sudokus, 6, (18, 14, 0)),
        replace(TRAINING, updates=600),
        Halting(max_steps=16, rise=0.6),
    ),
    "sudoku": Lesson(
        "Sudoku of 9 x 9 with as few clues as can be, at the published size. For a GPU.",
        preset("sudoku"),
        glyphs.sudoku(9, 9),
        partial(_sudokus, 9, (0,)),
        # All puzzles share one row, which is published to be trained like any other weight.
        replace(_PUBLISHED_TRAINING, optimizer=AdamATan2(rows=SignSGD(lr=1e-4, weight_decay=1.0))),
        Halting(),
    ),
    "sudoku-hard": Lesson(
        "Sudoku of 9 x 9 where guessing goes wrong 20 times and more, beside easier ones. Minutes "
        "on a GPU.",
        preset("sudoku-hard"),
        glyphs.sudoku(9, 9),
        _hard_sudokus,
        replace(TRAINING, updates=12_000, batch_size=384, validate_every=2_000),
        Halting(max_steps=16, rise=0.3),
    ),
    "maze-9": Lesson(
        "Mazes of 9 x 9, paths of 10 steps and more. Under an hour on one core.",
        preset("maze-9"),
        glyphs.maze(9),
        partial(_mazes, 9, 10, 24),
        replace(TRAINING, updates=3_000, batch_size=64),
    ),
    "region-10": Lesson(
        "Enclosed regions of 10 x 10 to fill, 6 steps from the edge and more.",
        preset("region-10"),
        glyphs.region(10),
        partial(_regions, 10, 6, 10),
        replace(TRAINING, updates=4_000, batch_size=64),
    ),
    "arc-12": Lesson(
        "ARC-AGI-1, the tasks that fit on a canvas of 12 x 12.",
        preset("arc-12"),
        glyphs.arc(12),
        partial(_arc, 12, 100),
        _ARC_TRAINING,
        is_arc=True,
    ),
    "arc-12-wide": Lesson(
        "ARC-AGI-1, the tasks that fit on a canvas of 12 x 12, by a wider reasoner that is told "
        "how each is shown. For a GPU.",
        preset("arc-12-wide"),
        glyphs.arc(12, told=True),
        partial(_arc, 12, 1_000, told=True),
        replace(_ARC_TRAINING, updates=8_000, batch_size=512),
        is_arc=True,
    ),
    "arc-16": Lesson(
        "ARC-AGI-1, the tasks that fit on a canvas of 16 x 16.",
        preset("arc-16"),
        glyphs.arc(16),
        partial(_arc, 16, 100),
        _ARC_TRAINING,
        is_arc=True,
    ),
    "arc": Lesson(
        "ARC-AGI-1 at the published size. For GPUs.",
        preset("arc"),
        glyphs.arc(30),
        partial(_arc, 30, 1000),
        replace(_PUBLISHED_TRAINING, updates=500_000, weight_decay=0.1),
        Halting(),
        is_arc=True,
    ),
}
