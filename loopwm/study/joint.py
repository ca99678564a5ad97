"""One core for both domains against a core for each, at equal updates: gain or loss of both."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwm.core.config import Attend, PostNorm
from loopwm.seed import torch_rng
from loopwm.stats import bootstrap
from loopwm.study.cells import run_cells, version
from loopwm.study.comparison import Group, group_cells, over_seeds, spread
from loopwm.study.datasets import Experience, Split, study_data
from loopwm.study.paired import error_ratio
from loopwm.study.recipe import DATA, HORIZONS, UNITS, Computed, Options
from loopwm.study.results import Column, Sheet
from loopwm.study.windows import Sampling
from loopwm.train.config import FitConfig

if TYPE_CHECKING:
    from loopwm.joint import Puzzles
    from loopwm.reason.carry import PuzzleBatch

ARMS = {
    "joint": "one core for both",
    "world": "a core of its own",
    "puzzles": "a core of its own",
}
SEEDS = (0, 1, 2)
CORE = PostNorm(Attend(heads=4, theta=1e4), multiple=32)
WIDTH, CLUES, TEST = 64, 8, 1_000
SHOWN = (1, 2, 4, 8)  # steps of thought
STEPS = SHOWN[-1]

_METHOD = (
    "A world model of Hopper and a reasoner of 4 x 4 sudokus. Joint: one cell, the same "
    "tensors in both loops; every update takes a batch of each and steps by the gradient of "
    "the sum of both losses. Alone: the same model, updates, batches, optimiser and schedule, with "
    "a cell of its own. So each domain is seen as often in both; what differs is the sharing, and "
    "that two cells hold twice as many weights.",
    "The cell is TRM's: two blocks of attention and gated layers with normalised sums. The world "
    "model's state is one token, which attends to its own value alone; queries and keys, 15% of "
    "the cell, serve the reasoner only. Shares are of all parameters but the tables of tokens "
    "and puzzles.",
    f"Puzzles have {CLUES} clues. Tested are {TEST:,} whose solutions no symmetry leads to from "
    "those of training; an answer counts if every cell is right. Sharing is called a gain or a "
    "loss where the whole interval and every seed say so.",
)


@dataclass(frozen=True)
class JointCell:
    """Say what one run trains.

    Attributes:
        arm: "joint", "world" or "puzzles".
        seed: Seed of weights and batches.
        task: Gymnasium id of the world.
        rows: Transitions of training and validation together.
        updates: Gradient updates.
        batch: Windows of an update.
        slots: Puzzles of an update.
        lr: Peak learning rate.
    """

    arm: str
    seed: int = 0
    task: str = "Hopper-v5"
    rows: int = 100_000
    updates: int = 1_500
    batch: int = 128
    slots: int = 64
    lr: float = 5e-3

    @property
    def name(self) -> str:
        """Name the cell by all that it depends on."""
        sizes = f"n{self.rows}_u{self.updates}_b{self.batch}_s{self.slots}_lr{self.lr:g}"
        measured = (CLUES, TEST, STEPS, HORIZONS)
        built = version(repr(CORE), WIDTH, measured, _fit_config(self, 1).fingerprint())
        return f"joint_{self.arm}_{self.task}_seed{self.seed}_{sizes}_{built}"


def joint(task: str, options: Options) -> Computed:
    """Compare joint with separate training."""
    cells = [JointCell(arm, seed, task) for seed in SEEDS for arm in ARMS]
    folder = options.work / "cells"
    found = run_cells(cells, folder, lambda cell: run_joint(cell, options), options.report)
    base = cells[0]
    method = (
        f"{base.rows:,} transitions, {base.updates:,} updates of {base.batch} windows of 4 steps "
        f"and {base.slots} puzzles, learning rate {base.lr:g} for all, Muon.",
        *(DATA, UNITS),
    )
    return SEEDS, (*_METHOD, *method), tuple(sheets(found))


def run_joint(cell: JointCell, options: Options) -> dict[str, Any]:
    """Train and evaluate one cell; a training run that was stopped goes on where it was.

    Args:
        cell: What to train.
        options: Where the data and the checkpoints are kept, and CPU threads.
    """
    data = study_data(Experience(cell.task, cell.rows), options.work / "data")
    run_dir = options.work / "running" / cell.name
    found = train(cell, data, run_dir, options.threads)
    shutil.rmtree(run_dir, ignore_errors=True)
    return {"cell": asdict(cell), "label": ARMS[cell.arm], **found}


def train(cell: JointCell, data: Split, run_dir: Path | None, threads: int = 1) -> dict[str, Any]:
    """Train what a cell says, and measure it on the test set, as JSON values.

    Args:
        cell: What to train.
        data: Experience.
        run_dir: Where checkpoints go, or None.
        threads: CPU threads.
    """
    import loopwm.joint as pairs
    from loopwm.core.count import parameters
    from loopwm.reason import fit as puzzling
    from loopwm.world import fit as worlds

    puzzles, tested = sudokus(cell)
    config = _fit_config(cell, threads)
    world, reasoner, shared = None, None, {}
    match cell.arm:
        case "joint":
            pair = pairs.fit(data.train, puzzles, None, config, run_dir=run_dir, valid=data.held)
            world, reasoner = pair.world, pair.reasoner
            shared = {
                name: {"share": share, "parameters": parameters(model)}
                for (name, share), model in zip(
                    pair.shares().items(), (world, reasoner), strict=True
                )
            }
        case "world":
            alone = pairs.world_of(puzzles.config)
            world = worlds.course(data.train, alone, config, valid=data.held).take(config, run_dir)
        case _:
            slots = replace(config, batch_size=cell.slots)
            reasoner = puzzling.fit(
                puzzles.source,
                puzzles.config,
                slots,
                halting=puzzles.halting,
                valid=puzzles.valid,
                run_dir=run_dir,
            )
    return {"shared": shared, **_of_world(world, data), **_of_reasoner(reasoner, tested)}


def _fit_config(cell: JointCell, threads: int) -> FitConfig:
    often = {"validate_every": max(1, cell.updates // 4), "threads": threads, "progress": False}
    return FitConfig(cell.updates, batch_size=cell.batch, lr=cell.lr, seed=cell.seed, **often)


def sudokus(cell: JointCell) -> tuple["Puzzles", "PuzzleBatch"]:
    """Return the puzzles of training, and those of the test."""
    from loopwm.joint import Puzzles
    from loopwm.reason.config import Halting, ReasonerConfig
    from loopwm.reason.kinds import OneKind

    source = OneKind("larger", CLUES)
    sizes = {"prefix": 1, "puzzle_width": WIDTH, "width": WIDTH, "cycles": 1, "inner": 1}
    config = ReasonerConfig(source.vocabulary, source.length, cell=CORE, **sizes)
    halting = Halting(max_steps=STEPS, rise=0.6)
    tested = OneKind("smaller", CLUES).sample(torch_rng(0, "joint", "test"), TEST)
    return Puzzles(source, config, halting, cell.slots), tested


def sheets(found: Mapping[str, Mapping[str, Any]]) -> list[Sheet]:
    """Make the tables from the cells' results: errors, answers, shares."""
    groups = group_cells(found)
    return [over_seeds(groups, HORIZONS), world_sheet(groups), answer_sheet(found), shares(found)]


