"""Reasoners trained with and without recursion: shares of right answers by step, over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from loopwm.core.count import matmul_flops, parameters
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.config import ReasonerConfig
from loopwm.reason.evaluate import exact
from loopwm.reason.lessons import HELD_OUT, Lesson, lesson
from loopwm.reason.model import Reasoner
from loopwm.reason.teach import teach
from loopwm.study.cells import run_cells, version
from loopwm.study.plateau import training_seconds
from loopwm.study.reasoner.tables import doublings
from loopwm.study.recipe import Computed, Options, Recipe
from loopwm.study.results import Column, Sheet
from loopwm.train.log import Record

SEEDS = (0, 1, 2)
STEPS = 16
ARMS = {
    "looped": "looped",
    "once": "one pass, same weights",
    "untied": "untied blocks, same FLOPs an update",
}

_METHOD = (
    "Right is an answer with every cell right; held-out puzzles, mean over seeds [lowest, highest] "
    "in percent. Every model is asked for up to 16 steps, those trained on one step too.",
    "`looped` spends up to the lesson's most steps on a puzzle, doubling from 1 in the course of "
    "training. `one pass` has the same parameters, applies them once to think and once to answer, "
    "and sees each puzzle for one step: it is trained for as many updates, and so on more puzzles. "
    "`untied` is a stack of different blocks, as many "
    "as a step of the looped model applies, trained like the one pass.",
    "FLOPs are those of matrix products of one step of thought on one puzzle, forward alone; "
    "seconds those of training on one thread of a shared machine, validation included.",
)


@dataclass(frozen=True)
class ReasonerCell:
    """Name one training.

    Attributes:
        lesson: What is taught.
        arm: One of `ARMS`.
        seed: Seed of weights and puzzles.
        updates: Gradient updates.
    """

    lesson: str
    arm: str
    seed: int
    updates: int

    @property
    def name(self) -> str:
        """Return the name, also that of its file."""
        return f"{self.lesson}-{self.arm}-u{self.updates}-s{self.seed}-{version_of(self.taught)}"

    @property
    def taught(self) -> Lesson:
        """Return the lesson as this arm takes it."""
        taught = lesson(self.lesson)
        training = replace(
            taught.training, updates=self.updates, seed=self.seed, device="cpu", progress=False
        )
        taught = replace(taught, training=training)
        if self.arm == "looped":
            return taught
        taught = replace(taught, halting=replace(taught.halting, max_steps=1))
        if self.arm == "once":
            return replace(taught, model=replace(taught.model, cycles=1, inner=1))
        return replace(taught, model=_untied(taught.model))


def version_of(taught: Lesson, *measured: int) -> str:
    """Return a checksum of the model that a lesson teaches, how, and of what is measured."""
    how = (repr(taught.model), repr(taught.halting), taught.training.fingerprint())
    return version(*how, HELD_OUT, STEPS, *measured)


def _untied(model: ReasonerConfig) -> ReasonerConfig:
    """Return a stack of as many blocks as a step of the looped model applies."""
    blocks = model.cell.layers * model.cycles * (model.inner + 1)
    return replace(model, cell=replace(model.cell, layers=blocks), cycles=1, inner=0)


def compute(folder: Path, threads: int, cell: ReasonerCell) -> dict[str, Any]:
    """Train and measure one cell; its run is kept below `folder` and goes on after a stop."""
    taught = cell.taught
    material = taught.make()
    taught = replace(taught, training=replace(taught.training, threads=threads))
    model = teach(taught, material, folder / cell.name)
    return {
        "arm": cell.arm,
        "seed": cell.seed,
        "right": {name: _by_step(model, puzzles) for name, puzzles in material.tests.items()},
        "numbers": {name: len(puzzles) for name, puzzles in material.tests.items()},
        "parameters": parameters(model),
        "flops": _flops_of_step(model),
        "puzzles": puzzles_seen(model.history),
        "seconds": training_seconds(model.history),
    }


def study(name: str, arms: Sequence[str], updates: int, options: Options) -> Computed:
    """Train all arms over all seeds and make their tables.

    Args:
        name: The lesson.
        arms: Some of `ARMS`.
        updates: Gradient updates of each training.
        options: Where and how.
    """
    cells = [ReasonerCell(name, arm, seed, updates) for seed in SEEDS for arm in arms]
    folder = options.work / "reason"
    found = run_cells(
        cells, folder / "cells", partial(compute, folder / "runs", options.threads), options.report
    )
    if options.figures is not None:
        _draw(name, list(found.values()), options.figures)
    return SEEDS, _METHOD, tuple(sheets(list(found.values())))


def _draw(name: str, results: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Draw the answers to the hardest of the held-out puzzles, which are the last."""
    from loopwm.study.reasoner.drawing import draw_steps

    test, count = list(results[0]["numbers"].items())[-1]
    by_name = {
        ARMS[arm]: [each["right"][test] for each in of_arm]
        for arm, of_arm in _by_arm(results).items()
    }
    draw_steps(folder / f"{name}.png", by_name, f"{name}, {test}: {count} held-out puzzles")


