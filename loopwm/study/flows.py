"""The loop as a differential equation, against the loop: errors, evaluations, seconds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from loopwm.core.depth import Flow
from loopwm.core.halt import Fixed
from loopwm.data.store import RolloutDataset
from loopwm.study.comparison import group_cells, medians, over_seeds, ratios, spread
from loopwm.study.datasets import Experience, study_data
from loopwm.study.efficiency import Cell
from loopwm.study.gradients import MIB, WINDOWS, kept_bytes, trainable, training_batch, update
from loopwm.study.loops import models_of
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.plan import Plan, run_plan
from loopwm.study.recipe import DATA, HORIZONS, RATE, UNITS, Computed, Options, training
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import Contestant, race, single_thread
from loopwm.study.trace import real_states, squared_errors
from loopwm.study.windows import Sampling, window_rows
from loopwm.world.model import WorldModel

ARMS = ("looped", "flow", "flow-midpoint")
TIMED, ROUNDS = 512, 7  # rows of the timed step, and how often it is timed

# How the models are run, whatever they were trained as; None is the loop.
SOLVERS: Mapping[str, Flow | None] = {
    "the loop (Euler, step 1)": None,
    "Euler, step 1/2": Flow(method="euler", step=0.5),
    "Euler, step 1/4": Flow(method="euler", step=0.25),
    "midpoint, step 1": Flow(method="midpoint", step=1.0),
    "rk4, step 1": Flow(method="rk4", step=1.0),
    **{f"dopri5, {tol:g}": Flow(rtol=tol, atol=tol) for tol in (1e-1, 1e-2, 1e-3, 1e-4)},
}
# The flow itself, for all that matters here.
EXACT = Flow(rtol=1e-6, atol=1e-6)

_METHOD = (
    "A unit of time stands for an iteration: the flow is `dh/dtau = F(h, e) - h`, the loop its "
    "Euler method with step 1. All models are of the default cell and run as long, 6 units on the "
    "mean in training and 8 at inference; they differ in the solver that training differentiates.",
    "Evaluations are those of the cell in one imagined step; with a solver that chooses its steps, "
    "all rows of a batch share them. Off the flow: RMS difference of the decoded one-step "
    "prediction from dopri5 at 1e-6, in standard deviations of the observation. "
    f"Milliseconds: CPU time of one step of {TIMED} rows on one thread, first seed, in turns.",
)


def flow(task: str, options: Options) -> Computed:
    """Compare models trained as flows with those trained as loops."""
    plan = Plan(Cell(task=task), arms=ARMS, rates=(RATE,), updates=1_000, seeds=(0,))
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    data = study_data(Experience(task), options.work / "data")
    sheets = [over_seeds(groups, HORIZONS), ratios(groups, HORIZONS), medians(groups, HORIZONS)]
    models = {group.label: models_of(group, options.work) for group in groups}
    with single_thread():
        sheets.append(update_sheet({name: each[0] for name, each in models.items()}, data.train))
        for label, each in models.items():
            options.report(f"solvers: {label}")
            sheets.append(solver_sheet(label, each, data.test))
    return plan.seeds, (*_METHOD, DATA, UNITS, training(plan)), tuple(sheets)


def update_sheet(models: Mapping[str, WorldModel], data: RolloutDataset) -> Sheet:
    """Make the table of what a training update costs.

    Args:
        models: Trained models by label.
        data: Experience that windows are taken from.
    """
    batch = training_batch(data, WINDOWS)
    copies = {label: trainable(model) for label, model in models.items()}
    runs = [Contestant(label, partial(update, copy, batch), 1) for label, copy in copies.items()]
    rows = []
    for timing in race(runs, ROUNDS):
        low, middle, high = 1e3 * np.quantile(timing.cpu, (0.25, 0.5, 0.75))
        kept = kept_bytes(copies[timing.name], batch) / MIB
        rows.append({"model": timing.name, "ms": [middle, low, high], "kept": kept})
    columns = (
        Column("model"),
        Column("ms", "CPU ms per update [quartiles]"),
        Column("kept", "MiB kept for the backward pass"),
    )
    return Sheet("a training update", columns, tuple(rows))


def solver_sheet(
    label: str,
    models: Sequence[WorldModel],
    data: RolloutDataset,
    steps: Sequence[int] = HORIZONS,
) -> Sheet:
    """Make the table of evaluations, errors and time by the solver that inference uses.

    Args:
        label: What tables call the models.
        models: Trained looped models, a seed each.
        data: Real experience.
        steps: Open-loop steps.
    """
    exact = [_imagined(model, EXACT, data, 1) for model in models]
    times = _milliseconds(models[0], data)
    rows = []
    for name, solver in SOLVERS.items():
        row: dict[str, Any] = {"solver": name}
        first = [_imagined(model, solver, data, 1) for model in models]
        row["evaluations"] = spread([float(each[1].mean()) for each in first])
        row["off"] = spread(
            [
                _rms((seen[0] - truth[0]) / np.asarray(model.stats.obs_std))
                for model, seen, truth in zip(models, first, exact, strict=True)
            ]
        )
        for k in steps:
            row[f"rmse_{k}"] = spread([_rmse(model, solver, data, k) for model in models])
        rows.append(row | {"ms": times[name]})
    columns = (
        Column("solver", "run by"),
        Column("evaluations"),
        Column("off", "off the flow"),
        *(Column(f"rmse_{k}", f"RMSE, k={k}") for k in steps),
        Column("ms", "CPU ms per step"),
    )
    return Sheet(f"trained as: {label}", columns, tuple(rows))


@contextmanager
def solved_by(model: WorldModel, solver: Flow | None) -> Iterator[None]:
    """Let a model run as a flow, or as the loop, while the block does."""
    before = model.core.flow
    model.core.flow = solver
    try:
        yield
    finally:
        model.core.flow = before


def _rmse(model: WorldModel, solver: Flow | None, data: RolloutDataset, steps: int) -> float:
    rows = window_rows(data, steps, 0, Sampling(max_windows=1_000))
    seen, _ = _imagined(model, solver, data, steps)
    return float(np.sqrt(squared_errors(model, data, rows, seen, steps).mean()))


def _imagined(
    model: WorldModel, solver: Flow | None, data: RolloutDataset, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the last observation imagined in each window, and the evaluations of each step."""
    rows = window_rows(data, steps, 0, Sampling(max_windows=1_000))
    how = Imagination(halt=Fixed(model.depth.typical))
    with solved_by(model, solver):
        seen = imagine_windows(model, data, rows, steps, how)
    return seen.obs[:, -1], seen.n_iters


def _milliseconds(model: WorldModel, data: RolloutDataset) -> dict[str, float]:
    rows = window_rows(data, 1, 0, Sampling(max_windows=TIMED))
    state, action = real_states(model, data, rows, 1)

    def contestant(name: str, solver: Flow | None) -> Contestant:
        def run() -> object:
            with torch.no_grad(), solved_by(model, solver):
                return model.step(state, action, halt=Fixed(model.depth.typical))

        return Contestant(name, run, 1)

    timings = race([contestant(*each) for each in SOLVERS.items()], ROUNDS)
    return {each.name: 1e3 * float(np.median(each.cpu)) for each in timings}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
