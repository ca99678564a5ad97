"""What stopping early saves in seconds: calibrated rules against fixed depths, in turns."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from loopwm.core.halt import Fixed
from loopwm.data.store import RolloutDataset
from loopwm.study.calibrate import Calibration
from loopwm.study.comparison import spread
from loopwm.study.halting import HORIZONS, WORDS
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import Contestant, race, single_thread
from loopwm.study.windows import Sampling, window_rows

if TYPE_CHECKING:
    from loopwm.world.model import WorldModel

BATCHES = (1, 16, 64, 256, 1024, 4096)
RACED = ("OutputDelta", "staged", "first")


def speeds(
    model: "WorldModel",
    data: RolloutDataset,
    rules: Mapping[str, Calibration],
    equal: Mapping[str, int],
) -> list[dict[str, Any]]:
    """Measure CPU seconds by batch size: imagining 15 steps on one thread.

    Args:
        model: A looped model.
        data: Where rows start, and the actions that are taken.
        rules: The calibrated rules by name.
        equal: The fixed depth of equal error, by rule.

    Returns:
        Of each rule and batch size, in this order, what `speed_sheet` makes a row of.
    """
    rows = []
    with single_thread(), torch.no_grad():
        for batch in BATCHES:
            rows += _speed(model, data, rules, equal, batch)
    return sorted(rows, key=lambda row: list(rules).index(row["rule"]))


def speed_sheet(found: Sequence[Sequence[Mapping[str, Any]]], label: str = "") -> Sheet:
    """Make the table of speeds, mean over seeds [lowest, highest].

    Args:
        found: What `speeds` returned for each seed.
        label: Whose speeds they are.
    """
    measured = ("full", "fixed", "early", "iterations", "saved", "seconds", "share", "faster")
    rows = []
    for seeds in zip(*found, strict=True):
        row: dict[str, Any] = {name: seeds[0][name] for name in ("rule", "batch")}
        row["rule"] = WORDS.get(row["rule"], row["rule"])
        row["equal"] = ", ".join(str(each["equal"]) for each in seeds)
        for name in measured:
            values = [each[name] for each in seeds if each[name] is not None]
            row[name] = spread(values) if values else None
        rows.append(row)
    labels = {
        "rule": "rule",
        "batch": "batch",
        "full": "at the typical depth, transitions per CPU second",
        "equal": "fixed depth of equal error, each seed",
        "fixed": "at that depth",
        "early": "under the rule",
        "iterations": "mean iterations",
        "saved": "share of iterations saved",
        "seconds": "of seconds saved",
        "share": "seconds over iterations saved",
        "faster": "speed over equal error",
    }
    return Sheet(
        f"seconds{label and f': {label}'}",
        tuple(Column(*each) for each in labels.items()),
        tuple(rows),
    )


def _speed(
    model: "WorldModel",
    data: RolloutDataset,
    rules: Mapping[str, Calibration],
    equal: Mapping[str, int],
    batch: int,
) -> list[dict[str, Any]]:
    starts = window_rows(data, HORIZONS[-1], 0, Sampling(max_windows=batch))
    starts = np.resize(starts, batch)
    obs = torch.as_tensor(data.obs[starts], dtype=torch.float32)
    steps = starts[:, None] + np.arange(HORIZONS[-1])
    actions = torch.as_tensor(data.action[steps])
    actions = actions.float() if actions.is_floating_point() else actions
    reference = next(iter(rules.values())).reference
    ways: dict[Any, dict[str, Any]] = {depth: {"halt": Fixed(depth)} for depth in equal.values()}
    ways |= {reference: {"halt": Fixed(reference)}}
    ways |= {name: rule.options for name, rule in rules.items()}
    contestants = [
        Contestant(str(way), partial(model.imagine, obs, actions, **options), steps.size)
        for way, options in ways.items()
    ]
    measured = race(contestants, repeats=max(5, min(50, 10_000 // batch)))
    rate = {way: each.cpu_rate for way, each in zip(ways, measured, strict=True)}
    rows = []
    for name, rule in rules.items():
        mean = float(model.imagine(obs, actions, **rule.options).n_iters.double().mean())
        iterations = 1 - mean / reference
        seconds = 1 - rate[reference][0] / rate[name][0]
        row = {
            "rule": name,
            "batch": batch,
            "full": rate[reference][0],
            "equal": equal[name],
            "fixed": rate[equal[name]][0],
            "early": rate[name][0],
            "iterations": mean,
            "saved": iterations,
            "seconds": seconds,
            "share": seconds / iterations if iterations > 0 else None,
            "faster": rate[name][0] / rate[equal[name]][0],
        }
        rows.append(row)
    return rows
