"""Which trials make a comparison: as many rates for every arm and size, then the other seeds."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwm.errors import ConfigError
from loopwm.study.cells import run_groups
from loopwm.study.compare.sizing import width_for
from loopwm.study.compare.terms import Shape
from loopwm.study.compare.trial import (
    Result,
    Scene,
    Trial,
    bundle_name,
    configured,
    identity_of,
    run_bundle,
)
from loopwm.study.strict import plain
from loopwm.world.config import ModelConfig
from loopwm.world.fit import trains_abreast

Report = Callable[[str], None]
_WAIT = 5.0


def first_round(scene: Scene) -> list[Trial]:
    """List the trials that choose rates and shapes: all of them, at every size, the first seed.

    Raises:
        ConfigError: If an arm cannot have one of the sizes, or has one width at two of them.
    """
    terms, trials = scene.terms, []
    for arm, family in scene.families.items():
        for index, shape in enumerate(family.shapes):
            identity = identity_of(scene, shape, family.members)
            for size, width in _widths(scene, arm, shape).items():
                for lr in terms.rates:
                    seed, updates = terms.seeds[0], terms.fit.updates
                    where = (scene.place, arm, index, size, width)
                    trials.append(Trial(*where, lr, seed, updates, identity))
    # The largest first: what takes longest is not left to one worker at the end.
    return sorted(trials, key=lambda each: -each.size)


def second_round(scene: Scene, first: Sequence[Trial], found: Mapping[str, Result]) -> list[Trial]:
    """List the trials with the other seeds, at each arm's and size's chosen rate and shape.

    Nothing is chosen from some of the trials: what is missing may be better.
    """
    left = {(each.arm, each.size) for each in first if each.name not in found}
    chosen = [each for at, each in chosen_of(first, found).items() if at not in left]
    return [replace(each, seed=seed) for seed in scene.terms.seeds[1:] for each in chosen]


def chosen_of(first: Sequence[Trial], found: Mapping[str, Result]) -> dict[tuple[str, int], Trial]:
    """Choose rate and shape for each arm and size by the validation set; the test plays no part.

    Args:
        first: The trials of the first round.
        found: Results by name; trials that are missing or failed are not chosen, and one whose
            validation error is infinite only where all are.
    """
    best: dict[tuple[str, int], Trial] = {}
    for trial in first:
        place = (trial.arm, trial.size)
        if trial.name not in found or "failed" in found[trial.name]:
            continue
        if place not in best or _error(trial, found) < _error(best[place], found):
            best[place] = trial
    return best


def run_rounds(
    scene: Scene, folder: Path | None = None, report: Report = lambda line: None, wait: bool = True
) -> tuple[list[Trial], list[Trial], dict[str, Result]]:
    """Run both rounds; what is finished in `folder` is not run again.

    Several processes, on several machines that share the folder, may run the same rounds at once:
    each takes trials that no other has taken.

    Args:
        scene: The comparison.
        folder: Where results and checkpoints are kept; None keeps nothing.
        report: Receives a line for each trial begun.
        wait: Whether to wait for trials that other processes are working on.

    Returns:
        The trials of the first and of the second round, and all results by name.
    """
    first = first_round(scene)
    found = run_all(first, scene, folder, report, wait)
    second = second_round(scene, first, found)
    return first, second, found | run_all(second, scene, folder, report, wait)


def run_all(
    trials: Sequence[Trial], scene: Scene, folder: Path | None, report: Report, wait: bool = True
) -> dict[str, Result]:
    """Run trials, or take their results from the folder.

    Args:
        trials: Which.
        scene: What they share.
        folder: Where results are kept, or None.
        report: Receives a line for each trial begun.
        wait: Whether to wait for those that other processes are working on.
    """
    groups = bundles(trials, scene)
    if folder is None:
        found: dict[str, Result] = {}
        for position, group in enumerate(groups):
            report(f"{position + 1} of {len(groups)}: {bundle_name(group)}")
            found |= dict(run_bundle(group, scene))
        return found

    def compute(group: Sequence[Trial]) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((name, plain(result)) for name, result in run_bundle(group, scene, folder))

    done = run_groups(groups, folder / "cells", compute, report)
    while wait and len(done) < len({each.name for each in trials}):
        time.sleep(_WAIT)
        done = run_groups(groups, folder / "cells", compute, report)
    return {**done}


def bundles(trials: Sequence[Trial], scene: Scene) -> list[list[Trial]]:
    """Group trials that are trained at once: those that differ in rate and seed alone.

    Args:
        trials: Which.
        scene: What they share.

    Returns:
        The groups in the order of their first trials; models that cannot train so stand alone.
    """
    able: dict[tuple[str, int], bool] = {}
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in dict.fromkeys(trials):
        shape = scene.shape(trial)
        kind = (trial.arm, trial.shape)
        if kind not in able:
            able[kind] = (
                isinstance(shape, ModelConfig)
                and scene.families[trial.arm].members == 1
                and trains_abreast(
                    scene.data.train, configured(shape, trial.width, scene.terms), scene.terms.fit
                )
            )
        own = (0.0, 0) if able[kind] else (trial.lr, trial.seed)
        groups.setdefault((replace(trial, lr=0.0, seed=0), *own), []).append(trial)
    return list(groups.values())


def _widths(scene: Scene, arm: str, shape: Shape) -> dict[int, int]:
    """Return the width of a shape at each size."""
    times = scene.families[arm].times
    sizes = [times * each for each in scene.terms.sizes]
    found = {size: width_for(shape, size, scene.data.train, arm) for size in sizes}
    for width in found.values():
        alike = [each for each in found if found[each] == width]
        # A trial is named by its width: two sizes of one width would be one model.
        if len(alike) > 1:
            raise ConfigError(
                f"sizes must lie further apart: the arm {arm!r} has width={width} at each of "
                f"{', '.join(f'{each:,}' for each in alike)} parameters"
            )
    return found


def _error(trial: Trial, found: Mapping[str, Result]) -> float:
    error = found.get(trial.name, {}).get("validation")
    return math.inf if error is None else float(error)
