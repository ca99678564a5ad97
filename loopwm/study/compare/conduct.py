"""Do what `loopwm compare` was asked for: estimate, list, run, submit, report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from loopwm.study.compare.cost import cost_sheet, estimate
from loopwm.study.compare.launch import run_one, run_workers, submit
from loopwm.study.compare.rounds import bundles
from loopwm.study.compare.settings import Settings
from loopwm.study.compare.study import Stage, outcome, results_of, run_study, stages_of, trials_of
from loopwm.study.compare.summary import (
    generalisation,
    headline,
    law_sheet,
    method,
    save_figures,
    save_outcome,
    sheets_of_outcome,
)
from loopwm.study.provenance import provenance
from loopwm.study.recipe import Computed, Options
from loopwm.study.results import Sheet, Study, rich_table, save_study

Say = Callable[[str], None]
TITLE = "What is looping worth? Sizes at equal error"
QUESTION = "How many times the looped model's parameters do unlooped models need for its error?"


@dataclass(frozen=True)
class Order:
    """Say what is to be done.

    Attributes:
        settings: The study.
        name: Its name in the record.
        folder: Where data, results and checkpoints are kept.
        mode: "run", "submit", "estimate", "list", "only" or "report".
        workers: Processes of "run".
        jobs: Jobs of "submit".
        hours: Longest that a job may run.
        only: Name of the trial of "only".
        results: Where the tables go for the page of results, or None.
    """

    settings: Settings
    name: str
    folder: Path
    mode: str = "run"
    workers: int = 1
    jobs: int = 0
    hours: float = 24.0
    only: str = ""
    results: Path | None = None


def conduct(order: Order, screen: Console, say: Say) -> None:
    """Do it.

    Args:
        order: What is to be done.
        screen: Where tables are shown.
        say: Receives lines of text.
    """
    stages, folder = stages_of(order.settings), order.folder
    if order.mode == "list":
        for name in _names(stages, folder):
            say(name)
        return
    if order.mode == "only":
        there = run_one(order.only, stages, folder)
        say("done" if there else "another process is working on it")
        return
    if order.mode != "report":
        screen.print(rich_table(cost_sheet(estimate(stages, folder, say))))
    if order.mode == "estimate":
        return
    if order.mode == "submit":
        names = submit(order.settings, folder, order.jobs, order.hours)
        say(f"submitted {', '.join(names)}; see them end in {folder / 'jobs'}, then --report")
        return
    if order.mode == "run":
        _run(order, say)
    _report(order, screen, say)


def _names(stages: Sequence[Stage], folder: Path) -> Iterator[str]:
    """Name what is left to train, of models that are trained at once the first one."""
    for stage in stages:
        scene, *rounds = trials_of(stage, folder)
        for trials in rounds:
            done = results_of(trials, folder)
            for group in bundles(trials, scene):
                left = [trial.name for trial in group if trial.name not in done]
                yield from left[:1]


def _run(order: Order, say: Say) -> None:
    if order.workers == 1:
        import torch

        torch.set_num_threads(1)
        run_study(order.settings, order.folder, say)
        return
    seen: list[int] = [-1]

    def watch() -> None:
        done = sum(1 for _ in (order.folder / "cells").glob("*.json"))
        if done > seen[-1]:
            seen.append(done)
            say(f"{done} models done")

    run_workers(order.settings, order.folder, order.workers, watch)


def _report(order: Order, screen: Console, say: Say) -> None:
    found = outcome(order.settings, order.folder)
    save_outcome(found, order.folder / "report")
    screen.print(rich_table(headline(found)))
    if (beyond := generalisation(found)).rows:
        screen.print(rich_table(beyond))
    if found.laws:
        screen.print(rich_table(law_sheet(dict(found.laws))))
    say(f"tables and figures: {order.folder / 'report'}")
    if order.results is not None:
        save_study(study_of(order, sheets_of_outcome(found)), order.results)
        save_figures(found, order.results.parent / "figures", f"{order.name}-")
        say(f"for the page of results: {order.results / order.name}.json")


def compared(options: Options) -> Computed:
    """Recompute the comparison of the record: `loopwm results --rerun compare`."""
    settings, folder = Settings(), options.work / "compare"
    run_study(settings, folder, options.report)
    found = outcome(settings, folder)
    if options.figures is not None:
        save_figures(found, options.figures, "compare-")
    return settings.seeds, method(settings), tuple(sheets_of_outcome(found))


def study_of(order: Order, sheets: Sequence[Sheet]) -> Study:
    """Return a study's tables as a part of the record."""
    file = order.name.removeprefix("compare-")
    command = "loopwm compare --quick" if file == "quick" else f"loopwm compare {file}.toml"
    source = provenance(command, order.settings.seeds)
    said = method(order.settings)
    return Study(order.name, TITLE, QUESTION, said, tuple(sheets), source, order=5)
