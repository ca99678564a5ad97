"""What ten minutes of one GPU teach: hard sudokus, ARC on a small canvas."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from loopwm.core.count import parameters
from loopwm.reason.answer import Noise
from loopwm.reason.arc import Arc
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.evaluate import Share, accuracy, exact
from loopwm.reason.fit import on_device
from loopwm.reason.lessons import HELD_OUT, Lesson, Material, lesson
from loopwm.reason.model import Reasoner
from loopwm.reason.stored import save
from loopwm.reason.teach import teach
from loopwm.reason.vote import Tally
from loopwm.study.cells import run_cells
from loopwm.study.plateau import training_seconds
from loopwm.study.reasoner.tables import doublings, percent, polled, ratings_sheet, votes_sheet
from loopwm.study.reasoner.trainings import puzzles_seen, version_of
from loopwm.study.recipe import Computed, Options, Recipe
from loopwm.study.results import Column, Sheet

STEPS, TRIES = 64, 8
# In so many of the ways that a task is trained in, it is asked.
VIEWS = 100
_METHOD = (
    "Trained in bf16 with `torch.compile` on the GPU that the table names, and asked in bf16; "
    "minutes are those of training, validation, and compiling where no earlier run had done it."
)


@dataclass(frozen=True)
class GpuCell:
    """Name one training on a GPU.

    Attributes:
        lesson: What is taught.
        updates: Gradient updates.
        batch: Puzzles in flight.
        seed: Seed of weights and puzzles.
    """

    lesson: str
    updates: int
    batch: int
    seed: int = 0

    @property
    def name(self) -> str:
        """Return the name, also that of its file."""
        settings = version_of(self.taught, TRIES, VIEWS)
        return f"{self.lesson}-gpu-u{self.updates}-b{self.batch}-s{self.seed}-{settings}"

    @property
    def taught(self) -> Lesson:
        """Return the lesson as it is taught there."""
        taught = lesson(self.lesson)
        training = replace(
            taught.training,
            **{"updates": self.updates, "batch_size": self.batch, "seed": self.seed},
            **{"device": "cuda", "precision": "bf16", "compiled": True, "progress": False},
            validate_every=max(1, self.updates // 6),
        )
        return replace(taught, training=training)


# (model, material) -> numbers of the cell.
Judge = Callable[[Reasoner, Material], dict[str, Any]]


def compute(folder: Path, judge: Judge, cell: GpuCell) -> dict[str, Any]:
    """Train and judge one cell; its run is kept below `folder` and goes on after a stop.

    Args:
        folder: Where runs, and the reasoners themselves, are kept.
        judge: Measures the reasoner.
        cell: What to train.
    """
    taught = cell.taught
    material = taught.make()
    model = teach(taught, material, folder / cell.name)
    model.lesson = cell.lesson
    save(model, folder / "models" / cell.name)
    with torch.autocast(taught.training.device, torch.bfloat16):
        judged = judge(model, material)
    return {
        "updates": cell.updates,
        "batch": cell.batch,
        "seed": cell.seed,
        "parameters": parameters(model) - model.config.puzzles * model.config.puzzle_width,
        "puzzles": puzzles_seen(model.history),
        "minutes": training_seconds(model.history) / 60,
        "device": torch.cuda.get_device_name(0),
        **judged,
    }


def by_step(model: Reasoner, material: Material) -> dict[str, Any]:
    """Count right answers after each step, and with the surest of several tries.

    Args:
        model: Who is asked.
        material: Its tests are the questions.
    """
    device, found = model.decode.weight.device, {}
    for name, puzzles in material.tests.items():
        asked = on_device(puzzles, device)
        noisy = accuracy(model, asked, steps=16, noise=Noise(samples=TRIES))
        found[name] = {
            "number": len(asked),
            "right": exact(model, asked, steps=STEPS).sum(1).tolist(),
            "noisy": noisy.exact.right,
            **_verdict(model, asked),
        }
    return {"tests": found}


def _verdict(model: Reasoner, puzzles: PuzzleBatch) -> dict[str, int]:
    score = accuracy(model, puzzles, steps=16)
    return {"taken": score.taken.right, "agreed": score.agreed.right}


def votes(model: Reasoner, material: Material) -> dict[str, Any]:
    """Ask the evaluation tasks in many augmentations, and keep the votes.

    Args:
        model: Who is asked.
        material: Its source is ARC.
    """
    arc = _arc(material)
    return {"tally": polled(model, arc, arc.questions(VIEWS), 16).to_json()}


def _arc(material: Material) -> Arc:
    assert isinstance(material.source, Arc)
    return material.source


def sudokus(cells: Sequence[GpuCell], options: Options) -> Computed:
    """Train on hard sudokus and make the tables.

    Args:
        cells: The trainings.
        options: Where and how.
    """
    from loopwm.reason.puzzles.sudoku import generate, hard_sudokus

    found = _found(cells, by_step, options)
    hard, asked = hard_sudokus()
    usual = generate(hard.shape, HELD_OUT, part="test")
    sets = {"trained on": hard, "rated 20 and more": asked, "minimal": usual}
    sheets = [
        *(_test_sheet(test, found) for test in found[0]["tests"]),
        _cost_sheet(found),
        ratings_sheet({name: each.ratings for name, each in sets.items()}),
    ]
    if options.figures is not None:
        _draw(found, options.figures)
    method = (
        _METHOD,
        "Right is an answer with every cell right; 500 held-out puzzles each, whose solutions no "
        "symmetry makes of those trained on; in percent with 95% intervals. "
        f"Noise: {TRIES} tries of 16 steps, of which the one that the model is surest of.",
        "The rating of a puzzle is how often a solver that knows naked and hidden singles guesses "
        "wrong, over random orders. Beside those trained on stand as many minimal puzzles as they "
        "come. No two puzzles are the same up to symmetry, and training and test have no solution "
        "in common up to it.",
    )
    return sorted({cell.seed for cell in cells}), method, tuple(sheets)


def _draw(found: Sequence[Mapping[str, Any]], folder: Path) -> None:
    from loopwm.study.reasoner.drawing import draw_steps

    by_test = {
        test: [
            [right / each["tests"][test]["number"] for right in each["tests"][test]["right"]]
            for each in found
        ]
        for test in found[0]["tests"]
    }
    draw_steps(folder / "sudoku-9x9.png", by_test, "9 x 9: held-out puzzles")


def canvas(cells: Sequence[GpuCell], options: Options) -> Computed:
    """Train on the tasks of ARC that fit on a small canvas, and make the tables.

    Args:
        cells: The trainings, of one lesson.
        options: Where and how.
    """
    found = _found(cells, votes, options)
    arc = _arc(cells[0].taught.make())
    tallies = [Tally.from_json(each["tally"]) for each in found]
    sheets = (votes_sheet(arc.evaluation, tallies, VIEWS), _cost_sheet(found))
    method = (
        _METHOD,
        "Trained on all examples of the training tasks of ARC-AGI-1 that fit on the canvas, and on "
        "those that the evaluation tasks show. A row of tokens before the canvas tells how a "
        "puzzle is turned and coloured, so that a task has one id and not one for each "
        "augmentation. The first three numbers are those of the last seed alone; the fourth is the "
        "vote of all.",
    )
    return [cell.seed for cell in cells], method, sheets


def _found(cells: Sequence[GpuCell], judge: Judge, options: Options) -> list[dict[str, Any]]:
    folder = options.work / "reason"
    job = partial(compute, folder / "gpu", judge)
    return list(run_cells(cells, folder / "cells", job, options.report).values())


def _test_sheet(test: str, found: Sequence[Mapping[str, Any]]) -> Sheet:
    shown = doublings(STEPS)
    rows = []
    for each in found:
        asked = each["tests"][test]
        count = asked["number"]
        row: dict[str, Any] = {"seed": each["seed"]}
        row |= {f"at_{k}": percent(Share(asked["right"][k - 1], count)) for k in shown}
        row |= {key: percent(Share(asked[key], count)) for key in ("noisy", "taken", "agreed")}
        rows.append(row)
    columns = (
        Column("seed"),
        *(Column(f"at_{k}", f"{k} steps" if k > 1 else "1 step") for k in shown),
        Column("noisy", "with noise"),
        Column("taken", "taken for right"),
        Column("agreed", "verdict true"),
    )
    return Sheet(f"{test}: right after so many steps", columns, tuple(rows))


def _cost_sheet(found: Sequence[Mapping[str, Any]]) -> Sheet:
    keys = ("seed", "parameters", "updates", "batch", "puzzles", "minutes", "device")
    named = {"puzzles": "puzzles seen", "batch": "puzzles in flight"}
    columns = tuple(Column(key, named.get(key, key)) for key in keys)
    return Sheet("what it took", columns, tuple({key: each[key] for key in keys} for each in found))


RECIPES = {
    "arc-sudoku9": Recipe(
        "Hard sudokus of 9 x 9 on one GPU",
        "How many sudokus that need guessing does a small reasoner learn in minutes?",
        62,
        partial(sudokus, (GpuCell("sudoku-hard", 12_000, 384),)),
    ),
    "arc-canvas12": Recipe(
        "ARC-AGI-1 on a canvas of 12 x 12, on one GPU",
        "What do minutes teach of the tasks that are small enough?",
        63,
        partial(
            canvas,
            (
                *(GpuCell("arc-12-wide", 1_250, 512, seed) for seed in (0, 1, 2)),
                GpuCell("arc-12-wide", 4_250, 512, 3),
            ),
        ),
    ),
}
