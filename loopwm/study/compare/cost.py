"""What a comparison will cost, measured by a few updates of every model before it starts."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loopwm.study.compare.sizing import make, seconds_per_update
from loopwm.study.compare.study import Stage, results_of, trials_of
from loopwm.study.compare.trial import Result, Scene, Trial, configured
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import single_thread
from loopwm.world.config import ModelConfig


@dataclass(frozen=True)
class Cost:
    """State what a stage will cost.

    Attributes:
        name: Name of the stage.
        models: Models to train in both rounds.
        done: Models that are there already.
        seconds: CPU seconds of what is not.
    """

    name: str
    models: int
    done: int
    seconds: float


def estimate(
    stages: list[Stage], folder: Path, say: Callable[[str], None] = lambda line: None
) -> list[Cost]:
    """Measure what every stage will cost on this machine, on one thread.

    Every model is built and updated three times; what evaluation takes is measured too. What the
    second round trains is known where the first one is finished. Stages that share task and sizes
    share the measurements.

    Args:
        stages: The comparisons.
        folder: Where data and results are kept; data that is missing is collected.
        say: Receives a line for each part that is collected.
    """
    timed: dict[tuple[str, str, int, int], tuple[float, float]] = {}
    costs = []
    for stage in stages:
        scene, first, second = trials_of(stage, folder, say)
        done = results_of([*first, *second], folder)
        total = 0.0
        for trial, runs in _left(scene, first, second, done):
            key = (stage.place.task, trial.arm, trial.shape, trial.size)
            if key not in timed:
                with single_thread():
                    timed[key] = _timed(trial, scene)
            per_update, measuring = timed[key]
            members = scene.families[trial.arm].members
            total += runs * members * (trial.updates * per_update + measuring)
        models = len(first) + _further(scene) * len({(each.arm, each.size) for each in first})
        costs.append(Cost(stage.name, models, len(done), total))
    return costs


def cost_sheet(costs: list[Cost]) -> Sheet:
    """Make the table of costs, their sum last."""
    columns = (
        Column("stage"),
        Column("models"),
        Column("done", "done"),
        Column("hours", "CPU hours"),
    )
    rows: list[dict[str, Any]] = [
        {"stage": c.name, "models": c.models, "done": c.done, "hours": c.seconds / 3600}
        for c in costs
    ]
    whole = sum(c.seconds for c in costs) / 3600
    sums = {"models": sum(c.models for c in costs), "done": sum(c.done for c in costs)}
    rows.append({"stage": "all", **sums, "hours": whole})
    return Sheet("what is left to run, measured on this machine", columns, tuple(rows))


def _left(
    scene: Scene, first: Sequence[Trial], second: Sequence[Trial], done: Mapping[str, Result]
) -> Iterator[tuple[Trial, float]]:
    """List the trials that are still to run, and how often."""
    for trial in (*first, *second):
        if trial.name not in done:
            yield trial, 1.0
    chosen = {(each.arm, each.size) for each in second}
    for trial in first:
        if (trial.arm, trial.size) not in chosen:
            # Each size has its further seeds once, whichever trial is chosen: a share for each.
            tried = len(scene.terms.rates) * len(scene.families[trial.arm].shapes)
            yield trial, _further(scene) / tried


def _further(scene: Scene) -> int:
    return len(scene.terms.seeds) - 1


def _timed(trial: Trial, scene: Scene) -> tuple[float, float]:
    """Return the seconds of an update, and of one evaluation on validation and test windows."""
    shape, terms = scene.shape(trial), scene.terms
    if isinstance(shape, ModelConfig):
        shape = configured(shape, trial.width, terms)
    model: Any = make(shape, trial.width, scene.data.train, 0, trial.arm)
    per_update = seconds_per_update(model, scene.data.train, terms)
    batch = min(terms.windows, len(scene.data.test))
    obs = torch.as_tensor(scene.data.test.obs[:batch]).float()
    action = torch.as_tensor(scene.data.test.action[:batch])
    action = action.float() if action.is_floating_point() else action
    with torch.no_grad():
        state = model.start(obs)
        started = time.process_time()
        model.step(state, action)
        per_step = time.process_time() - started
    sets = 2 if scene.data.shifted is None else 3
    return per_update, sets * per_step * sum(terms.horizons)