def _by_arm(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    arms = [arm for arm in ARMS if any(each["arm"] == arm for each in results)]
    return {arm: [each for each in results if each["arm"] == arm] for arm in arms}


def sheets(results: Sequence[Mapping[str, Any]]) -> list[Sheet]:
    """Make the tables: right answers by step for each kind of puzzle, and what training cost.

    Args:
        results: What `compute` returned of each cell.
    """
    by_arm = _by_arm(results)
    tests = results[0]["numbers"]
    made = [
        _step_sheet(f"{test}: {count} held-out puzzles, right after so many steps", test, by_arm)
        for test, count in tests.items()
    ]
    rows = [
        {
            "arm": ARMS[arm],
            **{key: _spread([float(each[key]) for each in of_arm]) for key in _COSTS},
        }
        for arm, of_arm in by_arm.items()
    ]
    columns = (Column("arm", "model"), *(Column(key, label) for key, label in _COSTS.items()))
    return [*made, Sheet("what it took", columns, tuple(rows))]


_COSTS = {
    "parameters": "parameters",
    "flops": "FLOPs a step",
    "puzzles": "puzzles seen",
    "seconds": "seconds",
}


def _step_sheet(title: str, test: str, by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> Sheet:
    shown = doublings(STEPS)
    rows = []
    for arm, of_arm in by_arm.items():
        row: dict[str, Any] = {"arm": ARMS[arm], "seeds": len(of_arm)}
        for step in shown:
            row[f"at_{step}"] = _spread([100 * each["right"][test][step - 1] for each in of_arm])
        rows.append(row)
    columns = (
        Column("arm", "model"),
        Column("seeds"),
        *(Column(f"at_{step}", f"{step} steps" if step > 1 else "1 step") for step in shown),
    )
    return Sheet(title, columns, tuple(rows))


def _by_step(model: Reasoner, puzzles: PuzzleBatch) -> list[float]:
    return exact(model, puzzles, steps=STEPS).double().mean(1).tolist()


def _flops_of_step(model: Reasoner) -> int:
    tokens = torch.zeros(1, model.config.length, dtype=torch.long)
    return matmul_flops(lambda: model.step(model.start(tokens), tokens))


def puzzles_seen(records: Sequence[Record]) -> int:
    """Count the puzzles of a training from its records, each a mean over the updates before it.

    Args:
        records: `Reasoner.history`.
    """
    total, before = 0.0, 0
    for record in records:
        if "new" in record:
            update = int(record["update"] or 0)
            total += (record["new"] or 0.0) * (update - before)
            before = update
    return round(total)


def _spread(values: Sequence[float]) -> list[float]:
    return [sum(values) / len(values), min(values), max(values)]


RECIPES = {
    "arc-sudoku4": Recipe(
        "Sudoku of 4 x 4: what minutes on one core teach",
        "Does a small reasoner learn sudoku, tested on solutions that no symmetry makes of those "
        "that it was trained on?",
        60,
        partial(study, "sudoku-4x4", ("looped", "once"), 400),
    ),
    "arc-depth": Recipe(
        "A puzzle that needs depth: sudoku of 6 x 6",
        "Does recursion reach what one pass of the same weights does not?",
        61,
        partial(study, "sudoku-6x6", tuple(ARMS), 600),
    ),
}
