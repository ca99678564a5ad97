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


def _sudokus(digits: int, clues: tuple[int, ...]) -> Material:
    from loopwm.reason.mixture import Mixture
    from loopwm.reason.puzzles.shape import SUDOKU_SHAPES
    from loopwm.reason.puzzles.sudoku_source import SudokuStream

    streams = {each: SudokuStream(SUDOKU_SHAPES[digits], each) for each in clues}
    tests = {
        f"{each} clues" if each else "minimal": stream.test(HELD_OUT).batch()
        for each, stream in streams.items()
    }
    return Material(Mixture(tuple(streams.values())), tests)


def _arc(side: int, augmentations: int) -> Material:
    from loopwm.reason.arc import Arc, ArcConfig
    from loopwm.reason.tasks import fitting, load_arc

    training, evaluation = (fitting(tasks, side) for tasks in load_arc(1))
    return Material(Arc(training, evaluation, ArcConfig(side, augmentations)))


_ARC_TRAINING = replace(
    TRAINING,
    updates=20_000,
    batch_size=64,
    optimizer=AdamATan2(rows=SignSGD(lr=1e-2)),
)
_PUBLISHED_TRAINING = replace(
    TRAINING, updates=65_000, batch_size=768, lr=1e-4, final_lr=1.0, weight_decay=1.0
)

LESSONS = {
    "sudoku-4x4": Lesson(
        "Sudoku of 4 x 4: 8 clues, 6, and as few as can be. Minutes on one core.",
        preset("sudoku-4x4"),
        glyphs.sudoku(4, 4),
        partial(_sudokus, 4, (8, 6, 0)),
        replace(TRAINING, updates=1_200),
        Halting(max_steps=8, rise=0.6),
    ),
    "sudoku-6x6": Lesson(
        "Sudoku of 6 x 6: 18 clues, 14, and as few as can be. Hours on one core.",
        preset("sudoku-6x6"),
        glyphs.sudoku(6, 6),
        partial(_sudokus, 6, (18, 14, 0)),
        replace(TRAINING, updates=20_000),
    ),
    "sudoku": Lesson(
        "Sudoku of 9 x 9 with as few clues as can be, at the published size. For a GPU.",
        preset("sudoku"),
        glyphs.sudoku(9, 9),
        partial(_sudokus, 9, (0,)),
        _PUBLISHED_TRAINING,
        Halting(),
    ),
    "arc-12": Lesson(
        "ARC-AGI-1, the tasks that fit on a canvas of 12 x 12.",
        preset("arc-12"),
        glyphs.arc(12),
        partial(_arc, 12, 100),
        _ARC_TRAINING,
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
