"""The headline: the loop, the same cell once, and the best MLP of four times the parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwm.errors import ConfigError
from loopwm.files import write_file
from loopwm.study.arms import arm_of
from loopwm.study.comparison import (
    Group,
    costs,
    group_cells,
    heads,
    medians,
    otherwise,
    over_seeds,
    ratios,
)
from loopwm.study.efficiency import Cell
from loopwm.study.plan import Plan, run_plan
from loopwm.study.recipe import (
    BEST_MLP,
    CHOSEN_RATES,
    DATA,
    HEADLINE,
    HORIZONS,
    RATE,
    UNITS,
    Computed,
    Options,
    training,
)

PARTS = ("excitation", "early", "middle", "late")
_FREE = "all parts, imagination held to no range"


def prediction(task: str, options: Options) -> Computed:
    """Bracket every arm's learning rate, then train each with the best, three seeds."""
    plan = Plan(Cell(task=task), arms=HEADLINE)
    tried, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    sheets = [over_seeds(groups, HORIZONS), ratios(groups, HORIZONS)]
    sheets += [medians(groups, HORIZONS), costs(groups, tried), heads(groups, HORIZONS)]
    sheets += [over_seeds(otherwise(groups, "free"), HORIZONS, title=_FREE)]
    sheets += [over_seeds(groups, HORIZONS, part) for part in PARTS]
    if options.figures is not None:
        _draw(task, groups, options.figures)
    return plan.seeds, (DATA, UNITS, training(plan)), tuple(sheets)


def horizon(task: str, options: Options) -> Computed:
    """Train on a loss that looks 16 steps ahead, with twice the updates."""
    how = (
        "The loss grows from one step ahead to 16 over the first half of training, and step k "
        "weighs 1/k, since errors grow as fast. The MLP's shape is the best one of the table "
        "with 4 steps. Of two rates tried with the first seed on four times the data, all have "
        "the one at which the unlooped cell errs less after 15 and 50 steps of the test set. The "
        "seeds of the loop and of the unlooped cell are trained at once: each has its own "
        "windows, all draw the same depths. "
        "Gradients of single rows through time are limited (`Objective(row_clip=)`)."
    )
    base = Cell(task=task, horizon=16, rise=0.5, decay=1.0)
    return _trained_long(base, {}, how, options, at_once=("looped", "once"))


def ample(task: str, options: Options) -> Computed:
    """Train as `horizon`, on four times the data and three times the updates."""
    how = (
        "The loss and the arms of the table with 16 steps and 100,000 transitions. Each arm has "
        "the better of two learning rates, 5e-3 and 1e-2, by the validation error of runs of the "
        "first seed with a third of the updates. The seeds of the loop and of the unlooped cell "
        "are trained at once: each has its own windows, all draw the same depths. "
        "Gradients of single rows through time are limited (`Objective(row_clip=)`)."
    )
    base = Cell(task=task, rows=400_000, horizon=16, rise=0.5, decay=1.0)
    trials = Plan(base, arms=_long_arms(task), updates=8_000, seeds=(0,), most_trials=2)
    tried, best = run_plan(trials, options.work, **_running(options))
    own = {each["cell"]["arm"]: each["cell"]["lr"] for each in best.values()}
    seeds, method, sheets = _trained_long(
        base, own, how, options, updates=24_000, at_once=("looped", "once")
    )
    each = (
        replace(group, label=f"{group.label}, {group.results[0]['cell']['lr']:g}")
        for name, result in tried.items()
        for group in group_cells({name: result})
    )
    title = f"trials of the first seed, {trials.updates:,} updates, by learning rate"
    return seeds, method, (*sheets, over_seeds(list(each), HORIZONS, title=title))


def longer(task: str, options: Options) -> Computed:
    """Train as the headline, with twice the updates."""
    how = "Arms and learning rates that the table of half as many updates chose."
    return _trained_long(Cell(task=task), CHOSEN_RATES[task], how, options)


def _long_arms(task: str) -> tuple[str, ...]:
    return ("looped", "once", BEST_MLP[task])


def _trained_long(
    base: Cell,
    own: Mapping[str, float],
    how: str,
    options: Options,
    updates: int = 16_000,
    at_once: tuple[str, ...] = (),
) -> Computed:
    plan = Plan(
        base, arms=_long_arms(base.task), rates=(RATE,), updates=updates, own=own, at_once=at_once
    )
    _, finals = run_plan(plan, options.work, **_running(options))
    groups = group_cells(finals, of=len(plan.seeds))
    if not groups:
        raise ConfigError("no run of this table is finished yet: leave out --finished")
    run = {each["cell"]["arm"] for each in finals.values()}
    for word, arms in (
        ("Not run", [arm for arm in plan.arms if arm not in run]),
        ("Failed with every seed", run - {group.arm for group in groups}),
    ):
        how += f" {word}: {', '.join(arm_of(arm).label for arm in arms)}." if arms else ""
    sheets = (
        over_seeds(groups, HORIZONS),
        ratios(groups, HORIZONS),
        medians(groups, HORIZONS),
        costs(groups),
        heads(groups, HORIZONS),
        *(over_seeds(groups, HORIZONS, part) for part in PARTS),
    )
    return plan.seeds, (how, DATA, UNITS, training(plan)), sheets


def _running(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("threads", "report", "finished")}


def _draw(task: str, groups: Sequence[Group], folder: Path) -> None:
    """Draw error against horizon, the first seed of each arm."""
    from loopwm.study.canvas import png
    from loopwm.study.plot import plot_error

    first = {group.label: group.reports[0] for group in groups}
    figure = plot_error(first, title=f"{task}: open-loop error, first seed")
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / f"{task.lower()}.png", png(figure))
