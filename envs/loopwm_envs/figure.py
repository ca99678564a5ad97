"""The ball chains in one figure: errors beyond against within, errors and iterations by depth."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwm.study.canvas import COLOURS, FAINT, dress, make_figure, plain_log_ticks
from loopwm_envs.extrapolation import TRAINED
from loopwm_envs.matching import BEYOND, Errors, Result, beyond

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_chains(
    results: Sequence[Result],
    measured: Mapping[str, int],
    errors: Sequence[Mapping[str, Errors]],
    iterations: Sequence[Mapping[str, Any]],
) -> "Figure":
    """Draw what a loop and stacks of blocks do beyond the causal depth that they were trained on.

    Args:
        results: Results of all arms and seeds.
        measured: Arms to draw, each with the iterations or blocks at which it is measured.
        errors: For each seed, what matched checkpoints of these arms err.
        iterations: For each seed, mean iterations as `depth_3` and so on.
    """
    figure = make_figure(11.5, 4.3)
    left, middle, right = figure.subplots(1, 3)
    colours = dict(zip(measured, COLOURS, strict=False))
    labels = {each["cell"]["arm"]: each["label"] for each in results}
    for arm, depth in measured.items():
        found = [each["checkpoints"] for each in results if each["cell"]["arm"] == arm]
        points = np.array([_point(each[str(depth)]) for seed in found for each in seed])
        left.scatter(*points.T, s=9, color=colours[arm], label=labels[arm], linewidths=0)
        _over_depths(middle, [seed[arm]["depths"] for seed in errors], colours[arm])
    below, above = min(BEYOND), max(BEYOND)
    dress(left, f"NMSE, trained depths (up to {TRAINED})", f"NMSE, depths {below} to {above}")
    left.set_title("All checkpoints, all seeds", fontsize=10.5, loc="left")
    left.set_xscale("log")
    left.set_yscale("log")
    dress(middle, "causal depth", "NMSE", "Matched in distribution")
    middle.set_yscale("log")
    for axes in (left, middle):
        plain_log_ticks(axes)
    means = [
        {key.removeprefix("depth_"): seed[key] for key in seed if key.startswith("depth_")}
        for seed in iterations
    ]
    _over_depths(right, means, COLOURS[0])
    dress(right, "causal depth", "iterations", "Iterations, stopping early")
    for axes in (middle, right):
        axes.axvspan(-0.4, TRAINED + 0.4, color="#F0F0F0", lw=0, zorder=0)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9
    )
    return figure


def _point(errors: Errors) -> tuple[float, float]:
    return errors["valid"], beyond(errors)


def _over_depths(axes: "Axes", seeds: Sequence[Mapping[str, float]], colour: str) -> None:
    """Draw the mean over seeds, and their range as a band."""
    depths = [int(depth) for depth in seeds[0]]
    values = np.array([list(seed.values()) for seed in seeds])
    axes.plot(depths, values.mean(axis=0), color=colour, marker="o", markersize=3.5)
    axes.fill_between(depths, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)
    axes.axvline(TRAINED + 0.4, color=FAINT, lw=0.6)