def world_sheet(groups: Sequence[Group]) -> Sheet:
    """Make the table of the world model's errors, joint over alone.

    The interval is a bootstrap over seeds and episodes.

    Args:
        groups: The arms.
    """
    by_arm = {group.arm: group for group in groups}
    rows = []
    if {"joint", "world"} <= by_arm.keys():
        ours, alone = by_arm["joint"].reports, by_arm["world"].reports
        pairs = list(zip(ours, alone, strict=True))
        for k in HORIZONS:
            ratio = error_ratio(ours, alone, k)
            seeds = spread([one.rmse[k] / other.rmse[k] for one, other in pairs])
            verdict = "not comparable" if ratio is None else _verdict(ratio, seeds, 1.0)
            rows.append({"k": k, "ratio": ratio, "seeds": seeds, "verdict": verdict})
    columns = (
        Column("k", "steps ahead"),
        Column("ratio", "RMSE joint over alone [95% interval]"),
        Column("seeds", "mean of the seeds [lowest, highest]"),
        Column("verdict", "sharing is"),
    )
    return Sheet("the world model: joint over alone", columns, tuple(rows))


def answer_sheet(found: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """Make the table of right answers in percent, and of the difference that sharing makes.

    The interval is a bootstrap over puzzles, which are the same for all, seeds taken together.

    Args:
        found: The cells' results by name.
    """
    by_arm = {arm: _by_seed(found, arm) for arm in ("joint", "puzzles")}
    seeds = sorted(by_arm["joint"].keys() & by_arm["puzzles"].keys())
    rows = []
    for step in SHOWN if seeds else ():
        right = {
            arm: 100 * np.array([each[seed]["right"][str(step)] for seed in seeds])
            for arm, each in by_arm.items()
        }
        row: dict[str, Any] = {"steps": step}
        row |= {arm: spread(each.mean(axis=1).tolist()) for arm, each in right.items()}
        gains = right["joint"] - right["puzzles"]
        ends = bootstrap(gains.mean(axis=0))
        row["gain"] = [float(gains.mean()), float(ends.low), float(ends.high)]
        row["seeds"] = spread(gains.mean(axis=1).tolist())
        # Here more is better.
        row["verdict"] = _verdict([-each for each in row["gain"]], [-each for each in row["seeds"]])
        rows.append(row)
    columns = (
        Column("steps", "steps of thought"),
        Column("joint", "joint, % [lowest, highest seed]"),
        Column("puzzles", "alone, % [lowest, highest seed]"),
        Column("gain", "joint minus alone, points [95% interval]"),
        Column("seeds", "mean of the seeds [lowest, highest]"),
        Column("verdict", "sharing is"),
    )
    return Sheet("the reasoner: whole answers that are right", columns, tuple(rows))


def shares(found: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """Make the table of the part of each model that is shared, in percent.

    Args:
        found: The cells' results by name.
    """
    first = next(iter(_by_seed(found, "joint").values()), {"shared": {}})
    rows = [
        {"model": name, "parameters": each["parameters"], "share": 100 * each["share"]}
        for name, each in first["shared"].items()
    ]
    columns = (
        Column("model"),
        Column("parameters", "parameters", 6),
        Column("share", "shared, % of all but tables"),
    )
    return Sheet("what is shared", columns, tuple(rows))


def _verdict(interval: Sequence[float], seeds: Sequence[float], even: float = 0.0) -> str:
    """Say what holds for the whole interval and for every seed, where less is better."""
    if max(*interval, *seeds) < even:
        return "a gain"
    return "a loss" if min(*interval, *seeds) > even else "neither"


def _by_seed(found: Mapping[str, Mapping[str, Any]], arm: str) -> dict[int, Mapping[str, Any]]:
    own = [each for each in found.values() if each["cell"]["arm"] == arm]
    return {each["cell"]["seed"]: each for each in own}


def _of_world(world: Any, data: Split) -> dict[str, Any]:
    if world is None:
        return {}
    from loopwm.study.prediction import evaluate

    sampling = Sampling(ceiling_windows=0)
    report = evaluate(world, data.test, HORIZONS, train=data.train, sampling=sampling)
    return {"report": report.to_dict()}


def _of_reasoner(reasoner: Any, tested: "PuzzleBatch") -> dict[str, Any]:
    if reasoner is None:
        return {}
    from loopwm.reason.evaluate import exact

    right = exact(reasoner, tested, steps=STEPS)
    return {"right": {str(step): right[step - 1].int().tolist() for step in SHOWN}}
