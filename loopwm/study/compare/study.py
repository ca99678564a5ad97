"""A comparison over tasks, control intervals and training budgets, and the law of iterations."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from loopwm.errors import DataError
from loopwm.files import read_json
from loopwm.study.accuracy import PredictionReport
from loopwm.study.compare.assemble import assemble
from loopwm.study.compare.law import Law, Runs, fit_law
from loopwm.study.compare.places import STANDARD, Place, experience
from loopwm.study.compare.report import ComparisonReport
from loopwm.study.compare.rounds import first_round, run_rounds, second_round
from loopwm.study.compare.settings import Settings
from loopwm.study.compare.shifts import SHIFTS
from loopwm.study.compare.terms import FAMILIES, Family, Terms, families_of
from loopwm.study.compare.trial import Result, Scene, Trial

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """Name one comparison of a study, or one budget of data of its law.

    Attributes:
        place: What it is trained and tested on.
        terms: What every arm gets.
        families: The arms.
        law: Whether it belongs to the law.
    """

    place: Place
    terms: Terms
    families: Mapping[str, Family]
    law: bool = False

    @property
    def name(self) -> str:
        """Name the stage for people and files."""
        name = f"{self.place.name}_u{self.terms.fit.updates}"
        return f"{name}_law" if self.law else name


@dataclass(frozen=True)
class Outcome:
    """Hold what a study found, as far as it has been run.

    Attributes:
        reports: Stages with the reports of those that have any result, in order.
        laws: The law of each task.
        runs: What each law was fitted to.
        missing: Stages without any result, and laws without enough.
    """

    reports: tuple[tuple[Stage, ComparisonReport], ...]
    laws: Mapping[str, Law] = field(default_factory=dict)
    runs: Mapping[str, Runs] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def stages_of(settings: Settings) -> list[Stage]:
    """List the comparisons of a study: the smallest budget first, then shifts, then the law."""
    arms, found = families_of(settings.arms), []
    for updates in sorted(settings.updates):
        for task in settings.tasks:
            for skip in settings.skips:
                place = _place(settings, task, skip, settings.rows)
                found.append(Stage(place, settings.terms(updates), arms))
    found += _shifted(settings)
    loops = {f"loops-{count}": FAMILIES[f"loops-{count}"] for count in settings.loops}
    for task in settings.tasks if loops else ():
        for rows in settings.loop_rows:
            place = _place(settings, task, 1, rows)
            found.append(Stage(place, settings.law_terms(), loops, law=True))
    return found


def _shifted(settings: Settings) -> list[Stage]:
    terms, arms = settings.terms(max(settings.updates)), families_of(settings.shift_arms)
    found = []
    for name in settings.shifts:
        shift = SHIFTS[name]
        for task in settings.tasks:
            if shift.applies(task, STANDARD):
                place = _place(settings, task, 1, settings.rows)
                place = replace(place, mixture=shift.mixture or place.mixture, shift=name)
                found.append(Stage(place, terms, arms))
    return found


def scene_of(stage: Stage, folder: Path, say: Say = lambda line: None) -> Scene:
    """Return what the trials of a stage share, its data collected."""
    return Scene(
        stage.families, experience(stage.place, folder / "data", say), stage.terms, stage.name
    )


def run_study(
    settings: Settings, folder: Path, say: Say = lambda line: None, wait: bool = True
) -> None:
    """Run all of a study that has not been run; several processes may share the folder.

    Args:
        settings: The study.
        folder: Where data, results and checkpoints are kept.
        say: Receives a line about each piece of work begun.
        wait: Whether to wait for trials that other processes are working on.
    """
    for stage in stages_of(settings):
        run_rounds(scene_of(stage, folder, say), folder, say, wait)


def trials_of(
    stage: Stage, folder: Path, say: Say = lambda line: None
) -> tuple[Scene, list[Trial], list[Trial]]:
    """List the trials of a stage; those of the second round as far as the first has been run."""
    scene = scene_of(stage, folder, say)
    first = first_round(scene)
    return scene, first, second_round(scene, first, results_of(first, folder))


def results_of(trials: Sequence[Trial], folder: Path) -> dict[str, Result]:
    """Read the results of trials that are there, by name."""
    paths = {each.name: folder / "cells" / f"{each.name}.json" for each in trials}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def outcome(settings: Settings, folder: Path) -> Outcome:
    """Assemble whatever of a study has been run.

    Args:
        settings: The study.
        folder: Where its results are kept.
    """
    reports, missing = [], []
    cells: dict[str, list[tuple[int, Result]]] = {}
    for stage in stages_of(settings):
        _, first, second = trials_of(stage, folder)
        found = results_of([*first, *second], folder)
        if stage.law:
            rows = stage.place.rows
            pairs = [(rows, each) for each in found.values() if "report" in each]
            cells.setdefault(stage.place.task, []).extend(pairs)
            continue
        try:
            reports.append((stage, assemble(stage.families, stage.terms, first, second, found)))
        except DataError as error:
            missing.append(f"{stage.name}: {error}")
    laws, runs = {}, {}
    for task, pairs in cells.items():
        try:
            runs[task] = runs_of(pairs, settings.horizons[0])
            laws[task] = fit_law(runs[task])
        except DataError as error:
            missing.append(f"the law of {task}: {error}")
    return Outcome(tuple(reports), laws, {task: runs[task] for task in laws}, tuple(missing))


def runs_of(pairs: Sequence[tuple[int, Result]], k: int) -> Runs:
    """Gather for the law the seeds of each model, at the rate that the validation set chose.

    A model that lacks a seed, or whose error is not finite, is left out and counted.

    Args:
        pairs: Rows of training data and result of every trial.
        k: Horizon whose error is fitted.

    Raises:
        DataError: If there is none.
    """
    groups: dict[tuple[int, int, int], dict[float, list[Result]]] = {}
    for rows, result in pairs:
        trial = result["trial"]
        key = (int(trial["arm"].removeprefix("loops-")), trial["width"], rows)
        groups.setdefault(key, {}).setdefault(trial["lr"], []).append(result)
    # The rate with all the seeds is the chosen one; of a single seed, the best.
    every = {key: max(rates.values(), key=_preference) for key, rates in groups.items()}
    most = max((len(each) for each in every.values()), default=0)
    found = {
        key: [PredictionReport.from_dict(dict(each["report"])).rmse[k] for each in results]
        for key, results in every.items()
        if len(results) == most
    }
    errors = {key: each for key, each in found.items() if np.isfinite(each).all()}
    if not errors:
        raise DataError("no model of the law has been trained yet, with errors that are finite")
    chosen = {key: every[key] for key in errors}
    first = [results[0] for results in chosen.values()]
    repeated = np.array([each["repeated_parameters"] for each in first], np.float64)
    total = np.array([each["parameters"] for each in first], np.float64)
    loops, rows = (np.array([key[i] for key in chosen], np.float64) for i in (0, 2))
    return Runs(
        *(loops, total - repeated, repeated, rows, np.array([*errors.values()])),
        horizon=k,
        left_out=len(every) - len(chosen),
    )


def _preference(results: Sequence[Result]) -> tuple[int, float]:
    """Prefer the rate with all the seeds, which is the chosen one; of a single seed, the best."""
    errors = [each["validation"] for each in results if each["validation"] is not None]
    return len(results), -min(errors, default=math.inf)


def _place(settings: Settings, task: str, skip: int, rows: int) -> Place:
    return Place(task, skip, rows, settings.valid_rows, settings.test_rows, settings.mixture)
