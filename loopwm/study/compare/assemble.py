"""From the results of trials to the report of a comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loopwm.errors import DataError
from loopwm.study.accuracy import PredictionReport
from loopwm.study.compare.audit import differences
from loopwm.study.compare.beyond import beyond
from loopwm.study.compare.curve import envelope
from loopwm.study.compare.difficulty import by_difficulty
from loopwm.study.compare.drawing import Runs, drawn_curves, error_of, errors_at, middle, sizes_of
from loopwm.study.compare.gap import Drawn, Gap, Level, levels_of, ratio
from loopwm.study.compare.report import (
    MEASURES,
    ArmReport,
    ComparisonReport,
    Point,
    reference_of,
)
from loopwm.study.compare.rounds import chosen_of
from loopwm.study.compare.terms import REFERENCE, Family, Terms
from loopwm.study.compare.trial import Result, Trial


def assemble(
    families: Mapping[str, Family],
    terms: Terms,
    first: Sequence[Trial],
    second: Sequence[Trial],
    found: Mapping[str, Result],
) -> ComparisonReport:
    """Make the report of a comparison from whatever of it has been run.

    Args:
        families: The arms by name.
        terms: What every arm got.
        first: Trials of the first round.
        second: Trials of the second round.
        found: Results by name.

    Raises:
        DataError: If not a single model of the reference is there.
    """
    chosen = chosen_of(first, found)
    runs = {place: _runs([each, *_others(each, second)], found) for place, each in chosen.items()}
    members = {name: family.members for name, family in families.items()}
    unequal = differences(_records(families, [*first, *second], found))
    arms = [
        ArmReport(
            name,
            family.label,
            family.members,
            reference_of(members, name),
            _points(name, terms, first, chosen, runs),
        )
        for name, family in families.items()
    ]
    arms = [each for each in arms if each.points]
    if REFERENCE not in {each.name for each in arms}:
        raise DataError(
            f"no model of the arm {REFERENCE!r} has been trained: there is no reference"
        )
    report = ComparisonReport(
        horizons=terms.horizons,
        arms=tuple(arms),
        levels={},
        quality={measure: {} for measure in MEASURES},
        matched={measure: {} for measure in MEASURES},
        differences=tuple(unequal),
        missing=_missing([*first, *second], found),
        notes=_notes(terms),
        asked=len(terms.sizes),
    )
    return _with_ratios(report, runs, terms)


def _with_ratios(
    report: ComparisonReport, runs: Mapping[tuple[str, int], Runs], terms: Terms
) -> ComparisonReport:
    """Add intervals and ratios, horizon by horizon."""
    quality: dict[str, dict[str, dict[int, tuple[Gap, ...]]]] = {m: {} for m in MEASURES}
    matched: dict[str, dict[str, dict[int, Gap]]] = {m: {} for m in MEASURES}
    levels: dict[int, tuple[float, ...]] = {}
    gate: dict[int, Gap] = {}
    outside = {each.arm for each in report.differences}
    arms = {each.name: each for each in report.arms if each.name not in outside}
    for k in report.horizons:
        drawn = drawn_curves(list(arms.values()), runs, errors_at(k))
        if REFERENCE in drawn:
            levels[k] = tuple(each.error for each in _levels(terms, k, drawn[REFERENCE]))
        for name, arm in arms.items():
            if name not in drawn or arm.against not in drawn:
                continue
            base = arms[arm.against]
            # An ensemble errs less than a single model: its levels are those of its own reference.
            errors = _levels(terms, k, drawn[base.name])
            for measure in MEASURES:
                ours, theirs = (
                    drawn[each.name].along(sizes_of(each, measure)) for each in (arm, base)
                )
                gaps = tuple(ratio(ours.size_at(e), theirs.size_at(e)) for e in errors)
                quality[measure].setdefault(name, {})[k] = gaps
                size = middle(base).cost[measure]
                gap = ratio(ours.error_at(size), theirs.error_at(size))
                matched[measure].setdefault(name, {})[k] = gap
        if {"untied", "once", REFERENCE} <= drawn.keys():
            gate[k] = _gate(arms, drawn)
    every = list(arms.values())
    report = replace(report, quality=quality, matched=matched, levels=levels, gate=gate)
    return replace(
        report,
        beyond=beyond(every, runs, report.horizons, terms.levels),
        strata=by_difficulty(every, runs, report.horizons),
    )


def _levels(terms: Terms, k: int, base: Drawn) -> tuple[Level, ...]:
    """Return the levels that were given, or those inside the reference's curve."""
    return tuple(map(Level.fixed, terms.levels.get(k, ()))) or levels_of(base)


def _gate(arms: Mapping[str, ArmReport], drawn: Mapping[str, Drawn]) -> Gap:
    """Compare depth with weights of its own to no depth at all, as large as the looped model."""
    usual = middle(arms[REFERENCE]).cost
    deep = drawn["untied"].along(sizes_of(arms["untied"], "flops")).error_at(usual["flops"])
    return ratio(deep, drawn["once"].error_at(usual["parameters"]))


