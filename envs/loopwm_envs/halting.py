"""Does stopping early pay on chains? Iterations, errors, and seconds."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from loopwm.core.halt import Fixed, OutputDelta
from loopwm.seed import numpy_rng
from loopwm.study.calibrate import Calibration
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import Contestant, race, single_thread
from loopwm.world.model import WorldModel
from loopwm_envs.extrapolation import CHAIN, TRAINED
from loopwm_envs.spending import MOST, REGRET, calibrated, inputs, spent
from loopwm_envs.transitions import Transitions, sample_transitions

BATCHES = (64, 1024, 4096)


def deployed(rows: int = 3_000) -> dict[str, tuple[Transitions, Transitions]]:
    """Draw what stopping early is calibrated on and then measured on, by name."""

    def draw(name: str, max_depth: int | None) -> Transitions:
        return sample_transitions(numpy_rng(0, "ballchain", name), rows, CHAIN, max_depth)

    return {
        "as trained": (draw("shallow", TRAINED), draw("shallow, measured", TRAINED)),
        "all depths": (draw("any", None), draw("any, measured", None)),
    }


def halting_rows(model: WorldModel, timed: bool) -> tuple[list[dict[str, Any]], ...]:
    """Measure stopping early on each kind of transitions.

    Args:
        model: A looped model.
        timed: Whether seconds are measured too.

    Returns:
        Rows of iterations and errors, and rows of seconds.
    """
    rows, seconds = [], []
    for name, (valid, test) in deployed().items():
        rule = calibrated(model, valid)
        row = halting_row(model, rule, test)
        rows.append({"data": name} | row)
        if timed:
            found = seconds_rows(model, rule, test, row["equal"])
            seconds += [{"data": name} | each for each in found]
    return rows, seconds


def halting_sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """Make the table of `halting_row`, of all seeds."""
    labels = {"data": "transitions", "seed": "seed", "tol": "tolerance", "most": "at most"}
    labels |= {"iterations": "mean iterations", "rmse": "RMSE", "full": f"RMSE, {MOST} iterations"}
    labels |= {"equal": "fixed iterations of equal error", "equal_rmse": "their RMSE"}
    return Sheet("stopping early", tuple(Column(*each) for each in labels.items()), tuple(rows))


def seconds_sheet(rows: Sequence[dict[str, Any]]) -> Sheet:
    """Make the table of `seconds_rows`."""
    labels = {"data": "transitions", "batch": "batch", "equal": "fixed, transitions per CPU second"}
    labels |= {"rule": "stopping early", "faster": "speed over equal error"}
    return Sheet("seconds", tuple(Column(*each) for each in labels.items()), tuple(rows))


def halting_row(model: WorldModel, rule: Calibration, given: Transitions) -> dict[str, Any]:
    """Compare stopping early with the least fixed depth that errs at most 1% more.

    Args:
        model: A looped model.
        rule: The calibrated rule.
        given: Transitions that it was not calibrated on.
    """
    assert isinstance(rule.halt, OutputDelta)
    count, predicted = spent(model, given, rule.halt, rule.max_iters)
    error = _rmse(model, given, predicted)
    equal, fixed = 0, math.inf
    while fixed > (1 + REGRET) * error and equal < MOST:
        equal += 1
        fixed = _rmse(model, given, spent(model, given, Fixed(equal))[1])
    return {
        "tol": rule.halt.tol,
        "most": rule.max_iters,
        "iterations": float(count.mean()),
        "rmse": error,
        "full": _rmse(model, given, spent(model, given, Fixed(MOST))[1]),
        "equal": equal,
        "equal_rmse": fixed,
    }


def seconds_rows(
    model: WorldModel, rule: Calibration, given: Transitions, equal: int
) -> list[dict[str, Any]]:
    """Time stopping early against the fixed depth of equal error, in turns, on one thread.

    Args:
        model: A looped model.
        rule: The calibrated rule.
        given: Transitions; a batch holds the first of them, repeated where it is larger.
        equal: The fixed depth.
    """
    rows = []
    with single_thread(), torch.no_grad():
        for batch in BATCHES:
            obs, action = inputs(given.rows(np.resize(np.arange(len(given)), batch)))
            halts = {"equal": {"halt": Fixed(equal)}, "rule": rule.options}
            contestants = [
                Contestant(name, partial(model.predict, obs, action, **how), batch)
                for name, how in halts.items()
            ]
            fixed, early = race(contestants, repeats=min(300, max(15, 20_000 // batch)))
            faster = early.cpu_rate[0] / fixed.cpu_rate[0]
            rows.append(
                {"batch": batch, "equal": fixed.cpu_rate, "rule": early.cpu_rate, "faster": faster}
            )
    return rows


def row_errors(
    model: WorldModel, given: Transitions, predicted: Float[ndarray, "N O"]
) -> Float[ndarray, " N"]:
    """Return each row's squared error, in variances of the training set's change."""
    error = (predicted - given.next_state) / model.stats.change_std
    return np.square(error).mean(axis=1)


def _rmse(model: WorldModel, given: Transitions, predicted: Float[ndarray, "N O"]) -> float:
    return float(np.sqrt(row_errors(model, given, predicted).mean()))
