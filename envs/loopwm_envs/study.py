"""The study of ball chains: `loopwm results --rerun ballchain`."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from loopwm.core.halt import OutputDelta
from loopwm.files import write_file
from loopwm.study.cells import Named, run_cells, version
from loopwm.study.recipe import Computed, Options, Recipe
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import single_thread
from loopwm_envs.arms import ARMS
from loopwm_envs.extrapolation import (
    Cell,
    balanced_set,
    errors,
    recall,
    run_cell,
    shallow_set,
)
from loopwm_envs.halting import halting_rows, halting_sheet, seconds_sheet
from loopwm_envs.matching import (
    BEYOND,
    Errors,
    Result,
    by_arm,
    error_sheet,
    last,
    matched,
    ratio_sheet,
)
from loopwm_envs.spending import (
    MOST,
    REGRET,
    calibrated,
    depth_rows,
    depth_sheet,
    pair_rows,
    pair_sheet,
)

_Asked = TypeVar("_Asked", bound=Named)

SEEDS = (0, 1, 2, 3, 4)
# The arms of equal depth, by that depth, and the ones whose single latent holds the whole chain.
EQUAL = {
    8: ("looped", "untied-8-equal", "untied-8-eight"),
    12: ("looped", "untied-12-equal", "untied-12-eight"),
}
SINGLE = ("single", "single-untied")
FIXED = (4, 8, 12, 16, 24)
TOLERANCES = (0.1, 0.05, 0.02)
VANISH = (1, 2, 3)
METHOD = (
    "Six equal balls on an open line, simulated exactly; a model sees positions and velocities and "
    "predicts them one step later. Trained on causal depths up to 3 (200,000 transitions, one-step "
    "loss, batches of 256, 1,500 updates, one learning rate, 4e-3, for all), tested on 400 "
    "transitions of each depth. NMSE: squared error over the variance of the change at that depth, "
    "so that 1 is what the mean change errs.",
    "A latent for each ball is refined from itself and its two neighbours, 3 to 12 times by one "
    "cell (looped), or once by each of 8 or 12 cells with weights of their own (untied). Equal "
    "depth: as many iterations as blocks. Matched in distribution: of each arm's 20 checkpoints "
    "the one whose validation NMSE is nearest to the lowest that all arms of that depth reach; "
    "causal depths above 3 play no part in the choice.",
    "One latent for all balls is the default world model, of width 64; its untied counterpart has "
    "8 times the parameters.",
    "Iterations: OutputDelta, its tolerance calibrated on the validation set, causal depths up to "
    "3, for a loss of at most 1% against 32 iterations; beside it, fixed ones; at most 32. Pairs: "
    "one ball moved, all else equal, in chains of depth 1 to 6; the control moves it as far the "
    "other way, where that changes neither the number of collisions nor the depth.",
    "Seconds: one-step predictions on one thread, in turns, first seed, against the least fixed "
    "depth that errs at most 1% more. As trained: causal depths up to 3 as they occur; all depths: "
    "the same chains without that limit; a tolerance was calibrated for each. A loop trained for "
    "that has a table of its own.",
)


def compute(options: Options) -> Computed:
    """Train what is not trained yet, measure, and draw."""
    folder = _folder(options)
    results = all_of(planned(), options, lambda cell: run_cell(cell, folder, options.threads))
    labels = {each["cell"]["arm"]: each["label"] for each in results}
    seeds = [by_arm(results, seed) for seed in SEEDS]
    sheets, pairs = [], {}
    for depth, arms in EQUAL.items():
        pairs[depth] = [matched(seed, arms, depth) for seed in seeds]
        ends = [{arm: last(seed[arm], depth) for arm in arms} for seed in seeds]
        for when, found in (("matched in distribution", pairs[depth]), ("last checkpoint", ends)):
            title = f"{depth} iterations against {depth} blocks, {when}"
            sheets.append(ratio_sheet(f"{title}: NMSE over looped", found, labels, "looped"))
            sheets.append(error_sheet(f"{title}: NMSE", found, labels))
    single = [matched(seeds[0], SINGLE, 8)]
    title = "one latent for all balls, first seed, matched in distribution: NMSE over looped"
    sheets.append(ratio_sheet(title, single, labels, "single"))
    sheets.append(_sizes(seeds[0]))
    asked = [Spending(_cell(seed["looped"]), timed=seed is seeds[0]) for seed in seeds]
    with single_thread():
        found = all_of(asked, options, lambda each: spend(each, folder))
    if options.figures is not None:
        joined = [a | b for a, b in zip(pairs[12], pairs[8], strict=True)]
        _draw(options.figures, results, joined, [each["depths"][0] for each in found])
    return SEEDS, METHOD, (*sheets, *_spending_sheets(found))


BALLCHAIN = Recipe(
    "Ball chains: deeper than trained",
    "Does a loop carry further than the causal depth it was trained on, and do its iterations "
    "follow that depth?",
    50,
    compute,
)


def planned() -> list[Cell]:
    """List the models that are trained: those of one latent for all balls from one seed alone."""
    local = [arm for arm in ARMS if arm not in SINGLE]
    cells = [Cell(arm=arm, seed=seed) for seed in SEEDS for arm in local]
    return [*cells, *(Cell(arm=arm, seed=SEEDS[0]) for arm in SINGLE)]


def _folder(options: Options) -> Path:
    return options.work / "ballchain"


def all_of(
    asked: Sequence[_Asked], options: Options, compute: Callable[[_Asked], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return all results, in order, waiting for those that other processes are working on.

    Args:
        asked: What is asked for; what is finished is not computed again.
        options: Where results are kept.
        compute: Answers one of them, as JSON values.
    """
    folder = _folder(options)
    done = run_cells(asked, folder, compute, options.report)
    while len(done) < len(asked):
        # Should such a process die, its cells become free and are taken here.
        time.sleep(5)
        done = run_cells(asked, folder, compute, options.report)
    return list(done.values())


