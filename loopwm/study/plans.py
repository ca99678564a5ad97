"""Which model ranks plans as the simulator does, and how deep it must refine for that."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from loopwm.data.simulator import task_ends
from loopwm.data.store import RolloutDataset
from loopwm.study.arms import arm_of
from loopwm.study.candidates import Candidates, Trial, simulated_candidates
from loopwm.study.datasets import Experience, study_data
from loopwm.study.efficiency import Cell
from loopwm.study.plan import Plan, run_plan
from loopwm.study.planning import depth_choices, evaluate_planning, planning_sheet
from loopwm.study.recipe import CHOSEN_RATES, DATA, RATE, Computed, Options, training
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import single_thread

if TYPE_CHECKING:
    from loopwm.world.ensemble import Ensemble
    from loopwm.world.model import WorldModel

ARMS = ("looped", "once", "mlp-3x256", "gru", "mlp-ensemble")
_SHOWN = ("rank_correlation", "regret", "recall", "false_alarm")

_UNCERTAIN_ENDS = (
    "A quarter of the training rows come from a variant of the task that never terminates, so "
    "that a learned termination is uncertain where the task's is not; hence the table with the "
    "task's own rule in its place (`model.use`)."
)

Models = Mapping[str, Sequence["WorldModel | Ensemble"]]


def planning(task: str, options: Options) -> Computed:
    """Train the models, and judge each by candidates that the simulator has judged.

    Args:
        task: Gymnasium id.
        options: Where and how.
    """
    from loopwm.world.build import load

    plan = Plan(Cell(task=task), ARMS, rates=(RATE,), own=CHOSEN_RATES[task], updates=2_000)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    models: dict[str, list[Any]] = {}
    for result in finals.values():
        path = options.work / "models" / Cell(**result["cell"]).name
        models.setdefault(arm_of(result["cell"]["arm"]).label, []).append(load(path))
    data = study_data(Experience(task, plan.base.rows), options.work / "data")
    method = (
        "At held-out states, candidate sequences (what was really done, and noise) are scored by "
        "the simulator and by each model. Rank correlation: of predicted and true returns, mean "
        "over states. Regret: what the model's choice falls short of the best candidate, over what "
        "a random one does. Recall: share of the candidates that end the episode which the model "
        "says end it. Over seeds [lowest, highest]; the table of depths, 95% over episodes.",
        _UNCERTAIN_ENDS if data.test.terminated.any() else "Here no state ends an episode.",
        *(DATA, training(plan)),
    )
    return plan.seeds, method, planning_sheets(models, data.test)


def planning_sheets(
    models: Models, test: RolloutDataset, trial: Trial = Trial()
) -> tuple[Sheet, ...]:
    """Judge models with what they learned, with the task's termination, and at several depths.

    Where no episode of the test ends, the second table would repeat the first and is left out.

    Args:
        models: Models of each arm, a looped one first.
        test: Held-out experience.
        trial: How many states and candidates.
    """
    given = simulated_candidates(test, trial)
    with single_thread():
        learned = _compared("everything learned", models, given)
        for each in _members(models):
            each.use(termination_fn=partial(_ends, task_ends(test.meta)))
        title = "termination by the task's own rule"
        known = (_compared(title, models, given),) if test.terminated.any() else ()
        first = next(iter(models.values()))[0]
        depths = {
            name: evaluate_planning(first, given, halt=halt)
            for name, halt in depth_choices().items()
        }
        for each in _members(models):
            each.use()
    title = "how deep to refine while planning: looped, first seed, the task's own termination"
    return learned, *known, planning_sheet(depths, title)


def _compared(title: str, models: Models, given: Candidates) -> Sheet:
    rows = []
    for label, seeds in models.items():
        reports = [evaluate_planning(each, given) for each in seeds]
        row: dict[str, Any] = {"model": label}
        for name in _SHOWN:
            values = [getattr(each, name)[0] for each in reports]
            known = [value for value in values if not np.isnan(value)]
            row[name] = [float(np.mean(known)), min(known), max(known)] if known else None
        row["cpu_ms"] = float(np.mean([each.cpu_ms for each in reports]))
        rows.append(row)
    columns = (
        Column("model"),
        Column("rank_correlation", "rank correlation"),
        Column("regret"),
        Column("recall", "recall of ends"),
        Column("false_alarm", "false alarms"),
        Column("cpu_ms", "CPU ms a state"),
    )
    return Sheet(title, columns, tuple(rows))


def _members(models: Models) -> "list[WorldModel]":
    return [
        one
        for seeds in models.values()
        for each in seeds
        for one in getattr(each, "members", [each])
    ]


def _ends(rule: Any, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return torch.as_tensor(rule(next_obs.detach().cpu().numpy()), device=next_obs.device)
