"""ARC as a source of puzzles to train on, and of questions to be judged by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from loopwm.core.settings import settle
from loopwm.errors import ConfigError, DataError
from loopwm.reason.augment import TURNS, Augmentation, codes, unpack
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.grid import COLOURS, END, FIRST_COLOUR, PAD, VOCABULARY, decode
from loopwm.reason.loss import IGNORED
from loopwm.reason.tasks import Task

# The turn, and what each colour became.
_TOLD = 1 + COLOURS


@dataclass(frozen=True)
class ArcConfig:
    """Say how ARC tasks are shown.

    Args:
        side: Rows, and columns, of the canvas, 1 to 30.
        augmentations: Ways K to show each task, at least 1; the first shows it as it is.
        translate: Probability that a training example lies somewhere else than in the first
            corner of its canvas, in [0, 1].
        seed: Seed of the augmentations, not negative.
        told: Whether a puzzle begins with tokens that tell how it is shown: its turn, and what
            each colour became. All augmentations of a task have one puzzle id then, which learns
            of each of them; as published, without it, T tasks have T K ids.
    """

    side: int = 30
    augmentations: int = 1000
    translate: float = 0.7
    seed: int = 0
    told: bool = False

    def __post_init__(self) -> None:
        settle(self)
        if not 1 <= self.side <= 30:
            raise ConfigError(f"side must be in [1, 30], got {self.side}")
        if self.augmentations < 1:
            raise ConfigError(f"augmentations must be at least 1, got {self.augmentations}")
        if not 0 <= self.translate <= 1:
            raise ConfigError(f"translate must be in [0, 1], got {self.translate}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")

    @property
    def head(self) -> int:
        """Return the number of tokens before the canvas: whole rows of it, as many as it takes."""
        return -(-_TOLD // self.side) * self.side if self.told else 0


class Question(NamedTuple):
    """Name a test input that is to be answered in one augmentation.

    Args:
        task: Index of the evaluation task.
        test: Index of its test example.
        k: Index of the augmentation.
    """

    task: int
    test: int
    k: int


class Arc:
    """Draw examples of ARC tasks, augmented on the fly; a `PuzzleSource`.

    Trained on are all examples of the training tasks, and those that the evaluation tasks show.
    A task and an augmentation have one puzzle id, which the examples shown share with the question
    that is asked: what the model learns of a rule, it learns into that id (arXiv 2510.04871). With
    `ArcConfig.told`, which is not published, a task has one.

    Args:
        training: Tasks of which every example is trained on.
        evaluation: Tasks of which the test examples are held out.
        config: How tasks are shown.

    Raises:
        DataError: If there is no task, a name comes twice, or a task does not fit on the canvas.
    """

    def __init__(
        self,
        training: Sequence[Task],
        evaluation: Sequence[Task] = (),
        config: ArcConfig = ArcConfig(),
    ) -> None:
        self.config = config
        self.evaluation = tuple(evaluation)
        self._first = len(training)
        tasks = [*training, *evaluation]
        _check(tasks, config.side)
        shown = [(*task.train, *task.test) for task in training]
        shown += [task.train for task in evaluation]
        pairs = [pair for examples in shown for pair in examples]
        self._inputs = _Canvases.of([pair.input for pair in pairs], config.side)
        self._outputs = _Canvases.of([pair.output for pair in pairs], config.side)
        self._counts = np.array([len(examples) for examples in shown])
        self._starts = np.cumsum(self._counts) - self._counts
        self._codes = np.stack(
            [codes(task.name, config.seed, config.augmentations) for task in tasks]
        )

    @property
    def vocabulary(self) -> int:
        """Return the number V of different tokens."""
        return VOCABULARY + TURNS * self.config.told

    @property
    def length(self) -> int:
        """Return the number S of tokens of a puzzle: what is told, and a canvas."""
        return self.config.head + self.config.side**2

    @property
    def num_puzzles(self) -> int:
        """Return the number N of puzzle ids, one of each task and augmentation, or of each task."""
        return len(self._codes) if self.config.told else self._codes.size

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        """Draw a task, an augmentation and an example, each uniformly, and a place for it.

        Args:
            generator: Source of the draws, on the CPU.
            count: Number of puzzles B.
        """
        draws = torch.rand(6, count, dtype=torch.float64, generator=generator).numpy()
        task = _index(draws[0], len(self._codes))
        k = _index(draws[1], self.config.augmentations)
        pair = self._starts[task] + _index(draws[2], self._counts[task])
        turn, colours = unpack(self._codes[task, k])
        sizes = np.maximum(self._inputs.sizes[pair], self._outputs.sizes[pair])
        sizes[turn % 2 == 1] = sizes[turn % 2 == 1, ::-1]
        # Input and output move together, as far as the larger of them can.
        at = _index(draws[3:5].T, self.config.side - sizes + 1)
        at[draws[5] >= self.config.translate] = 0
        tokens, labels = (
            canvases.show(pair, turn, colours, at) for canvases in (self._inputs, self._outputs)
        )
        labels = np.where(labels == PAD, IGNORED, labels.astype(np.int64))
        return PuzzleBatch(
            tokens=self._headed(tokens, turn, colours),
            # Of what is told, nothing is asked.
            labels=F.pad(torch.from_numpy(labels), (self.config.head, 0), value=IGNORED),
            puzzle_ids=torch.from_numpy(self._ids(task, k)),
        )

    def questions(self, augmentations: int) -> list[Question]:
        """Return the test inputs of the evaluation tasks in their first augmentations.

        Args:
            augmentations: How many of them, at least 1 and at most those that are trained on.

        Raises:
            ConfigError: If the number is out of range.
        """
        if not 1 <= augmentations <= self.config.augmentations:
            raise ConfigError(
                f"augmentations must be in [1, {self.config.augmentations}], the number that "
                f"are trained on, got {augmentations}"
            )
        return [
            Question(task, test, k)
            for k in range(augmentations)
            for task, each in enumerate(self.evaluation)
            for test in range(len(each.test))
        ]

    def ask(self, questions: Sequence[Question]) -> tuple[Int[Tensor, "B S"], Int[Tensor, " B"]]:
        """Return the tokens and puzzle ids of questions; each grid lies in the first corner."""
        inputs = [self.evaluation[q.task].test[q.test].input for q in questions]
        turn, colours = unpack(np.array([self._code(q) for q in questions]))
        canvases = _Canvases.of(inputs, self.config.side)
        at = np.zeros((len(questions), 2), np.int64)
        tokens = canvases.show(np.arange(len(questions)), turn, colours, at)
        task, k = (np.array([getattr(q, name) for q in questions]) for name in ("task", "k"))
        ids = torch.from_numpy(self._ids(self._first + task, k))
        return self._headed(tokens, turn, colours), ids

    def read(self, answer: Int[ndarray, " S"]) -> UInt8[ndarray, "R C"]:
        """Return the grid that an answer holds (see `loopwm.reason.grid.decode`)."""
        return decode(answer[self.config.head :])

    def augmentation(self, question: Question) -> Augmentation:
        """Return how a question is shown."""
        return Augmentation.of(self._code(question))

    def _ids(self, task: Int[ndarray, " B"], k: Int[ndarray, " B"]) -> Int[ndarray, " B"]:
        return task if self.config.told else task * self.config.augmentations + k

    def _headed(
        self,
        canvas: UInt8[ndarray, "B canvas"],
        turn: Int[ndarray, " B"],
        colours: UInt8[ndarray, "B 10"],
    ) -> Int[Tensor, "B S"]:
        """Return the tokens of puzzles: how they are shown where that is told, and the canvas."""
        if not self.config.told:
            return torch.from_numpy(canvas).long()
        told = np.concatenate([VOCABULARY + turn[:, None], FIRST_COLOUR + colours], axis=1)
        head = np.full((len(canvas), self.config.head), PAD, np.int64)
        head[:, :_TOLD] = told
        return torch.from_numpy(np.concatenate([head, canvas], axis=1))

    def _code(self, question: Question) -> int:
        return int(self._codes[self._first + question.task, question.k])


@dataclass(frozen=True, slots=True)
class _Canvases:
    # Of each grid itself and, N further on, of its transpose.
    cells: UInt8[ndarray, "G side side"]
    sizes: Int[ndarray, "G 2"]

    @classmethod
    def of(cls, grids: Sequence[ndarray], side: int) -> "_Canvases":
        grids = [*grids, *(grid.T for grid in grids)]
        cells = np.zeros((len(grids), side, side), np.uint8)
        for canvas, grid in zip(cells, grids, strict=True):
            canvas[: grid.shape[0], : grid.shape[1]] = grid
        return cls(cells, np.array([grid.shape for grid in grids]))

    def show(
        self,
        grid: Int[ndarray, " B"],
        turn: Int[ndarray, " B"],
        colours: UInt8[ndarray, "B 10"],
        at: Int[ndarray, "B 2"],
    ) -> UInt8[ndarray, "B S"]:
        """Encode many grids at once: each cell of the canvas looks up where it comes from."""
        side, rows = self.cells.shape[1], np.arange(len(grid))
        quarters, sideways = turn % 4, turn % 2 == 1
        grid = grid + sideways * (len(self.cells) // 2)
        size = self.sizes[grid][:, :, None]
        along = np.arange(side) - at[:, :, None]
        inside, edge = (along >= 0) & (along < size), along == size
        # A quarter turn is a transpose and a mirror; another mirror before it takes either back.
        mirror = np.stack([np.isin(quarters, (1, 2)), quarters >= 2], axis=1)
        mirror[rows, 1 - sideways] ^= turn >= TURNS // 2
        source = np.where(mirror[:, :, None], size - 1 - along, along).clip(0, side - 1)
        start = grid[:, None, None] * side**2
        cells = self.cells.take(start + source[:, 0, :, None] * side + source[:, 1, None, :])
        palettes = colours + np.uint8(FIRST_COLOUR)
        tokens = palettes.take(cells + rows[:, None, None] * COLOURS)
        down, across = inside[:, 0, :, None], inside[:, 1, None, :]
        tokens *= down & across
        tokens[(edge[:, 0, :, None] & across) | (down & edge[:, 1, None, :])] = END
        return tokens.reshape(len(rows), -1)


def _index(uniform: ndarray, count: int | ndarray) -> Int[ndarray, "..."]:
    return (uniform * count).astype(np.int64)


def _check(tasks: Sequence[Task], side: int) -> None:
    if not tasks:
        raise DataError("ARC needs at least one task, got none")
    names: set[str] = set()
    for task in tasks:
        if task.name in names:
            raise DataError(f"task {task.name!r} comes twice; training and evaluation must differ")
        names.add(task.name)
        if task.side > side:
            raise DataError(
                f"task {task.name!r} needs a canvas of side {task.side}, got side={side}; choose "
                "a larger one, or only tasks that fit (loopwm.reason.tasks.fitting)"
            )
