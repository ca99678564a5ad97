"""Checkpoints that err alike in distribution, and how they err beyond it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from loopwm.study.comparison import spread
from loopwm.study.results import Column, Sheet
from loopwm_envs.extrapolation import TRAINED

Result = Mapping[str, Any]
# What a model errs: `valid` in distribution, and `depths` by causal depth.
Errors = Mapping[str, Any]

BEYOND = (4, 5, 6)


def by_arm(results: Sequence[Result], seed: int) -> dict[str, Result]:
    """Return the results of one seed by arm."""
    return {each["cell"]["arm"]: each for each in results if each["cell"]["seed"] == seed}


def last(result: Result, iterations: int) -> Errors:
    """Return what a model errs at the end of training."""
    return result["checkpoints"][-1][str(iterations)]


def matched(results: Mapping[str, Result], arms: Sequence[str], iterations: int) -> dict[str, Any]:
    """Choose for each arm the checkpoint that errs in distribution as a level that all reach.

    The level is the lowest such error of the arm whose lowest is the highest; nearest is by ratio.
    What lies beyond the training distribution plays no part.

    Args:
        results: Results of one seed, by arm.
        arms: The arms that are matched with one another.
        iterations: Iterations, or blocks, at which they are measured.

    Returns:
        What each arm errs at its checkpoint.
    """
    points = {arm: [each[str(iterations)] for each in results[arm]["checkpoints"]] for arm in arms}
    level = max(min(each["valid"] for each in found) for found in points.values())
    return {
        arm: min(found, key=lambda each: abs(math.log(each["valid"] / level)))
        for arm, found in points.items()
    }


def ratio_sheet(
    title: str, seeds: Sequence[Mapping[str, Errors]], labels: Mapping[str, str], against: str
) -> Sheet:
    """Make the table of NMSE over that of one arm, mean over seeds [lowest, highest].

    Args:
        title: Heading.
        seeds: For each seed, what the arms err.
        labels: What the table calls the arms.
        against: The arm that all are compared with.
    """
    rows = []
    for arm in seeds[0]:
        if arm == against:
            continue
        row: dict[str, Any] = {"model": labels[arm]}
        row["valid"] = spread([each[arm]["valid"] / each[against]["valid"] for each in seeds])
        for depth in BEYOND:
            row[f"depth_{depth}"] = spread(
                [_at(each[arm], depth) / _at(each[against], depth) for each in seeds]
            )
        rows.append(row)
    columns = [Column("model"), Column("valid", f"depth up to {TRAINED} (validation)")]
    columns += [Column(f"depth_{depth}", f"depth {depth}") for depth in BEYOND]
    return Sheet(title, tuple(columns), tuple(rows))


def error_sheet(
    title: str, seeds: Sequence[Mapping[str, Errors]], labels: Mapping[str, str]
) -> Sheet:
    """Make the table of NMSE by causal depth, mean over seeds [lowest, highest]."""
    depths = list(next(iter(seeds[0].values()))["depths"])
    rows = []
    for arm in seeds[0]:
        row: dict[str, Any] = {"model": labels[arm]}
        row["valid"] = spread([each[arm]["valid"] for each in seeds])
        row |= {f"depth_{d}": spread([_at(each[arm], d) for each in seeds]) for d in depths}
        rows.append(row)
    columns = [Column("model"), Column("valid", "validation")]
    columns += [Column(f"depth_{d}", f"depth {d}", 2) for d in depths]
    return Sheet(title, tuple(columns), tuple(rows))


def beyond(errors: Errors) -> float:
    """Return the mean NMSE of the causal depths just beyond those trained."""
    return sum(_at(errors, depth) for depth in BEYOND) / len(BEYOND)


def _at(errors: Errors, depth: int | str) -> float:
    return errors["depths"][str(depth)]
