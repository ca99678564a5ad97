"""Tables about the loop itself: what is proven of it, and how far it goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loopwm.core.halt import Fixed, OutputDelta
from loopwm.data.store import RolloutDataset
from loopwm.study.comparison import (
    Group,
    Result,
    costs,
    group_cells,
    medians,
    over_seeds,
    ratios,
    spread,
)
from loopwm.study.datasets import Experience, Split, study_data
from loopwm.study.efficiency import Cell
from loopwm.study.halting import calibrated, equal_depth, outcome_sheet, outcomes
from loopwm.study.halting_time import RACED, speed_sheet, speeds
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.plan import Plan, run_plan
from loopwm.study.recipe import DATA, HORIZONS, RATE, UNITS, Computed, Options, training
from loopwm.study.results import Column, Sheet
from loopwm.study.trace import squared_errors
from loopwm.study.windows import Sampling, window_rows
from loopwm.world.build import load
from loopwm.world.model import WorldModel

# Fine enough that rows which settle fast stop long before the last iteration.
TOL, MOST = 0.05, 24

# From free to proven: bounded, contractive at falling rates, and what may win back what is lost.
DIAL = (
    *("looped", "contractive-0.99", "contractive-0.95", "contractive-0.8"),
    *("contractive-gated", "contractive-wide", "settling"),
)


def dial(task: str, options: Options) -> Computed:
    """Compare a bounded cell with contractive ones of falling rates."""
    plan = Plan(Cell(task=task), arms=DIAL, rates=(RATE,), updates=2_000)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    models = {group.label: models_of(group, options.work) for group in groups}
    test = study_data(Experience(task), options.work / "data").test
    method = (
        "The default cell bounds the state and proves no rate. Contractive cells prove that one "
        "iteration brings any two states closer by the rate, whatever the weights; the closer to "
        "1, the freer. Everything else is the same.",
        *(DATA, UNITS, training(plan)),
    )
    sheets = (over_seeds(groups, HORIZONS), ratios(groups, HORIZONS), medians(groups, HORIZONS))
    sheets += (certificates(models, test), ranges(models, test), costs(groups))
    return plan.seeds, method, sheets


def halting(task: str, options: Options) -> Computed:
    """Measure what stopping early saves, in iterations and in seconds."""
    arms = ("looped", "expanded")
    plan = Plan(Cell(task=task), arms=arms, rates=(RATE,), updates=2_000)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    data = study_data(Experience(task), options.work / "data")
    sheets: list[Sheet] = []
    for group in group_cells(finals):
        sheets += _stopped(group, data, options)
    method = (
        "Rules are calibrated on validation episodes "
        "for a loss of at most 1% at k = 1 and 15; errors are those of the test set. Random: "
        "OutputDelta's numbers of iterations dealt to other rows at each step. Oracle: the least "
        "error that any choice of depths with OutputDelta's mean reaches, knowing the truth.",
        "Tested once: after the iteration, of those calibration tried, at which that saves most. "
        "Around the default cell, as cheap as a test, little can be saved; with four times the "
        "hidden width an iteration costs 3.5 times as much, and what surrounds it the same.",
        "Fewer after the first step: every row runs as many iterations as any needs in the step "
        "that begins at the learned start, and fewer in those that go on from a carried state.",
        "Seconds: imagining 15 steps on one thread, contestants in turns; equal error "
        "is the fewest fixed iterations within 1% of the rule at both horizons.",
        *(DATA, UNITS, training(plan)),
    )
    return plan.seeds, method, tuple(sheets)


def _stopped(group: Group, data: Split, options: Options) -> tuple[Sheet, Sheet]:
    """Make the tables of one arm: what stopping early costs and what it saves."""
    models, found, timed = models_of(group, options.work), [], []
    for seed, model in enumerate(models):
        options.report(f"{group.arm}, seed {seed}: rules, controls, seconds")
        rules = calibrated(model, data)
        found.append(outcomes(model, data.test, rules))
        raced = {name: rules[name] for name in RACED}
        equal = {name: equal_depth(found[seed], model.depth.typical, name) for name in RACED}
        timed.append(speeds(model, data.test, raced, equal))
    return outcome_sheet(found, group.label), speed_sheet(timed, group.label)


def models_of(group: Group, work: Path) -> list[WorldModel]:
    """Read the trained models of a group's cells, in the order of its seeds."""
    models = [load(work / "models" / _cell(result).name) for result in group.results]
    return [model for model in models if isinstance(model, WorldModel)]


def certificates(models: Mapping[str, Sequence[WorldModel]], test: RolloutDataset) -> Sheet:
    """Make the table of certificates, mean over seeds [lowest, highest].

    Args:
        models: Models of several seeds by label.
        test: Real experience at which the loops are measured.
    """
    rows = []
    at = np.linspace(0, len(test) - 1, 256).astype(int)
    for label, seeds in models.items():
        found = [model.certificate(test.obs[at], test.action[at]) for model in seeds]
        row: dict[str, Any] = {"model": label}
        for name in ("rate", "local_gain", "state_bound", "state_norm"):
            values = [getattr(each, name) for each in found]
            row[name] = None if None in values else spread(values)
        rows.append(row)
    columns = (
        Column("model"),
        Column("rate", "proven rate"),
        Column("local_gain", "largest local gain met"),
        Column("state_bound", "proven bound on the state"),
        Column("state_norm", "largest norm met"),
    )
    return Sheet("certificates", columns, tuple(rows))


def ranges(models: Mapping[str, Sequence[WorldModel]], test: RolloutDataset) -> Sheet:
    """Make the table of how many iterations inputs take, and of what too many do.

    Args:
        models: Models of several seeds by label.
        test: Real experience.
    """
    rows = []
    for label, seeds in models.items():
        found = [_range(model, test) for model in seeds]
        rows.append(
            {"model": label} | {name: spread([f[name] for f in found]) for name in found[0]}
        )
    columns = (
        Column("model"),
        Column("low", "iterations, 5% of the rows below"),
        Column("mean", "mean"),
        Column("high", "95% below"),
        Column("twice", "RMSE at twice the depth over that at the depth, k=1"),
        Column("thrice", "at three times"),
        Column("far", "at twice, k=15"),
    )
    title = f"range of iterations, OutputDelta({TOL:g}), at most {MOST}"
    return Sheet(title, columns, tuple(rows))


def _range(model: WorldModel, test: RolloutDataset) -> dict[str, float]:
    rows = {k: window_rows(test, k, 0, Sampling()) for k in (1, 15)}
    settling = Imagination(halt=OutputDelta(TOL), max_iters=MOST)
    counts = imagine_windows(model, test, rows[1], 1, settling).n_iters[:, 0]

    def error(horizon: int, times: int) -> float:
        how = Imagination(halt=Fixed(times * model.depth.typical))
        seen = imagine_windows(model, test, rows[horizon], horizon, how).obs[:, -1]
        squares = squared_errors(model, test, rows[horizon], seen, horizon)
        return float(np.sqrt(squares.mean()))

    return {
        "low": float(np.quantile(counts, 0.05)),
        "mean": float(counts.mean()),
        "high": float(np.quantile(counts, 0.95)),
        "twice": error(1, 2) / error(1, 1),
        "thrice": error(1, 3) / error(1, 1),
        "far": error(15, 2) / error(15, 1),
    }


def _cell(result: Result) -> Cell:
    return Cell(**result["cell"])
