"""Does stopping early pay on chains? `loopwm results --rerun halting-ballchain`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loopwm.files import write_file
from loopwm.study.comparison import spread
from loopwm.study.recipe import Computed, Options, Recipe
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import single_thread
from loopwm_envs.spending import depth_sheet, pair_sheet
from loopwm_envs.stopping import SHOWN, Cell, run_cell
from loopwm_envs.study import all_of

SEEDS = (0, 1, 2)
METHOD = (
    "Six equal balls on an open line, simulated exactly, as in the table before; here the loop is "
    "trained on all causal depths as they occur (1,000,000 transitions, 6,000 updates of 256 by "
    "Muon at 5e-3), and on 1 to 12 iterations. Its gated layer has four times the width of a "
    "latent, which is 64. An error beyond a hundredth of a change's standard deviation counts by "
    "its size, not by its square (`Objective(robust=)`): the deep chains that few iterations "
    "cannot foresee would drown what the shallow ones need.",
    "Rules are calibrated on 6,000 transitions for a loss of at most 1%, and of 3%, against 16 "
    "iterations; errors are those of 6,000 others, in standard deviations of the change. Tested "
    "once, or at two stages: after the iterations, of those tried, at which that saves most. "
    "Random: the first rule's numbers of iterations dealt to other rows. Oracle: the least error "
    "that any choice of depths with its mean reaches, knowing the truth.",
    "Pairs: one ball moved, all else equal, in chains of depth 1 to 6, no farther from the middle "
    "than balls begin in training; the control moves it as far the other way, where that changes "
    "neither the number of collisions nor the depth. Tolerances: the calibrated one, and 0.05.",
    "Seconds: one-step predictions on one thread, in turns, against the least fixed depth that "
    "errs at most 1% more than the rule.",
)


def compute(options: Options) -> Computed:
    """Train what is not trained yet, and measure."""
    folder = options.work / "ballchain"
    with single_thread():
        found = all_of([Cell(seed) for seed in SEEDS], options, lambda cell: run_cell(cell, folder))
    if options.figures is not None:
        _draw(options.figures, [each["depths"] for each in found])
    sheets = (
        _outcome_sheet([each["outcomes"] for each in found]),
        _by_depth_sheet([each["depths"] for each in found]),
        depth_sheet("as many chains of each depth", [each["related"] for each in found]),
        pair_sheet([each["pairs"] for each in found]),
        _seconds_sheet([each["seconds"] for each in found]),
        _size_sheet(found),
    )
    return SEEDS, METHOD, sheets


STOPPING = Recipe(
    "Ball chains: does stopping early pay?",
    "Do chains stop when their collisions are accounted for, and does it save time?",
    51,
    compute,
)


def _draw(folder: Path, seeds: Sequence[Sequence[Mapping[str, float]]]) -> None:
    from loopwm.study.canvas import png
    from loopwm_envs.stopping_figure import plot_stopping

    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "ballchain-stopping.png", png(plot_stopping(seeds, SHOWN)))


def _outcome_sheet(seeds: Sequence[Mapping[str, Sequence[float]]]) -> Sheet:
    rows = []
    for way in seeds[0]:
        iterations, errors = zip(*(seed[way] for seed in seeds), strict=True)
        shown = {"iterations": spread(iterations), "rmse": spread(errors)}
        rows.append({"way": way, **shown})
    columns = (Column("way", "iterations by"), Column("iterations", "mean"), Column("rmse", "RMSE"))
    return Sheet("iterations and error", columns, tuple(rows))


def _by_depth_sheet(seeds: Sequence[Sequence[Mapping[str, float]]]) -> Sheet:
    rows = []
    for found in zip(*seeds, strict=True):
        row: dict[str, Any] = {name: spread([each[name] for each in found]) for name in found[0]}
        rows.append(row | {name: found[0][name] for name in ("depth", "share")})
    columns = (
        Column("depth", "causal depth"),
        Column("share", "of all transitions"),
        Column("iterations", "iterations by OutputDelta"),
        Column("rmse_rule", "RMSE by it"),
        *(Column(f"rmse_{t}", f"after {t} iterations") for t in SHOWN),
    )
    return Sheet("by causal depth", columns, tuple(rows))


def _seconds_sheet(seeds: Sequence[Sequence[Mapping[str, Any]]]) -> Sheet:
    rows = []
    for found in zip(*seeds, strict=True):
        row: dict[str, Any] = {name: found[0][name] for name in ("way", "batch")}
        row["depth"] = ", ".join(str(each["depth"]) for each in found)
        for name in ("iterations", "faster"):
            row[name] = spread([each[name] for each in found])
        for name in ("equal", "rule"):
            row[name] = spread([each[name][0] for each in found])
        iterations = [1 - each["iterations"] / each["depth"] for each in found]
        seconds = [1 - 1 / each["faster"] for each in found]
        shares = [s / i for s, i in zip(seconds, iterations, strict=True) if i > 0]
        row["share"] = spread(shares) if shares else None
        rows.append(row)
    columns = (
        Column("way", "rule"),
        Column("batch"),
        Column("depth", "fixed depth of equal error, each seed"),
        Column("iterations", "mean iterations"),
        Column("equal", "at that depth, transitions per CPU second"),
        Column("rule", "under the rule"),
        Column("faster", "speed over equal error"),
        Column("share", "seconds over iterations saved"),
    )
    return Sheet("seconds", columns, tuple(rows))


def _size_sheet(found: Sequence[Mapping[str, Any]]) -> Sheet:
    columns = (Column("width", "width of a latent"), Column("parameters", "parameters of the loop"))
    row = {"width": found[0]["cell"]["width"], "parameters": found[0]["parameters"]}
    return Sheet("sizes", columns, (row,))
