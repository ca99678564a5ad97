"""The tables of a comparison: for the terminal, for CSV, for the page of results."""

import csv
import io
import math
from io import StringIO
from typing import Any

from rich.console import Console

from loopwm.study.compare.gap import Gap
from loopwm.study.compare.report import MEASURES, ArmReport, ComparisonReport, Point
from loopwm.study.results import Column, Sheet, rich_table


def sheets_of(report: ComparisonReport) -> list[Sheet]:
    """Return the tables of a comparison.

    Args:
        report: What was found.

    Returns:
        Sizes at equal error, errors at equal size, errors on shifted experience where there is any,
        curves with their costs, and, where there is something to say, conditions on which all of it
        stands.
    """
    sheets = [_quality(report), _matched(report), _curves(report), _costs(report)]
    if report.beyond:
        sheets.insert(2, _beyond(report))
    if report.strata:
        sheets.insert(2, _strata(report))
    conditions = _conditions(report)
    return [*sheets, *([conditions] if conditions.rows else [])]


def csv_text(sheet: Sheet) -> str:
    """Write a table as CSV: a value with its interval takes three columns."""
    wide = {
        column.key: any(isinstance(row.get(column.key), list | tuple) for row in sheet.rows)
        for column in sheet.columns
    }
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    heads: list[str] = []
    for key, three in wide.items():
        heads += [key, f"{key}_low", f"{key}_high"] if three else [key]
    writer.writerow(heads)
    for row in sheet.rows:
        cells: list[Any] = []
        for key, three in wide.items():
            value = row.get(key)
            spread = list(value) if isinstance(value, list | tuple) else [value, None, None]
            cells += spread if three else [value]
        writer.writerow(["" if each is None else each for each in cells])
    return file.getvalue()


def text_of(report: ComparisonReport, width: int = 170) -> str:
    """Write all tables and notes as plain text."""
    file = StringIO()
    console = Console(file=file, width=width, color_system=None)
    for sheet in report.sheets():
        console.print(rich_table(sheet))
    for key, note in report.notes.items():
        console.print(f"{key}: {note}", highlight=False, markup=False)
    return file.getvalue()


def _quality(report: ComparisonReport) -> Sheet:
    """How many times the looped model's size an arm needs for the same error."""
    columns = [Column("model"), Column("against"), Column("measure"), Column("level")]
    columns += [Column(f"ratio_{k}", f"k={k}") for k in report.horizons]
    columns += [Column("stands")]
    rows = []
    for arm in report.arms:
        for measure, by_arm in report.quality.items():
            gaps = by_arm.get(arm.name, {})
            count = max((len(each) for each in gaps.values()), default=0)
            # Levels in full for the headline; what else is measured, at the middle one of each k.
            for index in range(count) if measure == "parameters" else [None] * bool(count):
                level = "middle" if index is None else f"{index + 1} of {count}"
                row = _row(report, arm, measure) | {"level": level}
                for k, several in gaps.items():
                    at = len(several) // 2 if index is None else index
                    row |= {f"ratio_{k}": str(several[at])} if at < len(several) else {}
                rows.append(row)
    if report.levels:
        named = "; ".join(
            f"k={k}: {', '.join(f'{each:.3g}' for each in levels)}"
            for k, levels in report.levels.items()
        )
        levels = f"levels of error, of single models: {named}"
        title = f"size over the looped model's at equal error ({levels})"
    else:
        title = "size over the looped model's at equal error"
    return Sheet(title, tuple(columns), tuple(rows))


def _matched(report: ComparisonReport) -> Sheet:
    """How many times the looped model's error an arm makes at the same size."""
    columns = [Column("model"), Column("against"), Column("measure", "at equal")]
    for k in report.horizons:
        columns += [Column(f"ratio_{k}", f"k={k}"), Column(f"verdict_{k}", f"k={k}: looped is")]
    columns += [Column("stands")]
    rows = []
    for arm in report.arms:
        for measure, by_arm in report.matched.items():
            if arm.name in by_arm and measure != "bytes":
                row = _row(report, arm, measure)
                for k, gap in by_arm[arm.name].items():
                    row |= {f"ratio_{k}": str(gap), f"verdict_{k}": inverse(gap).verdict}
                rows.append(row)
    if report.gate:
        row = {"model": "gate: untied cells", "against": "one cell", "measure": "see the guide"}
        rows.append(row | {f"ratio_{k}": str(gap) for k, gap in report.gate.items()})
    return Sheet("error over the looped model's at equal size", tuple(columns), tuple(rows))


def _beyond(report: ComparisonReport) -> Sheet:
    """How much more an arm errs on shifted experience, at equal error on experience as trained."""
    columns = [Column("model"), Column("against"), Column("level", "level of error within")]
    for k in report.horizons:
        heads = {"level": "within", "growth": "beyond / within", "gap": "over looped"}
        heads |= {"verdict": "looped is"}
        columns += [Column(f"{key}_{k}", f"k={k}: {head}") for key, head in heads.items()]
    columns += [Column("stands")]
    rows = []
    for arm in report.arms:
        by_horizon = report.beyond.get(arm.name, {})
        count = max((len(each) for each in by_horizon.values()), default=0)
        for index in range(count):
            row = _row(report, arm, "parameters") | {"level": f"{index + 1} of {count}"}
            row["stands"] = report.stands(arm.name) if arm.against else not arm.learning
            for k, several in by_horizon.items():
                if index >= len(several):
                    continue
                at = several[index]
                row |= {f"level_{k}": at.level, f"growth_{k}": str(at.growth)}
                if arm.against:
                    row |= {f"gap_{k}": str(at.gap), f"verdict_{k}": inverse(at.gap).verdict}
            rows.append(row)
    title = "error on shifted experience at equal error on experience as trained on, seeds paired"
    return Sheet(title, tuple(columns), tuple(rows))


