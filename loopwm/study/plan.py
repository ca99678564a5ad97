"""Which cells make a comparison: trials that bracket each arm's learning rate, then the runs."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loopwm.errors import ConfigError
from loopwm.study.arms import arm_of
from loopwm.study.cells import finished_cells, run_groups
from loopwm.study.efficiency import Cell, run_seeds


@dataclass(frozen=True)
class Plan:
    """Say which cells make a comparison.

    Attributes:
        base: Task, data and evaluation shared by all cells.
        arms: Models compared.
        rates: Learning rates tried for each arm, at equal ratios; where the best is the first or
            the last of them, further ones are tried beyond it. A single one is used untried.
        most_trials: Most trials of an arm.
        updates: Gradient updates of every run. A trial is a whole run: the rate that is best for
            a short one is too high for a long one.
        seeds: Seeds; the trials have the first.
        own: Learning rates of single arms that take the place of an untried one, such as those
            which trials of another plan chose.
        at_once: Arms whose seeds are trained at once (`lw.fit(members=)`): less work where
            models are small, and fewer cells to share among processes.
    """

    base: Cell = Cell()
    arms: tuple[str, ...] = (
        *("looped", "once", "untied"),
        *("mlp-4x208", "mlp-3x256", "mlp-2x384", "gru"),
    )
    rates: tuple[float, ...] = (5e-3, 1e-2)
    most_trials: int = 5
    updates: int = 8_000
    seeds: tuple[int, ...] = (0, 1, 2)
    own: Mapping[str, float] = field(default_factory=dict)
    at_once: tuple[str, ...] = ()

    @property
    def tries(self) -> bool:
        """Say whether trials choose the learning rate."""
        return len(self.rates) > 1


def run_plan(
    plan: Plan,
    folder: Path,
    *,
    threads: int = 1,
    report: Callable[[str], None] = lambda line: None,
    finished: bool = False,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Run a plan's trials, then its final cells; finished cells are not run again.

    Several processes may run the same plan at once: each takes cells that no other has taken, and
    waits for the trials of the others before the final cells are chosen.

    Args:
        plan: The comparison.
        folder: Where cells, data and checkpoints are kept.
        threads: CPU threads of this process.
        report: Receives a line for each cell begun.
        finished: Run nothing: return what is finished.

    Returns:
        Results of the trials and of the cells with the chosen rates, by name.

    Raises:
        ConfigError: If nothing has been finished that a rate could be chosen from.
    """

    def compute(cells: Sequence[Cell]) -> Iterator[tuple[str, dict[str, Any]]]:
        return run_seeds(cells, folder, threads)

    def all_of(groups: Sequence[Sequence[Cell]]) -> dict[str, dict[str, Any]]:
        if finished:
            return finished_cells([cell for group in groups for cell in group], folder / "cells")
        return _all(groups, folder / "cells", compute, report)

    base = replace(plan.base, updates=plan.updates, seed=plan.seeds[0])
    tried: dict[str, dict[str, Any]] = {}
    wanted = plan_trials(base, plan.arms, plan.rates)
    if not plan.tries:
        chosen = [replace(cell, lr=plan.own.get(cell.arm, cell.lr)) for cell in wanted]
        finals = [replace(cell, seed=seed) for seed in plan.seeds for cell in chosen]
    else:
        while wanted and (found := all_of([[cell] for cell in wanted])):
            tried |= found
            wanted = plan_further(base, tried, plan.most_trials)
        finals = plan_finals(base, tried, plan.seeds)
    groups: dict[Cell, list[Cell]] = {}
    for cell in finals:
        alike = replace(cell, seed=0) if cell.arm in plan.at_once else cell
        groups.setdefault(alike, []).append(cell)
    return tried, all_of(list(groups.values()))


def _all(
    groups: Sequence[Sequence[Cell]],
    folder: Path,
    compute: Callable[[Sequence[Cell]], Iterator[tuple[str, dict[str, Any]]]],
    report: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    done = run_groups(groups, folder, compute, report)
    while len(done) < sum(map(len, groups)):
        # Another process has the rest; should it die, its cells become free and are taken here.
        time.sleep(5)
        done = run_groups(groups, folder, compute, report)
    return done


def plan_trials(base: Cell, arms: Sequence[str], rates: Sequence[float]) -> list[Cell]:
    """List one cell for each arm and learning rate, all with the seed of `base`."""
    return [replace(base, arm=arm, lr=lr) for arm in arms for lr in rates]


def plan_further(base: Cell, trials: dict[str, dict[str, Any]], most: int) -> list[Cell]:
    """List a further trial for each arm whose best learning rate is the first or last one tried.

    Args:
        base: Everything but arm and rate.
        trials: Results of the trials so far, by cell name.
        most: Most trials of an arm.

    Returns:
        One cell for each arm whose best rate is not yet between two others, the rate beyond that
        end by the grid's own factor; none for arms that have had `most` trials, or whose trials
        all failed.
    """
    by_arm: dict[str, dict[float, float]] = {}
    for each in trials.values():
        error = math.inf if each["validation"] is None else each["validation"]
        by_arm.setdefault(each["cell"]["arm"], {})[each["cell"]["lr"]] = error
    further = []
    for arm, errors in by_arm.items():
        rates = sorted(errors)
        best = min(rates, key=lambda rate: errors[rate])
        if best in (rates[0], rates[-1]) and 1 < len(rates) < most and errors[best] < math.inf:
            up = best == rates[-1]
            factor = rates[-1] / rates[-2] if up else rates[0] / rates[1]
            further.append(replace(base, arm=arm, lr=float(f"{best * factor:.3g}")))
    return further


def plan_finals(base: Cell, trials: dict[str, dict[str, Any]], seeds: Sequence[int]) -> list[Cell]:
    """List the cells at each arm's best learning rate, the best shape standing for a family.

    Best is the lowest validation error of the trials; the test set plays no part.

    Args:
        base: Everything but arm, rate and seed.
        trials: Results of the trials, by cell name.
        seeds: Seeds of the cells.

    Raises:
        ConfigError: If no trial succeeded.
    """
    best: dict[str, dict[str, Any]] = {}
    for result in trials.values():
        arm = result["cell"]["arm"]
        if result["validation"] is None:
            continue
        family = arm_of(arm).family or arm
        if family not in best or result["validation"] < best[family]["validation"]:
            best[family] = result
    if not best:
        raise ConfigError("trials must hold at least one that did not fail, got none")
    return [
        replace(base, arm=each["cell"]["arm"], lr=each["cell"]["lr"], seed=seed)
        for seed in seeds
        for each in best.values()
    ]
