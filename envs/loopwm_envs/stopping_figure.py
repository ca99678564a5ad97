"""Chains that stop early, in one figure: errors as iterations go on, and when each depth stops."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loopwm.study.canvas import COLOURS, dress, label_lines, make_figure, plain_log_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = (0, 1, 2, 4, 6, 8)


def plot_stopping(seeds: Sequence[Sequence[Mapping[str, float]]], shown: Sequence[int]) -> "Figure":
    """Draw errors by causal depth after some iterations, and iterations under the rule.

    Args:
        seeds: For each seed, what `loopwm_envs.stopping.by_depth` returned.
        shown: The iterations after which errors were measured.
    """
    figure = make_figure(10.0, 4.2)
    left, right = figure.subplots(1, 2)
    labels = []
    for colour, depth in zip(COLOURS, _DRAWN, strict=False):
        rows = [next(row for row in seed if row["depth"] == depth) for seed in seeds]
        mean = [float(np.mean([row[f"rmse_{t}"] for row in rows])) for t in shown]
        left.plot(shown, mean, color=colour, marker="o", markersize=3.5)
        labels.append((f"depth {depth}", float(shown[-1]), mean[-1], colour))
    dress(left, "iterations of every chain", "RMSE, deviations of the change", "Deeper, later")
    left.set_yscale("log")
    plain_log_ticks(left)
    depths = [row["depth"] for row in seeds[0]]
    stops = np.array([[row["iterations"] for row in seed] for seed in seeds])
    right.plot(depths, stops.mean(axis=0), color=COLOURS[0], marker="o", markersize=3.5)
    right.fill_between(depths, stops.min(axis=0), stops.max(axis=0), color=COLOURS[0], alpha=0.2)
    dress(right, "causal depth", "mean iterations", "When chains stop (range over seeds)")
    right.set_ylim(0)
    figure.draw_without_rendering()
    label_lines(left, labels)
    return figure
