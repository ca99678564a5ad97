"""The figures of a comparison: error against size, the ratio by budget and task, the law."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loopwm.study.canvas import (
    COLOURS,
    FAINT,
    dress,
    label_lines,
    make_figure,
    plain_log_ticks,
    short_log_ticks,
)
from loopwm.study.compare.gap import Gap
from loopwm.study.compare.law import Law, Runs
from loopwm.study.compare.report import MEASURES, ComparisonReport
from loopwm.study.compare.terms import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figures_of(report: ComparisonReport) -> "dict[str, Figure]":
    """Draw error against each of parameters and FLOPs, one figure for each.

    Args:
        report: What was found.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    names = ("parameters", "training_flops", "flops")
    return {f"error-{name}".replace("_", "-"): plot_curves(report, name) for name in names}


def plot_curves(report: ComparisonReport, measure: str = "parameters") -> "Figure":
    """Draw the error of every arm against a measure of its size, a panel for each horizon.

    The curve goes through the lower envelope; sizes that are not on it are drawn hollow. The looped
    arm is drawn thick, and the levels at which sizes are compared as dotted lines.

    Args:
        report: What was found.
        measure: Key of `MEASURES`.
    """
    horizons = [
        k for k in report.horizons if any(k in p.rmse for a in report.arms for p in a.points)
    ]
    figure = make_figure(4.6 * max(1, len(horizons)) + 1.6, 4.2)
    panels = figure.subplots(1, max(1, len(horizons)), squeeze=False)[0]
    ends = [_panel(axes, report, measure, k) for axes, k in zip(panels, horizons, strict=False)]
    # Once for all panels: labels need to know where the lines came to lie.
    figure.draw_without_rendering()
    for axes, named in zip(panels, ends, strict=False):
        label_lines(axes, named, size=7.5)
    return figure


def plot_ratios(
    ratios: Mapping[str, Mapping[str, Gap]], *, across: str, title: str = ""
) -> "Figure":
    """Draw ratios with their intervals, bounds as arrows, a line at 1.

    Args:
        ratios: For each arm its ratios by task or training budget, in order.
        across: Label of the horizontal axis.
        title: Heading.
    """
    places = list(dict.fromkeys(place for each in ratios.values() for place in each))
    figure = make_figure(2.4 + 1.5 * max(2, len(places)), 4.0)
    axes = figure.add_subplot()
    shift = 0.6 / max(1, len(ratios))
    ends = []
    for index, (arm, by_place) in enumerate(ratios.items()):
        colour = COLOURS[index % len(COLOURS)]
        for number, place in enumerate(places):
            gap = by_place.get(place)
            if gap is None or gap.bound == "?":
                continue
            x = number + (index - (len(ratios) - 1) / 2) * shift
            _ratio(axes, x, gap, colour)
            ends = [each for each in ends if each[0] != arm] + [(arm, x, gap.value, colour)]
    axes.axhline(1, color=FAINT, lw=0.8)
    dress(axes, across, "size over the looped model's", title)
    axes.set_yscale("log")
    axes.set_xticks(range(len(places)), places, fontsize=9)
    plain_log_ticks(axes)
    figure.draw_without_rendering()
    label_lines(axes, ends)
    return figure


def plot_law(runs: Runs, law: Law, *, title: str = "") -> "Figure":
    """Draw errors against effective parameters, where the law says that they fall on one curve.

    Of several budgets of data the largest is drawn.

    Args:
        runs: The trained models.
        law: What was fitted to them.
        title: Heading.
    """
    figure = make_figure(6.4, 4.2)
    axes = figure.add_subplot()
    effective = runs.once + runs.repeated * runs.loops**law.phi
    errors = np.exp(np.log(runs.errors).mean(axis=1))
    most = runs.rows == runs.rows.max()
    ends = []
    for index, count in enumerate(np.unique(runs.loops)):
        on = (runs.loops == count) & most
        order = np.argsort(effective[on])
        x, y = effective[on][order], errors[on][order]
        axes.plot(x, y, color=COLOURS[index % len(COLOURS)], marker="o", ms=4, lw=1)
        ends.append((f"r = {count:g}", float(x[-1]), float(y[-1]), COLOURS[index % len(COLOURS)]))
    said = f"φ = {law.phi:.2f}"
    said += "" if np.isnan(law.low) else f" [{law.low:.2f}, {law.high:.2f}]"
    error = f"RMSE after {law.horizon} steps, {runs.rows.max():,.0f} transitions"
    dress(axes, "effective parameters, N once + r^φ N repeated", error, title or said)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log_ticks(axes)
    short_log_ticks(axes)
    figure.draw_without_rendering()
    label_lines(axes, ends)
    return figure


