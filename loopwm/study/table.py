"""Lay reports out as tables for a terminal or a page."""

import math
from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table

from loopwm.errors import ConfigError
from loopwm.study.accuracy import PredictionReport

UNITS = {"obs": "standard deviations of the observation", "change": "those of the k-step change"}


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with `digits` significant digits, or a dash for a missing one."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-4):
        return f"{value:.{digits - 1}e}"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"


def with_interval(value: float, interval: tuple[float, float], digits: int = 3) -> str:
    """Write a number followed by its interval."""
    if math.isnan(value):
        return "-"
    low, high = (number(end, digits) for end in interval)
    return f"{number(value, digits)} [{low}, {high}]"


def report_table(report: PredictionReport, unit: str = "obs") -> Table:
    """Lay out one report: a row for each horizon, references beside the model.

    Args:
        report: What an evaluation found.
        unit: "obs" or "change", the unit of RMSE and interval.

    Raises:
        ConfigError: If the unit is unknown.
    """
    rmse, interval = _columns_of(report, unit)
    table = Table(
        title=f"{report.name}: open-loop error in {UNITS[unit]}",
        caption="RMSE [95% interval over episodes]; quartiles are over windows",
    )
    for heading in ("steps", "seconds", "RMSE", "median [quartiles]"):
        table.add_column(heading, justify="right")
    for name in report.references:
        table.add_column(name, justify="right")
    for heading in ("reward", "iterations", "settled", "diverged", "windows", "episodes"):
        table.add_column(heading, justify="right")
    for k in report.horizons:
        seconds = None if report.dt is None else k * report.dt
        references = [_columns_of(each, unit)[0][k] for each in report.references.values()]
        middle = with_interval(report.median[k], report.quartiles[k])
        table.add_row(
            str(k),
            number(seconds),
            with_interval(rmse[k], interval[k]),
            middle if unit == "obs" else "-",
            *(number(each) for each in references),
            number(report.reward[k]),
            number(report.iterations[k]),
            _share(report.settled[k]),
            _share(report.diverged[k]),
            str(report.windows[k]),
            str(report.episodes[k]),
        )
    return table


def parts_table(report: PredictionReport) -> Table:
    """Lay out the RMSE of each part of a mixture, windows and episodes behind it in brackets."""
    table = Table(title=f"{report.name}: RMSE by part (windows, episodes)")
    table.add_column("steps", justify="right")
    for part in report.parts:
        table.add_column(part, justify="right")
    for k in report.horizons:
        cells = [
            f"{number(part.rmse[k])} ({part.windows[k]}, {part.episodes[k]})"
            for part in report.parts.values()
        ]
        table.add_row(str(k), *cells)
    return table


def compare_table(reports: Sequence[PredictionReport], unit: str = "obs") -> Table:
    """Set several reports side by side: a row for each model, a column for each horizon.

    The references of the first report stand below the models.

    Args:
        reports: At least one; the horizons of the first are shown.
        unit: "obs" or "change".
    """
    if not reports:
        raise ConfigError("reports must hold at least one report, got none")
    horizons = reports[0].horizons
    table = Table(title=f"Open-loop RMSE in {UNITS[unit]}, by steps")
    table.add_column("model")
    for k in horizons:
        table.add_column(str(k), justify="right")
    table.add_column("diverged", justify="right")
    rows = [*reports, *reports[0].references.values()]
    for position, each in enumerate(rows):
        rmse, interval = _columns_of(each, unit)
        cells = [with_interval(rmse[k], interval[k]) if k in rmse else "-" for k in horizons]
        share = max((each.diverged[k] for k in each.horizons), default=math.nan)
        table.add_row(each.name, *cells, _share(share), end_section=position == len(reports) - 1)
    return table


def report_text(report: PredictionReport, width: int = 150) -> str:
    """Write a report as plain text: both units, the parts, termination, spread and notes."""
    console = Console(file=StringIO(), width=width, color_system=None)
    for unit in UNITS:
        console.print(report_table(report, unit))
    if report.parts:
        console.print(parts_table(report))
    for line in score_lines(report):
        console.print(line, highlight=False, markup=False)
    for key, note in report.notes.items():
        console.print(f"{key}: {note}", highlight=False, markup=False)
    file = console.file
    return file.getvalue() if isinstance(file, StringIO) else ""


def score_lines(report: PredictionReport) -> list[str]:
    """Say in lines of text how termination and spread were predicted."""
    lines = []
    ends = report.termination
    if ends is not None:
        lines.append(
            f"termination: AUROC {number(ends.auroc)}, Brier {number(ends.brier)} "
            f"(base rate {number(ends.brier_base)}), {ends.events} ends in {ends.rows} steps"
        )
    for k, score in report.uncertainty.items():
        lines.append(
            f"spread at {k}: NLL {number(score.nll)}, 90% coverage {number(score.coverage)}, "
            f"correlation with error {number(score.spearman)}, "
            f"of disagreement {number(score.spearman_disagreement)}"
        )
    return lines


def _columns_of(
    report: PredictionReport, unit: str
) -> tuple[dict[int, float], dict[int, tuple[float, float]]]:
    if unit not in UNITS:
        raise ConfigError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    if unit == "obs":
        return report.rmse, report.interval
    return report.rmse_change, report.interval_change


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.3g}%"