def _cell(result: Result) -> Cell:
    return Cell(**result["cell"])


@dataclass(frozen=True)
class Spending:
    """Ask how a trained loop spends its iterations.

    Attributes:
        cell: The loop.
        timed: Whether seconds are measured too.
    """

    cell: Cell
    timed: bool

    @property
    def name(self) -> str:
        """Name what is asked by what it depends on."""
        measured = version(REGRET, MOST, TOLERANCES, VANISH, FIXED)
        return f"spending_{self.cell.name}" + "_timed" * self.timed + f"_{measured}"


def spend(asked: Spending, folder: Path) -> dict[str, Any]:
    """Measure how a trained loop spends its iterations, as JSON values."""
    model = recall(asked.cell, folder)
    valid, test = shallow_set(), balanced_set()
    collide = test.rows((test.depth >= 1) & (test.depth <= max(BEYOND)))
    rule = calibrated(model, valid).halt
    assert isinstance(rule, OutputDelta)
    rules = [rule, *map(OutputDelta, TOLERANCES)]
    halts, seconds = halting_rows(model, asked.timed)
    return {
        "depths": depth_rows(model, test, rules),
        "pairs": [row for vanish in VANISH for row in pair_rows(model, collide, rules, vanish)],
        "fixed": {str(t): errors(model, t, valid, test) for t in FIXED},
        "halting": [{"seed": asked.cell.seed} | row for row in halts],
        "seconds": seconds,
    }


def _spending_sheets(found: Sequence[dict[str, Any]]) -> list[Sheet]:
    labels = {str(t): f"{t} iterations" for t in FIXED}
    fixed = [each["fixed"] for each in found]
    return [
        depth_sheet("iterations by causal depth", [each["depths"] for each in found]),
        pair_sheet([each["pairs"] for each in found]),
        error_sheet("looped, last checkpoint, by iterations: NMSE", fixed, labels),
        halting_sheet([row for each in found for row in each["halting"]]),
        seconds_sheet([row for each in found for row in each["seconds"]]),
    ]


def _sizes(seed: Mapping[str, Result]) -> Sheet:
    """Make the table of sizes."""
    keys = ("label", "width", "parameters")
    labels = ("model", "width of a latent", "parameters of the dynamics")
    rows = tuple({key: each[key] for key in keys} for each in seed.values())
    return Sheet("sizes", tuple(map(Column, keys, labels)), rows)


def _draw(
    folder: Path,
    results: Sequence[Result],
    errors: Sequence[Mapping[str, Errors]],
    iterations: Sequence[Mapping[str, Any]],
) -> None:
    from loopwm.study.canvas import png
    from loopwm_envs.figure import plot_chains

    arms = dict.fromkeys(EQUAL[12], 12) | dict.fromkeys(EQUAL[8], 8)
    figure = plot_chains(results, arms, errors, iterations)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "ballchain.png", png(figure))
