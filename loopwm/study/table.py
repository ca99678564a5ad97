"""Lay reports out as tables for a terminal or a page."""

import math
from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loopwm.errors import ConfigError
from loopwm.study.accuracy import PredictionReport

UNITS = {
    "obs": "standard deviations of the observation",
    "change": "standard deviations of the k-step change",
}


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with `digits` significant digits, or a dash for a missing one."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"


def with_interval(value: float, interval: tuple[float, float], digits: int = 3) -> str:
    """Write a number followed by its interval."""
    if math.isnan(value):
        return "-"
    low, high = (number(end, digits) for end in interval)
    if low == high:  # Of a single unit nothing is resampled: there is no interval to show.
        return number(value, digits)
    return f"{number(value, digits)} [{low}, {high}]"


def share(value: float) -> str:
    """Write a share as a percentage."""
    return "-" if math.isnan(value) else f"{100 * value:.3g}%"


def report_table(report: PredictionReport, unit: str = "obs") -> Table:
    """Lay out the errors of one report: a row for each horizon, references beside the model.

    Args:
        report: What an evaluation found.
        unit: "obs" or "change", the unit of all errors.

    Raises:
        ConfigError: If the unit is unknown.
    """
    rmse, interval = columns_of(report, unit)
    rows = {"steps": [str(k) for k in report.horizons]}
    if report.dt is not None:
        rows["seconds"] = [f"{k * report.dt:.4g}" for k in report.horizons]
    rows["RMSE [95%]"] = [with_interval(rmse[k], interval[k]) for k in report.horizons]
    if unit == "obs":
        rows["median [quartiles]"] = [
            with_interval(report.median[k], report.quartiles[k]) for k in report.horizons
        ]
    for name, each in report.references.items():
        theirs = columns_of(each, unit)[0]
        rows[name] = [number(theirs[k]) for k in report.horizons]
    rows["diverged"] = [share(report.diverged[k]) for k in report.horizons]
    rows["windows"] = [str(report.windows[k]) for k in report.horizons]
    rows["episodes"] = [str(report.episodes[k]) for k in report.horizons]
    return columns_table(f"{report.name}: open-loop error in {UNITS[unit]}", rows)


def step_table(report: PredictionReport) -> Table:
    """Lay out reward error, iterations and settling by horizon."""
    rows = {
        "steps": [str(k) for k in report.horizons],
        "reward RMSE (std)": [number(report.reward[k]) for k in report.horizons],
        "iterations per step": [number(report.iterations[k]) for k in report.horizons],
        "settled": [share(report.settled[k]) for k in report.horizons],
    }
    return columns_table(f"{report.name}: reward and iterations", rows)


def parts_table(report: PredictionReport) -> Table:
    """Lay out the RMSE of each part of a mixture, windows and episodes behind it in brackets."""
    rows = {"steps": [str(k) for k in report.horizons]}
    for name, part in report.parts.items():
        rows[name] = [
            f"{number(part.rmse[k])} ({part.windows[k]}, {part.episodes[k]})"
            for k in report.horizons
        ]
    return columns_table(f"{report.name}: RMSE by part (windows, episodes)", rows)


def dimensions_table(report: PredictionReport, names: Sequence[str] = ()) -> Table:
    """Lay out the RMSE of each observation dimension, the worst at the longest horizon first."""
    longest = report.dimensions[report.horizons[-1]]
    order = sorted(range(len(longest)), key=lambda o: -longest[o])
    rows = {"dimension": [names[o] if names else f"obs[{o}]" for o in order]}
    for k in report.horizons:
        rows[f"{k} steps"] = [number(report.dimensions[k][o]) for o in order]
    return columns_table(f"{report.name}: RMSE of each dimension", rows)


def compare_table(reports: dict[str, PredictionReport], unit: str = "obs") -> Table:
    """Set several reports side by side: a row for each model, a column for each horizon.

    The references of the first report stand below the models.

    Args:
        reports: At least one, by the name to show; the horizons of the first are shown.
        unit: "obs" or "change".

    Raises:
        ConfigError: If there are no reports, or the unit is unknown.
    """
    if not reports:
        raise ConfigError("reports must hold at least one report, got none")
    first = next(iter(reports.values()))
    table = Table(title=f"Open-loop RMSE [95%] in {UNITS.get(unit, unit)}, by steps")
    table.add_column("model")
    for heading in (*(str(k) for k in first.horizons), "diverged"):
        table.add_column(heading, justify="right", no_wrap=True)
    for position, (name, each) in enumerate((reports | first.references).items()):
        rmse, interval = columns_of(each, unit)
        cells = [with_interval(rmse[k], interval[k]) if k in rmse else "-" for k in first.horizons]
        worst = max(each.diverged.values(), default=math.nan)
        table.add_row(Text(name), *cells, share(worst), end_section=position == len(reports) - 1)
    return table


def columns_table(title: str, columns: dict[str, list[str]]) -> Table:
    """Make a table of text columns; the first is aligned left, the others right."""
    # As Text: a string is read for markup, and what stands in square brackets disappears.
    table = Table(title=Text(title))
    for position, heading in enumerate(columns):
        table.add_column(Text(heading), justify="right" if position else "left", no_wrap=True)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))
    return table


def report_text(report: PredictionReport, width: int = 150) -> str:
    """Write a report as plain text: both units, the parts, termination, spread and notes."""
    file = StringIO()
    console = Console(file=file, width=width, color_system=None)
    for unit in UNITS:
        console.print(report_table(report, unit))
    console.print(step_table(report))
    if report.parts:
        console.print(parts_table(report))
    notes = [f"{key}: {note}" for key, note in report.notes.items()]
    for line in (*score_lines(report), *notes):
        console.print(line, highlight=False, markup=False)
    return file.getvalue()


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
        line = (
            f"spread at {k}: NLL {number(score.nll)}, 90% coverage {number(score.coverage)}, "
            f"rank correlation of error with spread {number(score.spearman)}"
        )
        if not math.isnan(score.spearman_disagreement):
            line += f", with disagreement {number(score.spearman_disagreement)}"
        lines.append(line)
    return lines


def columns_of(
    report: PredictionReport, unit: str
) -> tuple[dict[int, float], dict[int, tuple[float, float]]]:
    """Return RMSE and interval in one unit.

    Raises:
        ConfigError: If the unit is unknown.
    """
    if unit not in UNITS:
        raise ConfigError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    if unit == "obs":
        return report.rmse, report.interval
    return report.rmse_change, report.interval_change
