"""The figure of what LoopWM's equation alone does, and what the cells of this library do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from loopwm.study.canvas import COLOURS, INK, dress, label_lines, make_figure
from loopwm.study.certificates import Course

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What overflows leaves the picture at its top.
TOP, BOTTOM = 1e15, 1e-16
_STYLES = {
    "equation alone, gated residual": (COLOURS[1], "-"),
    "equation alone, ReLU residual": (COLOURS[1], "--"),
    "BoundedCell (default)": (COLOURS[0], "-"),
    "ContractiveCell (default)": (COLOURS[2], "-"),
}


def plot_courses(courses: Mapping[str, Course]) -> "Figure":
    """Draw the norm of the state and the distance of two states against the iterations.

    Args:
        courses: What each cell did, by name.
    """
    figure = make_figure(11.5, 4.2)
    left, right = figure.subplots(1, 2)
    _panel(left, {name: courses[name].norm.numpy() for name in _STYLES}, 1.0)
    dress(left, "iterations", "largest norm of a state", "Does the state stay bounded?")
    shrinking = {name: courses[name].distance.numpy() for name in _STYLES}
    _panel(right, shrinking, BOTTOM)
    dress(right, "iterations", "distance", "Do two states, started apart, meet?")
    figure.suptitle(
        "LoopWM's equation alone, and two cells of loopwm; weights twice those of new cells",
        fontsize=11,
        color=INK,
    )
    figure.draw_without_rendering()
    for axes, values in ((left, "norm"), (right, "distance")):
        label_lines(axes, [_end(name, getattr(courses[name], values).numpy()) for name in _STYLES])
    return figure


def _panel(axes: "Axes", lines: Mapping[str, np.ndarray], low: float) -> None:
    for name, values in lines.items():
        colour, dash = _STYLES[name]
        seen = np.isfinite(values[1:])
        places = np.arange(1, len(values))[seen]
        axes.plot(places, values[1:][seen], color=colour, ls=dash, lw=1.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, max(len(values) for values in lines.values()))
    axes.set_ylim(low, TOP)


def _end(name: str, values: np.ndarray) -> tuple[str, float, float, str]:
    """Return the label of a line and where it leaves the picture."""
    inside = np.isfinite(values) & (values < TOP)
    last = len(values) - 1 if inside.all() else int(np.argmin(inside)) - 1
    return (name, float(last), float(values[last]), _STYLES[name][0])
