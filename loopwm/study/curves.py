"""Return against real steps: the figure of how agents learn."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwm.errors import ConfigError
from loopwm.study.canvas import COLOURS, FAINT, dress, label_lines, make_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]


def curve_of(history: History, key: str = "real_return") -> list[tuple[int, float]]:
    """Return the points (real steps, return) of one run.

    Args:
        history: Records of an agent.
        key: "real_return" of evaluations, "imagined_return", or "return" of the episodes that
            ended while it learned.
    """
    return [(each["step"], each[key]) for each in history if each.get(key) is not None]


def plot_returns(
    runs: Mapping[str, Sequence[History]], *, target: float | None = None, title: str = ""
) -> "Figure":
    """Draw each run's real returns as a thin line, the mean over runs as a thick one.

    Args:
        runs: Histories of runs, seed by seed, by the name to show.
        target: Return to mark, or None.
        title: Heading of the figure.

    Raises:
        ConfigError: If no run was ever evaluated.
    """
    figure = make_figure(7.4, 4.2)
    axes = figure.add_subplot()
    ends = []
    for index, (name, histories) in enumerate(runs.items()):
        colour = COLOURS[index % len(COLOURS)]
        curves = [curve for each in histories if (curve := curve_of(each))]
        for curve in curves:
            axes.plot(*zip(*curve, strict=True), color=colour, lw=0.8, alpha=0.5)
        if curves:
            steps = sorted(set.intersection(*({step for step, _ in curve} for curve in curves)))
            mean = [float(np.mean([dict(curve)[step] for curve in curves])) for step in steps]
            axes.plot(steps, mean, color=colour, lw=2, marker="o", markersize=3.5)
            ends += [(name, float(steps[-1]), mean[-1], colour)] if steps else []
    if not ends:
        raise ConfigError("runs hold no evaluation; train with Scoring(every=...)")
    if target is not None:
        axes.axhline(target, color=FAINT, lw=1, ls="--")
    dress(axes, "real environment steps", "mean return of an evaluation", title)
    figure.draw_without_rendering()
    label_lines(axes, ends)
    return figure
