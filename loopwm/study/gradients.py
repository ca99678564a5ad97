"""What the gradient modes of the loop cost, in time and memory, and what accuracy they leave."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopwm.batch import SequenceBatch
from loopwm.core.depth import Fixed
from loopwm.core.grad import Checkpointed, Full, GradientMode, Implicit, LastK, Phantom
from loopwm.data.replay import Windows
from loopwm.data.store import RolloutDataset
from loopwm.study.comparison import Group, group_cells, medians, over_seeds, ratios, spread
from loopwm.study.datasets import Experience, study_data
from loopwm.study.efficiency import Cell
from loopwm.study.loops import models_of
from loopwm.study.memory import MIB, saved_bytes
from loopwm.study.plan import Plan, run_plan
from loopwm.study.recipe import DATA, HORIZONS, RATE, UNITS, Computed, Options, training
from loopwm.study.results import Column, Sheet
from loopwm.study.solvers import residual_sheet, solver_sheet
from loopwm.study.timing import Contestant, race, single_thread
from loopwm.world.build import build
from loopwm.world.config import ModelConfig, WorldConfig
from loopwm.world.model import WorldModel
from loopwm.world.objective import sequence_loss

ARMS = ("settled", "settled-last", "settled-phantom", "settled-implicit")
STARTS = {
    "looped": "bounded, from the carried state",
    "cold": "bounded, from the learned start",
    "settled": "contractive, from the carried state",
    "settled-cold": "contractive, from the learned start",
}
MODES: Mapping[str, GradientMode] = {
    "Full": Full(),
    "Checkpointed": Checkpointed(),
    "LastK(4)": LastK(4),
    "Phantom(4)": Phantom(4),
    "Implicit()": Implicit(),
}
ITERATIONS = (4, 8, 16, 32)
WINDOWS, HORIZON = 256, 4  # those of the training runs
ROUNDS = 5

# So many iterations that a contraction by the rate of these models has forgotten where it began.
SETTLED = 128

_METHOD = (
    "Every model is the same contractive one (rate 0.8) at 12 iterations, where its loop has as "
    "good as come to rest; only the gradient mode of training differs. `Checkpointed` is not "
    "trained: its gradients are those of `Full`.",
    f"Time and memory are those of one loss and its backward pass, {WINDOWS} windows of {HORIZON} "
    "steps, on one thread; modes take turns, CPU time. Memory is what autograd keeps for the "
    "backward pass: the bytes of all distinct storages that saved-tensor hooks see, parameters "
    "left out. What the backward pass itself takes comes on top: one iteration for "
    "`Checkpointed`, a few states for `Implicit`.",
    "Iterations to rest: every evaluation of the cell counts; measured at states four real steps "
    "into test episodes, so that what is carried is the model's own. Models that were trained "
    "from the carried state are also started from the learned one, and those that never were, "
    "from theirs. Those of rate 0.99 and the bounded ones are the models of the tables `dial-` "
    "(`lw.Contractive` at several rates; 2,000 updates), the others have 1,000. Anderson "
    "extrapolates at inference alone.",
)


def gradients(task: str, options: Options) -> Computed:
    """Compare gradient modes, and ways to the fixed point, on models that settle."""
    work = options.work
    plan = Plan(Cell(task=task), arms=ARMS, rates=(RATE,), updates=1_000, seeds=(0, 1))
    groups = _groups(plan, options)
    models = {each.arm: models_of(each, work) for each in groups}
    # What the loop starts from is no gradient mode: its models stand in tables of their own.
    starts = _groups(replace(plan, arms=tuple(STARTS), seeds=plan.seeds[:1]), options)
    starts = [replace(each, label=STARTS[each.arm]) for each in starts]
    dial = _groups(replace(plan, arms=("contractive-0.99", "looped"), updates=2_000), options)
    models |= {
        each.arm: models_of(each, work) for each in (*starts, *dial) if each.arm != "settled"
    }
    data = study_data(Experience(task), work / "data")
    options.report("time and memory")
    first = models["settled"][0]
    sheets = [over_seeds(groups, HORIZONS), ratios(groups, HORIZONS, "settled")]
    sheets.append(medians(groups, HORIZONS))
    with single_thread():
        sheets += [time_sheet(first, data.train), memory_sheet(first, data.train)]
        sheets.append(direction_sheet(models["settled"], data.test))
        options.report("iterations to rest")
        sheets.append(over_seeds(starts, HORIZONS, title="start of the loop in training, one seed"))
        sheets += [residual_sheet(models, data.test), solver_sheet(models, data.test)]
    return plan.seeds, (*_METHOD, DATA, UNITS, training(plan)), tuple(sheets)


def _groups(plan: Plan, options: Options) -> list[Group]:
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    return group_cells(finals)


def time_sheet(
    model: WorldModel, data: RolloutDataset, depths: Sequence[int] = ITERATIONS
) -> Sheet:
    """Make the table of CPU milliseconds per update, median [quartiles] of the rounds.

    Args:
        model: Trained looped model whose weights all modes share.
        data: Experience that windows are taken from.
        depths: Columns: iterations of the loop.
    """
    batch = training_batch(data, WINDOWS)
    runs = [
        Contestant(name, partial(update, _in_mode(model, mode, depth), batch), 1)
        for name, mode in MODES.items()
        for depth in depths
    ]
    times = iter(race(runs, ROUNDS))
    rows = []
    for name in MODES:
        row: dict[str, Any] = {"mode": name}
        for depth in depths:
            low, middle, high = 1e3 * np.quantile(next(times).cpu, (0.25, 0.5, 0.75))
            row[f"at_{depth}"] = [float(middle), float(low), float(high)]
        rows.append(row)
    return Sheet("CPU milliseconds per update", _columns(depths), tuple(rows))


def memory_sheet(
    model: WorldModel, data: RolloutDataset, depths: Sequence[int] = ITERATIONS
) -> Sheet:
    """Make the table of MiB that autograd keeps for the backward pass of an update.

    Args:
        model: Trained looped model whose weights all modes share.
        data: Experience that windows are taken from.
        depths: Columns: iterations of the loop.
    """
    batch = training_batch(data, WINDOWS)
    rows = []
    for name, mode in MODES.items():
        row: dict[str, Any] = {"mode": name}
        for depth in depths:
            row[f"at_{depth}"] = kept_bytes(_in_mode(model, mode, depth), batch) / MIB
        rows.append(row)
    return Sheet("MiB kept for the backward pass", _columns(depths), tuple(rows))


def direction_sheet(models: Sequence[WorldModel], data: RolloutDataset) -> Sheet:
    """Make the table of how far each mode's gradient is from that of the settled loop.

    Compared are gradients of the multi-step error in all weights, at trained models, with the
    gradient of `Full` after so many iterations that nothing of the start is left.

    Args:
        models: The models, a seed each.
        data: Experience that windows are taken from.
    """
    batch, depth = training_batch(data, 64), models[0].depth.typical
    settled = [_gradient(model, Full(), SETTLED, batch) for model in models]
    rows = []
    for name, mode in MODES.items():
        errors, cosines = [], []
        for model, wanted in zip(models, settled, strict=True):
            found = _gradient(model, mode, depth, batch)
            errors.append(float((found - wanted).norm() / wanted.norm()))
            cosines.append(float(found @ wanted / found.norm() / wanted.norm()))
        rows.append({"mode": name, "error": spread(errors), "cosine": spread(cosines)})
    columns = (
        Column("mode"),
        Column("error", "relative error"),
        Column("cosine", "cosine", 5),
    )
    title = f"gradient at {depth} iterations against that of the loop at rest"
    return Sheet(title, columns, tuple(rows))


def update(model: WorldModel, batch: SequenceBatch) -> Tensor:
    """Compute the training loss and its gradients; return the loss."""
    loss = _loss(model, batch)
    model.zero_grad()
    loss.backward()
    return loss.detach()


def trainable(model: WorldModel, config: ModelConfig | None = None) -> WorldModel:
    """Return a copy of a model that can be trained on, with another configuration if given."""
    copy = build(config or model.config, model.meta, model.stats, 0)
    copy.load_state_dict(model.state_dict())
    return copy.train()


def kept_bytes(model: WorldModel, batch: SequenceBatch) -> int:
    """Count the bytes that autograd keeps for the backward pass of the training loss."""
    return saved_bytes(partial(_loss, model, batch), model.parameters())


def _loss(model: WorldModel, batch: SequenceBatch) -> Tensor:
    return sequence_loss(model, batch, torch.Generator().manual_seed(0))[0]


def _in_mode(model: WorldModel, mode: GradientMode, depth: int, **objective: float) -> WorldModel:
    """Return a copy of the model that trains in a mode at a depth."""
    assert isinstance(model.config, WorldConfig)
    parts = replace(model.config.objective, **objective)
    config = replace(model.config, grad=mode, depth=Fixed(depth), objective=parts)
    return trainable(model, config)


def _gradient(model: WorldModel, mode: GradientMode, depth: int, batch: SequenceBatch) -> Tensor:
    """Return the gradient of the loss in all weights, end to end, without the early decoding."""
    copy = _in_mode(model, mode, depth, intermediate=0.0)
    update(copy, batch)
    return torch.cat([p.grad.flatten() for p in copy.parameters() if p.grad is not None])


def training_batch(data: RolloutDataset, count: int) -> SequenceBatch:
    """Return windows as long as those of training, spread evenly over the data."""
    windows = Windows(data, HORIZON, torch.device("cpu"))
    return windows.at(torch.linspace(0, len(windows) - 1, count).long())


def _columns(depths: Sequence[int]) -> tuple[Column, ...]:
    return (Column("mode"), *(Column(f"at_{n}", f"{n} iterations") for n in depths))