def _points(
    arm: str,
    terms: Terms,
    first: Sequence[Trial],
    chosen: Mapping[tuple[str, int], Trial],
    runs: Mapping[tuple[str, int], Runs],
) -> tuple[Point, ...]:
    sizes = [size for name, size in chosen if name == arm]
    points = []
    for size in sorted(sizes):
        trial = chosen[arm, size]
        of_size = [each for each in first if (each.arm, each.size) == (arm, size)]
        points.append(_point(trial, of_size, runs[arm, size], terms))
    points = sorted(points, key=lambda each: each.cost["parameters"])
    measured = [(each.cost["parameters"], each.validation) for each in points]
    if not measured:
        return ()
    on = envelope(*np.array(measured, np.float64).T)
    return tuple(replace(each, envelope=index in on) for index, each in enumerate(points))


def _point(trial: Trial, tried: Sequence[Trial], runs: Runs, terms: Terms) -> Point:
    reports = [PredictionReport.from_dict(dict(each["report"])) for each in runs]
    horizons = [k for k in terms.horizons if reports[0].windows[k]]
    gains = [each["plateau"] for each in runs]
    rates = sorted({each.lr for each in tried})
    costs = {name: float(np.median([each[name] for each in runs])) for name in MEASURES}
    return Point(
        size=trial.size,
        width=trial.width,
        shape=trial.shape,
        lr=trial.lr,
        edge=len(rates) > 1 and trial.lr in (rates[0], rates[-1]),
        trials=len(tried),
        seeds=len(runs),
        at_once=max(each.get("at_once", 1) for each in runs),
        cost=costs | {"seconds": float(np.median([each["seconds"] for each in runs]))},
        plateau=None if any(each is None for each in gains) else max(gains),
        validation=_validation(runs),
        rmse={k: error_of(reports, k) for k in horizons},
        diverged={k: max(each.diverged[k] for each in reports) for k in horizons},
        envelope=False,
        shifted=_shifted(runs, terms),
    )


def _validation(runs: Runs) -> float:
    """Return the geometric mean over seeds; one whose error is not finite makes it infinite."""
    errors = [each["validation"] for each in runs]
    return math.inf if None in errors else float(np.exp(np.mean(np.log(errors))))


def _shifted(runs: Runs, terms: Terms) -> dict[int, tuple[float, float, float]]:
    if not all("shifted" in each for each in runs):
        return {}
    reports = [PredictionReport.from_dict(dict(each["shifted"])) for each in runs]
    return {k: error_of(reports, k) for k in terms.horizons if reports[0].windows[k]}


def _others(trial: Trial, second: Sequence[Trial]) -> list[Trial]:
    return [each for each in second if replace(each, seed=trial.seed) == trial]


def _runs(trials: Sequence[Trial], found: Mapping[str, Result]) -> list[Result]:
    """Return the results that are there; of a training that failed nothing was measured."""
    results = [found[each.name] for each in trials if each.name in found]
    return [each for each in results if "report" in each]


def _records(
    families: Mapping[str, Family], trials: Sequence[Trial], found: Mapping[str, Result]
) -> dict[str, list[Mapping[str, Any]]]:
    records: dict[str, list[Mapping[str, Any]]] = {name: [] for name in families}
    for trial in trials:
        record = found.get(trial.name, {}).get("audit")
        if record is not None:
            records[trial.arm].append(record)
    return {name: each for name, each in records.items() if each}


def _missing(trials: Sequence[Trial], found: Mapping[str, Result]) -> tuple[str, ...]:
    lines = []
    for name in (each.name for each in trials):
        result = found.get(name)
        if result is None:
            lines.append(name)
        elif "failed" in result:
            lines.append(f"{name}: {result['failed']}")
        elif result["validation"] is None:
            lines.append(f"{name}: its errors are not finite, and count as they are")
    return tuple(lines)


def _interval(terms: Terms) -> str:
    if len(terms.seeds) == 1:
        return "95%, bootstrap over test episodes; how trainings differ, one seed does not say"
    return "95%, bootstrap: seeds of every model, then test episodes"


def _notes(terms: Terms) -> dict[str, str]:
    fit = terms.fit
    clamp = "nothing" if terms.margin is None else f"fed-back observations, margin {terms.margin:g}"
    return {
        "training": f"{fit.updates:,} updates of {fit.batch_size} windows of {fit.horizon} steps",
        "trials": f"learning rates {', '.join(f'{each:g}' for each in terms.rates)} for every arm "
        "and shape at every size, chosen by the validation set",
        "clamped": clamp,
        "interval": _interval(terms),
        "diverged": "windows that diverged are counted in every error",
    }
