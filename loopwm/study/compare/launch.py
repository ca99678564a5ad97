"""Run a comparison in several processes: of this machine, or as jobs of a cluster."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from loopwm.errors import ConfigError, require
from loopwm.study.compare.rounds import bundles, run_all
from loopwm.study.compare.settings import Settings
from loopwm.study.compare.study import Stage, results_of, run_study, trials_of
from loopwm.study.lanes import run_lanes


def work(settings: Settings, folder: Path) -> None:
    """Run what no other process has taken, on one thread, until all is done."""
    import torch

    torch.set_num_threads(1)
    run_study(settings, folder)


def run_workers(
    settings: Settings, folder: Path, workers: int, watch: Callable[[], None] = lambda: None
) -> None:
    """Run a study in processes of this machine that share its folder.

    Args:
        settings: The study.
        folder: Where data, results and checkpoints are kept.
        workers: Number of processes.
        watch: Called again and again while they run.
    """
    run_lanes([[partial(work, settings, folder)] for _ in range(workers)], watch)


def submit(settings: Settings, folder: Path, jobs: int, hours: float) -> list[str]:
    """Submit jobs of one core each to the cluster that submitit finds (Slurm, or this machine).

    The jobs share the folder, which every node must see; one that ends early is replaced by
    submitting again.

    Args:
        settings: The study.
        folder: Where data, results, checkpoints and the jobs' logs are kept.
        jobs: Number of jobs.
        hours: Longest that a job may run.

    Returns:
        Their names.

    Raises:
        MissingExtra: If submitit is not installed.
    """
    submitit = require("submitit", "cluster")
    executor = submitit.AutoExecutor(folder=str(folder / "jobs"))
    executor.update_parameters(timeout_min=max(1, round(60 * hours)), cpus_per_task=1)
    return [str(executor.submit(work, settings, folder).job_id) for _ in range(jobs)]


def run_one(name: str, stages: list[Stage], folder: Path) -> bool:
    """Run a single trial, and those that are trained at once with it, as an independent command.

    Args:
        name: Name of the trial; those of the second round exist once the first has been run.
        stages: The comparisons.
        folder: Where data, results and checkpoints are kept.

    Returns:
        Whether its result is there; not if another process is working on it.

    Raises:
        ConfigError: If there is no such trial yet.
    """
    for stage in stages:
        scene, *rounds = trials_of(stage, folder)
        for trials in rounds:
            if name not in {trial.name for trial in trials}:
                continue
            if name in results_of(trials, folder):
                return True
            named = (g for g in bundles(trials, scene) if name in {trial.name for trial in g})
            return name in run_all(next(named), scene, folder, lambda line: None, wait=False)
    raise ConfigError(f"there is no trial {name!r}; --list names those that can be run")
