"""Right answers against steps of thought: the figure of what recursion is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loopwm.files import write_file
from loopwm.study.canvas import COLOURS, dress, label_lines, make_figure, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_steps(by_name: Mapping[str, Sequence[Sequence[float]]], title: str = "") -> "Figure":
    """Draw each seed's share of right answers as a thin line, the mean over seeds as a thick one.

    Args:
        by_name: Shares in [0, 1] after each step, seed by seed, by the name to show.
        title: Heading of the figure.
    """
    figure = make_figure(7.4, 4.0)
    axes = figure.add_subplot()
    ends = []
    for index, (name, seeds) in enumerate(by_name.items()):
        colour = COLOURS[index % len(COLOURS)]
        shares = 100 * np.array(seeds)
        steps = np.arange(1, shares.shape[1] + 1)
        for seed in shares:
            axes.plot(steps, seed, color=colour, lw=0.8, alpha=0.5)
        mean = shares.mean(axis=0)
        axes.plot(steps, mean, color=colour, lw=2, marker="o", markersize=3.5)
        ends.append((name, float(steps[-1]), float(mean[-1]), colour))
    dress(axes, "steps of thought", "right answers, %", title)
    axes.set_xscale("log", base=2)
    ticks = [2**k for k in range(int(np.log2(max(end[1] for end in ends))) + 1)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_ylim(0, 102)
    figure.draw_without_rendering()
    label_lines(axes, ends)
    return figure


def draw_steps(
    path: Path, by_name: Mapping[str, Sequence[Sequence[float]]], title: str = ""
) -> None:
    """Write the figure of `plot_steps`, as PNG.

    Args:
        path: The file.
        by_name: See `plot_steps`.
        title: Heading of the figure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, png(plot_steps(by_name, title)))
