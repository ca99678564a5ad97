"""What a comparison over tasks found, in a few tables and figures, and as a part of the record."""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwm.errors import MissingExtra
from loopwm.files import write_file, write_json
from loopwm.study.compare.excited import KINDS
from loopwm.study.compare.law import Law
from loopwm.study.compare.report import ComparisonReport
from loopwm.study.compare.settings import Settings
from loopwm.study.compare.shifts import SHIFTS
from loopwm.study.compare.study import Outcome, Stage, stages_of
from loopwm.study.compare.tables import csv_text
from loopwm.study.results import Column, Sheet
from loopwm.train.config import OPTIMIZERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def headline(outcome: Outcome) -> Sheet:
    """Make the table of parameters at equal error, over the looped model's.

    Args:
        outcome: What was found.

    Returns:
        A row for each place, training budget and arm; what was not run is missing, and said so.
    """
    horizons = list(dict.fromkeys(k for _, report in outcome.reports for k in report.horizons))
    columns = [Column("place"), Column("updates"), Column("model")]
    columns += [Column(f"ratio_{k}", f"k={k}") for k in horizons]
    # The gain of the validation error in the last quarter, the larger of the two arms.
    columns += [Column("stands"), Column("gain", "gain at end"), Column("missing", "missing")]
    rows: list[dict[str, Any]] = []
    for stage, report in outcome.reports:
        # Of shifted places the question is another.
        if stage.place.shift:
            continue
        for arm in report.arms:
            if arm.name in report.ratio:
                row: dict[str, Any] = {"place": stage.place.name, "model": arm.label}
                row |= {"updates": stage.terms.fit.updates, "stands": report.stands(arm.name)}
                gain = report.gain(arm.name)
                row["gain"] = None if gain is None else f"{100 * gain:.2g}%"
                row |= {f"ratio_{k}": str(gap) for k, gap in report.ratio[arm.name].items()}
                rows.append(row | {"missing": _missing(report, arm.name)})
        trained = {each.name for each in report.arms}
        rows += [
            {"place": stage.place.name, "updates": stage.terms.fit.updates, "model": family.label}
            | {"stands": False, "missing": "all"}
            for name, family in stage.families.items()
            if name not in trained
        ]
    rows += [{"place": each, "model": "-", "missing": "all"} for each in outcome.missing]
    title = "parameters at equal error over the looped model's, middle level of error"
    if any("_excited" in str(row["place"]) for row in rows):
        title += " (excited: excitations alone)"
    return Sheet(title, tuple(columns), tuple(rows))