def _strata(report: ComparisonReport) -> Sheet:
    """How arms compare in easy and in hard windows."""
    columns = [Column("label", "difficulty"), Column("third", "windows"), Column("model")]
    for k in report.horizons:
        columns += [Column(f"quality_{k}", f"k={k}: size"), Column(f"matched_{k}", f"k={k}: error")]
    columns += [Column("stands")]
    named = {each.name: each.label for each in report.arms}
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for each in report.strata:
        row = rows.setdefault(
            (each.label, each.third, each.arm),
            {"label": each.label, "third": each.third, "model": named[each.arm]}
            | {"stands": report.stands(each.arm)},
        )
        row |= {f"quality_{each.horizon}": str(each.quality)}
        row |= {f"matched_{each.horizon}": str(each.matched)}
    title = "by difficulty, over the looped model's: size at equal error, error at equal parameters"
    return Sheet(title, tuple(columns), tuple(rows.values()))


def inverse(gap: Gap) -> Gap:
    """Return the ratio the other way round."""
    if gap.bound == "?":
        return gap
    value, low, high = (
        math.inf if each == 0 else 1 / each for each in (gap.value, gap.high, gap.low)
    )
    return Gap(value, low, high, {">=": "<=", "<=": ">="}.get(gap.bound, ""))


def _curves(report: ComparisonReport) -> Sheet:
    """List error and divergence of every arm at every size."""
    columns = [Column("model"), Column("parameters"), Column("seeds")]
    columns += [Column(f"rmse_{k}", f"RMSE, k={k}") for k in report.horizons]
    columns += [
        Column(f"shifted_{k}", f"shifted, k={k}")
        for k in report.horizons
        if any(k in point.shifted for arm in report.arms for point in arm.points)
    ]
    columns += [Column("diverged"), Column("envelope")]
    columns += [Column("plateau", "gain in the last quarter")]
    rows = []
    for arm in report.arms:
        for point in arm.points:
            row = _named(arm, point) | {
                "seeds": point.seeds,
                "diverged": max(point.diverged.values(), default=None),
                "envelope": point.envelope,
                "plateau": None if point.plateau is None else f"{100 * point.plateau:.2g}%",
            }
            row |= {f"shifted_{k}": list(each) for k, each in point.shifted.items()}
            rows.append(row | {f"rmse_{k}": list(each) for k, each in point.rmse.items()})
    return Sheet("error by size, 95% over seeds and episodes", tuple(columns), tuple(rows))


def _costs(report: ComparisonReport) -> Sheet:
    """List what every arm costs at every size, and how its learning rate was chosen."""
    labels = ("parameters", "dynamics", "bytes", "training TFLOP", "FLOP/step", "ms")
    columns = [Column("model")]
    columns += [Column(key, label) for key, label in zip(MEASURES, labels, strict=True)]
    columns += [Column("seconds", "training, s"), Column("at_once", "at once")]
    columns += [Column("lr", "rate"), Column("edge", "at an end")]
    columns += [Column("trials"), Column("width"), Column("shape")]
    rows = []
    for arm in report.arms:
        for point in arm.points:
            row = _named(arm, point)
            whole = ("parameters", "core_parameters", "bytes", "flops")
            row |= {name: int(v) if name in whole else v for name, v in point.cost.items()}
            row |= {"training_flops": point.cost["training_flops"] / 1e12}
            row |= {"lr": f"{point.lr:g}", "edge": point.edge, "trials": point.trials}
            row |= {"at_once": point.at_once}
            rows.append(row | {"width": point.width, "shape": point.shape})
    title = (
        "cost by size (ms: one imagined step of one row; training: the share of one of the models "
        "that were trained at once; at an end: of the rates tried)"
    )
    return Sheet(title, tuple(columns), tuple(rows))


def _conditions(report: ComparisonReport) -> Sheet:
    rows = [{"what": "not comparable", "which": str(each)} for each in report.differences]
    named = {arm.label: report.doubts(arm.name) for arm in report.arms}
    for doubt in dict.fromkeys(doubt for doubts in named.values() for doubt in doubts):
        which = ", ".join(label for label, doubts in named.items() if doubt in doubts)
        rows.append({"what": f"ratios do not stand: {doubt}", "which": which})
    ends = {
        arm.label: f"{sum(point.edge for point in arm.points)} of {len(arm.points)} sizes"
        for arm in report.arms
        if any(point.edge for point in arm.points)
    }
    if ends:
        which = ", ".join(f"{label}: {where}" for label, where in ends.items())
        rows.append({"what": "best rate at an end of those tried", "which": which})
    rows += [{"what": "missing", "which": each} for each in report.missing]
    columns = (Column("what", "condition"), Column("which"))
    return Sheet("conditions", columns, tuple(rows))


def _row(report: ComparisonReport, arm: ArmReport, measure: str) -> dict[str, Any]:
    return {
        "model": arm.label,
        "against": arm.against,
        "measure": MEASURES[measure],
        "stands": report.stands(arm.name),
    }


def _named(arm: ArmReport, point: Point) -> dict[str, Any]:
    return {"model": arm.label, "parameters": int(point.cost["parameters"])}