def _panel(
    axes: "Axes", report: ComparisonReport, measure: str, k: int
) -> list[tuple[str, float, float, str]]:
    """Draw one horizon; return the ends of the lines for their labels."""
    ends: list[tuple[str, float, float, str]] = []
    for index, arm in enumerate(report.arms):
        points = [each for each in arm.points if k in each.rmse and np.isfinite(each.rmse[k][0])]
        if not points:
            continue
        colour = COLOURS[index % len(COLOURS)]
        order = np.argsort([each.cost[measure] for each in points])
        x = np.array([each.cost[measure] for each in points])[order]
        y = np.array([each.rmse[k] for each in points])[order]
        on = np.array([each.envelope for each in points])[order]
        axes.plot(x[on], y[on, 0], color=colour, lw=2.4 if arm.name == REFERENCE else 1.2)
        axes.errorbar(x, y[:, 0], _bars(y), color=colour, lw=0.8, ls="", capsize=2)
        axes.plot(x[on], y[on, 0], color=colour, marker="o", ms=4, ls="")
        axes.plot(x[~on], y[~on, 0], color=colour, marker="o", ms=4, ls="", mfc="white")
        ends.append((arm.label, float(x[-1]), float(y[-1, 0]), colour))
    for level in report.levels.get(k, ()):
        axes.axhline(level, color=FAINT, lw=0.7, ls=":")
    dress(axes, MEASURES[measure], f"RMSE after {k} steps, standard deviations")
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log_ticks(axes)
    short_log_ticks(axes)
    return ends


def _bars(y: np.ndarray) -> np.ndarray:
    high = np.where(np.isfinite(y[:, 2]), y[:, 2], y[:, 0])
    return np.maximum(np.stack([y[:, 0] - y[:, 1], high - y[:, 0]]), 0)


def _ratio(axes: "Axes", x: float, gap: Gap, colour: str) -> None:
    if not 0 < gap.value < np.inf:
        return
    low = gap.low if gap.low > 0 else gap.value
    high = gap.high if np.isfinite(gap.high) else gap.value
    axes.plot([x, x], [low, high], color=colour, lw=1.2)
    for unknown, end in ((gap.low == 0, gap.value / 1.4), (np.isinf(gap.high), 1.4 * gap.value)):
        if unknown:
            # How far it goes is not known. An arrow alone would not widen the axes.
            arrow = {"arrowstyle": "->", "color": colour, "lw": 1.2}
            axes.annotate("", (x, end), (x, gap.value), arrowprops=arrow)
            axes.plot([x], [end], alpha=0)
    marker = {">=": "^", "<=": "v"}.get(gap.bound, "o")
    axes.plot(
        [x],
        [gap.value],
        color=colour,
        marker=marker,
        ms=6,
        mfc=colour if not gap.bound else "white",
    )


def ratios_over(
    reports: Sequence[tuple[str, ComparisonReport]], k: int
) -> dict[str, dict[str, Gap]]:
    """Collect the headline ratios of several reports at one horizon, by arm.

    Args:
        reports: Reports with their names, such as tasks or training budgets.
        k: Horizon.
    """
    found: dict[str, dict[str, Gap]] = {}
    for name, report in reports:
        labels = {each.name: each.label for each in report.arms}
        for arm, by_horizon in report.ratio.items():
            if k in by_horizon:
                found.setdefault(labels[arm], {})[name] = by_horizon[k]
    return found
