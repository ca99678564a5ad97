"""Figures: error against horizon, imagined against real, iterations, learning curves."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwm.errors import ConfigError
from loopwm.study.accuracy import PredictionReport
from loopwm.study.canvas import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    dress,
    label_lines,
    make_figure,
    plain_log_ticks,
)
from loopwm.study.episode import Episode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from loopwm.study.depth import DepthReport


def plot_error(
    reports: Mapping[str, PredictionReport], *, unit: str = "obs", title: str = ""
) -> "Figure":
    """Draw error against horizon for several models, with intervals, above their references.

    Args:
        reports: Models by the name to show; the references of the first are drawn dashed.
        unit: "obs" or "change".
        title: Heading of the figure.

    Raises:
        ConfigError: If there are no reports.
    """
    if not reports:
        raise ConfigError("reports must hold at least one report, got none")
    figure = make_figure(7.4, 4.2)
    axes = figure.add_subplot()
    ends = []
    for colour, (name, report) in zip(_cycle(len(reports)), reports.items(), strict=True):
        ends += _error_line(axes, name, report, unit, {"color": colour, "marker": "o"})
    for position, (name, report) in enumerate(next(iter(reports.values())).references.items()):
        style = {"color": FAINT, "linestyle": DASHES[position % len(DASHES)]}
        ends += _error_line(axes, name, report, unit, style)
    first = next(iter(reports.values()))
    what = "observation" if unit == "obs" else "k-step change"
    dress(axes, _horizon_label(first), f"RMSE, standard deviations of the {what}", title)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(first.horizons), [str(k) for k in first.horizons])
    axes.minorticks_off()
    if not axes.lines:
        axes.text(0.5, 0.5, "no finite error", color=FAINT, ha="center", transform=axes.transAxes)
    plain_log_ticks(axes)
    figure.draw_without_rendering()
    label_lines(axes, ends)
    return figure


def plot_episode(episode: Episode, *, columns: int = 3, title: str = "") -> "Figure":
    """Draw imagined against real, one panel for each observation dimension.

    Args:
        episode: What was imagined and what happened.
        columns: Panels side by side, at least 1.
        title: Heading of the figure.
    """
    count = episode.real.shape[1]
    rows = -(-count // columns)
    figure = make_figure(3.1 * columns, 1.45 * rows + 0.9)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    time = episode.time
    for index, axes in enumerate(grid.flat):
        if index >= count:
            axes.set_visible(False)
            continue
        dress(axes, title=episode.names[index])
        if episode.context > 1:
            axes.axvspan(time[0], time[episode.context - 1], color="#F0F0F0", lw=0)
        axes.plot(time, episode.real[:, index], color=INK, lw=1.6)
        start = episode.context - 1
        axes.plot(time[start:], episode.imagined[start:, index], color=COLOURS[1], lw=1.3, ls="--")
        _band(axes, episode, index)
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=7.5)
    unit = "steps" if episode.dt is None else "seconds"
    figure.supxlabel(unit, fontsize=9.5, color=INK)
    shown = "; grey: seen by the model" if episode.context > 1 else ""
    heading = title or f"Real (solid) and imagined (dashed){shown}"
    figure.suptitle(heading, fontsize=11, color=INK, parse_math=False)
    return figure


def plot_iterations(episode: Episode, *, title: str = "") -> "Figure":
    """Draw how many iterations the loop ran at each step, above how fast the observation changed.

    Args:
        episode: What was imagined and what happened.
        title: Heading of the figure.
    """
    figure = make_figure(7.4, 3.8)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    time = episode.time[1:]
    width = float(time[0] - episode.time[0])
    top.bar(time, episode.iterations, width=width, color=COLOURS[0], linewidth=0)
    late = ~episode.settled
    top.bar(time[late], episode.iterations[late], width=width, color=COLOURS[1], linewidth=0)
    dress(top, y="iterations", title=title or "Iterations of the loop along an episode")
    if late.any():
        top.text(
            1.0, 1.02, "not settled", color=COLOURS[1], fontsize=9, ha="right",
            transform=top.transAxes,
        )  # fmt: skip
    bottom.plot(time, episode.speed, color=INK, lw=1.2, marker="o" if len(time) == 1 else None)
    unit = "steps" if episode.dt is None else "seconds"
    dress(bottom, unit, "change per step\n(std of the change)")
    top.set_xlim(episode.time[0], time[-1] + width / 2)
    return figure


def plot_learning(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    key: str = "validation",
    title: str = "",
) -> "Figure":
    """Draw learning curves.

    Args:
        histories: Training metrics of models by the name to show.
        key: The metric, in records that also hold "update".
        title: Heading of the figure.
    """
    figure = make_figure(7.4, 3.8)
    axes = figure.add_subplot()
    ends = []
    for colour, (name, records) in zip(_cycle(len(histories)), histories.items(), strict=True):
        points = [(r["update"], r[key]) for r in records if r.get(key) is not None]
        if not points:
            continue
        updates, values = zip(*points, strict=True)
        axes.plot(updates, values, color=colour, lw=1.6)
        ends.append((name, float(updates[-1]), float(values[-1]), colour))
    dress(axes, "updates", key, title or "Learning curves")
    axes.set_yscale("log")
    plain_log_ticks(axes)
    figure.draw_without_rendering()
    label_lines(axes, ends)
    return figure


def plot_depth(report: "DepthReport", *, title: str = "") -> "Figure":
    """Draw error by iterations, how many steps take how many, and what goes with the iterations.

    Args:
        report: From `depth_report`.
        title: Title of the figure.
    """
    figure = make_figure(11.5, 3.8)
    error, counts, related = figure.subplots(1, 3)
    dress(error, "iterations", "RMSE one step ahead", title)
    error.plot(report.depths, report.by_depth, color=COLOURS[0], lw=1.8, marker="o", markersize=3.5)
    error.plot([report.mean], [report.rmse], color=COLOURS[1], marker="D", ls="")
    error.annotate(
        "stopped early", (report.mean, report.rmse), (6, 8), textcoords="offset points", fontsize=8
    )
    dress(counts, "iterations", "share of the steps")
    counts.bar(
        range(len(report.histogram)), np.array(report.histogram) / report.steps, color=COLOURS[0]
    )
    dress(related, "rank correlation at matched speed", "")
    shown = {name: each for name, each in report.matched.items() if each.ends is not None}
    places = np.arange(len(shown))[::-1]
    values = np.array([each.ends for each in shown.values()]).reshape(-1, 3)
    related.hlines(places, values[:, 1], values[:, 2], color=COLOURS[0], lw=2)
    related.plot(values[:, 0], places, color=COLOURS[0], marker="o", markersize=4, ls="")
    related.axvline(0, color="0.7", lw=0.8)
    related.set_yticks(places, list(shown), fontsize=8, parse_math=False)
    return figure


def _error_line(
    axes: "Axes", name: str, report: PredictionReport, unit: str, style: dict[str, Any]
) -> list[tuple[str, float, float, str]]:
    rmse, interval = (
        (report.rmse, report.interval)
        if unit == "obs"
        else (report.rmse_change, report.interval_change)
    )
    steps = [k for k in report.horizons if np.isfinite(rmse[k]) and rmse[k] > 0]
    lost = [k for k in report.horizons if np.isinf(rmse[k])]
    # A line that ends early would look as good as its last point.
    name += f" (infinite from {lost[0]} steps on)" if lost else ""
    if not steps:
        return [(name, float(lost[0]), np.inf, style["color"])] if lost else []
    values = np.array([rmse[k] for k in steps])
    low, high = np.array([interval[k] for k in steps]).T
    # A line and a band through one point are nothing.
    alone = {"marker": "o"} if len(steps) == 1 else {}
    axes.plot(steps, values, lw=1.8, markersize=4.5, **{**alone, **style})
    if "marker" in style and alone:
        axes.vlines(steps, low, high, color=style["color"], lw=1.2)
    elif "marker" in style:
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.18, lw=0)
    return [(name, float(steps[-1]), float(values[-1]), style["color"])]


def _band(axes: "Axes", episode: Episode, index: int) -> None:
    if episode.std is None:
        return
    start = episode.context
    middle, spread = episode.imagined[start:, index], 1.645 * episode.std[start - 1 :, index]
    axes.fill_between(
        episode.time[start:], middle - spread, middle + spread, color=COLOURS[1], alpha=0.2, lw=0
    )


def _horizon_label(report: PredictionReport) -> str:
    if report.dt is None:
        return "open-loop steps"
    return f"open-loop steps of {report.dt:g} s"


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]
