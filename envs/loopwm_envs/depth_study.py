"""The study of depth on MuJoCo tasks: `loopwm results --rerun depth-hopper`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from loopwm.core.halt import OutputDelta
from loopwm.data.actor import shipped_actors
from loopwm.data.collect import collect
from loopwm.data.concat import concat
from loopwm.data.policy import Excitation, PolicyLike
from loopwm.data.store import RolloutDataset
from loopwm.study.comparison import group_cells, spread
from loopwm.study.depth import DepthReport, depth_report
from loopwm.study.efficiency import Cell
from loopwm.study.loops import models_of
from loopwm.study.plan import Plan, run_plan
from loopwm.study.recipe import RATE, Computed, Options, Recipe, training
from loopwm.study.results import Column, Sheet
from loopwm.study.windows import Sampling
from loopwm.world.ensemble import Ensemble
from loopwm.world.model import WorldModel
from loopwm_envs.difficulty import TransitionDifficulty

RULE = OutputDelta(0.05)
ROWS = 20_000  # in equal parts of excitation and each stage of the test policy
SEED = 7
_METHOD = (
    "One step ahead from real observations that no model was trained on, each labelled by exact "
    "replay in the simulator (`loopwm_envs.TransitionDifficulty`): a quarter of the steps each "
    "from excitation and from the early, middle and late policy of the test set. Iterations are "
    f"those of OutputDelta({RULE.tol:g}), at most twice the typical depth.",
    "Partial rank correlations: ranks of both sides, less what a linear fit on the ranks of the "
    "speed, and of the size of the predicted change, explains. An absolute tolerance takes more "
    "iterations wherever the predicted change is large, so only the last column is about "
    "difficulty. Disagreement is that of the models of the three seeds.",
)


def compute(task: str, options: Options) -> Computed:
    """Train the looped models that are not trained yet, and correlate their iterations."""
    plan = Plan(Cell(task=task), arms=("looped",), rates=(RATE,))
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    models = models_of(group_cells(finals)[0], options.work)
    options.report("labelled steps")
    data = labelled(task, ROWS)
    options.report("correlations")
    return plan.seeds, (*_METHOD, training(plan)), sheets(models, data)


def labelled(task: str, rows: int) -> RolloutDataset:
    """Collect steps of a task with difficulty labels, from excitation and the test policies.

    Args:
        task: Gymnasium id of a task with shipped actors.
        rows: Steps of all parts together.
    """
    actors = shipped_actors(task, "test")
    policies: dict[str, PolicyLike] = {"excitation": Excitation()}
    policies |= {actor.info.stage: actor for actor in actors}
    parts = [
        collect(
            partial(_watched, task),
            steps=rows // len(policies),
            seed=SEED + place,
            policy=policy,
            unclipped=actors[0].info.unclipped,
            progress=False,
        )
        for place, policy in enumerate(policies.values())
    ]
    return concat(parts, list(policies))


def _watched(task: str) -> "gym.Env[Any, Any]":
    return TransitionDifficulty(gym.make(task))


def sheets(models: Sequence[WorldModel], data: RolloutDataset) -> tuple[Sheet, ...]:
    """Make the tables: errors by depth, and what the iterations go with.

    Args:
        models: Looped models of several seeds.
        data: Labelled steps.
    """
    everything = Sampling(max_windows=len(data))
    # Each seed's loop in turn, beside the disagreement of all.
    turns = [[*models[place:], *models[:place]] for place in range(len(models))]
    reports = [depth_report(Ensemble(turn), data, RULE, sampling=everything) for turn in turns]
    errors, _, first = reports[0].sheets()
    return (
        related(reports),
        replace(first, title=f"first seed: {first.title}"),
        replace(errors, title="error by iterations, first seed"),
    )


def related(reports: Sequence[DepthReport]) -> Sheet:
    """Make the table of correlations over seeds, mean [lowest, highest]."""
    rows = []
    for name in reports[0].raw:
        row: dict[str, Any] = {"quantity": name}
        for way in ("raw", "matched", "beyond"):
            values = [getattr(report, way)[name].value for report in reports]
            row[way] = None if np.isnan(values).any() else spread(values)
        rows.append(row)
    columns = (
        Column("quantity", ""),
        Column("raw"),
        Column("matched", "at matched speed"),
        Column("beyond", "and at matched predicted change"),
    )
    steps, episodes = reports[0].steps, reports[0].episodes
    title = f"rank correlation with the iterations; {steps:,} steps of {episodes} episodes"
    return Sheet(title, columns, tuple(rows))


def _recipe(task: str, place: int) -> Recipe:
    return Recipe(
        f"{task}: what do iterations go with?",
        "Does the loop spend its iterations where a step is hard?",
        place,
        partial(compute, task),
    )


HOPPER = _recipe("Hopper-v5", 39)
HALFCHEETAH = _recipe("HalfCheetah-v5", 39)