def generalisation(outcome: Outcome) -> Sheet:
    """Make the table of errors beyond what was trained on, at the middle level of error within.

    Args:
        outcome: What was found.

    Returns:
        A row for each shift, task and arm; empty where nothing was shifted.
    """
    shifted = [(stage, report) for stage, report in outcome.reports if stage.place.shift]
    horizons = list(dict.fromkeys(k for _, report in shifted for k in report.horizons))
    columns = [Column("shift"), Column("task"), Column("model")]
    for k in horizons:
        columns += [Column(f"growth_{k}", f"k={k}"), Column(f"gap_{k}", f"k={k} over looped")]
    columns += [Column("stands"), Column("missing", "models missing")]
    rows: list[dict[str, Any]] = []
    for stage, report in shifted:
        for arm in report.arms:
            row: dict[str, Any] = {"shift": stage.place.shift, "model": arm.label}
            row |= {"task": stage.place.task, "missing": _missing(report, arm.name)}
            row["stands"] = report.stands(arm.name) if arm.against else not arm.learning
            for k, several in report.beyond.get(arm.name, {}).items():
                at = several[len(several) // 2]
                row |= {f"growth_{k}": str(at.growth)}
                row |= {f"gap_{k}": str(at.gap)} if arm.against else {}
            rows.append(row)
    names = dict.fromkeys(stage.place.shift for stage, _ in shifted)
    said = "; ".join(f"{name}: {SHIFTS[name].label}" for name in names)
    title = f"error beyond over error within, at equal error within, middle level ({said})"
    return Sheet(title, tuple(columns), tuple(rows))


def law_sheet(laws: dict[str, Law]) -> Sheet:
    """Make the table of what an iteration is worth on each task."""
    columns = (
        *(Column("task"), Column("phi", "phi [95%]"), Column("worth", "8 iterations count for")),
        *(Column("horizon", "error after steps"), Column("alpha"), Column("beta")),
        *(Column("r2", "R²"), Column("cells", "models"), Column("left_out", "models left out")),
    )
    rows = [
        {
            **{"task": task, "phi": _phi(law), "worth": law.worth(8)},
            **{"horizon": law.horizon, "alpha": law.alpha, "beta": law.beta, "r2": law.r2},
            **{"cells": law.cells, "left_out": law.left_out},
        }
        for task, law in laws.items()
    ]
    title = "what an iteration is worth: effective parameters grow as r^phi"
    return Sheet(title, columns, tuple(rows))


def _phi(law: Law) -> float | list[float]:
    """Return phi with its interval, where several seeds gave one."""
    return law.phi if math.isnan(law.low) else [law.phi, law.low, law.high]


def sheets_of_outcome(outcome: Outcome) -> list[Sheet]:
    """Return headline, generalisation, laws, and each place's tables at its largest budget."""
    sheets = [each for each in (headline(outcome), generalisation(outcome)) if each.rows]
    if outcome.laws:
        sheets.append(law_sheet(dict(outcome.laws)))
    for stage, report in largest(outcome):
        for sheet in report.sheets():
            sheets.append(Sheet(f"{stage.name}: {sheet.title}", sheet.columns, sheet.rows))
    return sheets


def largest(outcome: Outcome) -> list[tuple[Stage, ComparisonReport]]:
    """Return each place's report at its largest training budget."""
    found: dict[str, tuple[Stage, ComparisonReport]] = {}
    for stage, report in outcome.reports:
        best = found.get(stage.place.name)
        if best is None or stage.terms.fit.updates > best[0].terms.fit.updates:
            found[stage.place.name] = (stage, report)
    return list(found.values())


def save_outcome(outcome: Outcome, folder: Path) -> list[Path]:
    """Write everything: tables as CSV, figures, and each stage's report in a folder of its own.

    Args:
        outcome: What was found.
        folder: Directory to write to.

    Returns:
        The files of the study as a whole.
    """
    written = []
    tables = {
        "headline": headline(outcome),
        "generalisation": generalisation(outcome),
        "law": law_sheet(dict(outcome.laws)),
    }
    for name, sheet in tables.items():
        if sheet.rows:
            write_file(folder / f"{name}.csv", csv_text(sheet).encode())
            written.append(folder / f"{name}.csv")
    for stage, report in outcome.reports:
        report.save(folder / stage.name)
    write_json(folder / "missing.json", list(outcome.missing))
    return written + save_figures(outcome, folder)


def save_figures(outcome: Outcome, folder: Path, prefix: str = "") -> list[Path]:
    """Draw the figures of a study as PNG files; without matplotlib, none.

    Args:
        outcome: What was found.
        folder: Directory to write to.
        prefix: Put before each file's name.
    """
    from loopwm.study.canvas import png

    written = []
    try:
        for name, figure in figures_of_outcome(outcome).items():
            path = folder / f"{prefix}{name}.png"
            write_file(path, png(figure))
            written.append(path)
    except MissingExtra:
        return []
    return written


def figures_of_outcome(outcome: Outcome) -> "dict[str, Figure]":
    """Draw the ratio per task, against the training budget, and the law of each task.

    Args:
        outcome: What was found.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    from loopwm.study.compare.figures import plot_curves, plot_law, plot_ratios, ratios_over

    figures: dict[str, Figure] = {}
    best = largest(outcome)
    for k in best[0][1].horizons if best else ():
        named = [
            (f"{s.place.task}\nx{s.place.skip}", report) for s, report in best if not s.place.shift
        ]
        if found := ratios_over(named, k):
            title = f"Parameters at equal error, k={k}"
            figures[f"ratio-by-task-k{k}"] = plot_ratios(found, across="task", title=title)
    for stage, report in best:
        where = stage.place.name.lower()
        figures[f"{where}-error-parameters"] = plot_curves(report)
        figures[f"{where}-error-flops"] = plot_curves(report, "training_flops")
        budgets = [
            (f"{other.terms.fit.updates:,}", each)
            for other, each in outcome.reports
            if other.place == stage.place
        ]
        k = report.horizons[len(report.horizons) // 2]
        if (found := ratios_over(budgets, k)) and len(budgets) > 1:
            title = f"{stage.place.task}: parameters at equal error, k={k}"
            drawn = plot_ratios(found, across="updates", title=title)
            figures[f"{where}-ratio-by-budget"] = drawn
    for task, law in outcome.laws.items():
        name = f"law-{task.replace('/', '-').lower()}"
        figures[name] = plot_law(outcome.runs[task], law)
    return figures


def method(settings: Settings) -> tuple[str, ...]:
    """Say in words how a study was made."""
    rates = ", ".join(f"{each:g}" for each in settings.rates)
    updates = ", ".join(f"{each:,}" for each in settings.updates)
    by = type(OPTIMIZERS[settings.optimizer]).__name__
    clamp = "Nothing is clamped" if settings.margin is None else "What is fed back is held"
    return (
        *_data(settings),
        f"Every arm at {len(settings.sizes)} sizes, on the same {settings.rows:,} transitions, by "
        f"{updates} updates of {settings.batch} windows of {settings.steps} steps by {by}; "
        f"learning rates {rates} tried for every arm and shape at every size, chosen on other "
        f"episodes than those reported; {len(settings.seeds)} seeds. {clamp}; diverged windows are "
        "counted.",
        "A curve goes through the lower envelope, chosen by the validation set, straight between "
        "its points on a log-log plot and never beyond them: where an arm does not reach an "
        "error, the ratio is a bound and written so. Intervals are 95%, by bootstrap of the seeds "
        "of every model and then of the test episodes; levels of error that a rule sets inside the "
        "looped curve are set in every draw anew. A ratio stands where the validation errors "
        "of both arms fell by less than 1% in the last quarter of training.",
    )


def _data(settings: Settings) -> tuple[str, ...]:
    """Say where the data is not the standard mixture."""
    places = [each.place for each in stages_of(settings) if not each.place.shift]
    without = dict.fromkeys(
        f"{each.task} at {each.skip} times its interval" if each.skip > 1 else each.task
        for each in places
        if not each.standard
    )
    if not without:
        return ()
    kinds = ", ".join(KINDS)
    why = "no policies ship for them" if settings.mixture == "standard" else "as asked for"
    return (f"Excitations alone, in equal parts {kinds}, {why}: {', '.join(without)}.",)


def _missing(report: ComparisonReport, arm: str) -> int:
    # A name may begin with another's, as "mlp-ensemble" does.
    trial = re.compile(rf"(^|_){re.escape(arm)}-\d+_w")
    return sum(trial.search(each) is not None for each in report.missing)
