"""The look of all figures: a palette that colour-blind readers can tell apart, labels on lines."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loopwm.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is too light for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F4F24", "#5B5B5B")
INK, FAINT = "#222222", "#8A8A8A"
DASHES = ("--", ":", "-.")


def make_figure(width: float = 7.0, height: float = 4.0) -> "Figure":
    """Make an empty figure that no window system and no global state knows of.

    Args:
        width: Inches.
        height: Inches.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    figures = require("matplotlib.figure", "viz")
    return figures.Figure(figsize=(width, height), layout="constrained", facecolor="white")


def dress(axes: "Axes", x: str = "", y: str = "", title: str = "") -> "Axes":
    """Give axes their labels and a quiet frame: two spines and a faint grid.

    Args:
        axes: What to dress.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        title: Title above, or nothing.

    Returns:
        The same axes.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(True, color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=INK, length=3)
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    if title:
        axes.set_title(title, fontsize=10.5, color=INK, loc="left", parse_math=False)
    return axes


def png(figure: "Figure", dpi: int = 130) -> bytes:
    """Draw a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def plain_log_ticks(axes: "Axes") -> None:
    """Label a logarithmic vertical axis by a few plain numbers; call it once all is drawn."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = axes.get_ylim()
    # Less than a decade holds too few of 1, 2, 5: there the ticks of a linear axis serve better.
    narrow = high < 8 * low
    axes.yaxis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def short_log_ticks(axes: "Axes") -> None:
    """Label a logarithmic horizontal axis by 1, 2 and 5 of each decade, in thousands, millions."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def label_lines(
    axes: "Axes", ends: Sequence[tuple[str, float, float, str]], size: float = 9.0
) -> None:
    """Write each line's name to the right of its last point, pushed apart where they would overlap.

    The name of a line that is infinite stands at the top. Call it last: it reads the axes' limits
    and scale.

    Args:
        axes: Where the lines are.
        ends: Name, x, y and colour of each line's last point.
        size: Font size in points.
    """
    drawn = [end for end in ends if not math.isnan(end[2])]
    if not drawn:
        return
    to_axes = axes.transData + axes.transAxes.inverted()
    inches = axes.bbox.height / axes.figure.dpi
    gap = 1.25 * size / 72 / inches
    places = [float(to_axes.transform((x, y))[1]) if y < math.inf else 1.0 for _, x, y, _ in drawn]
    for (name, x, y, colour), place in zip(drawn, spread(places, gap), strict=True):
        line = {"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.5}
        axes.annotate(
            name,
            xy=(x, y if y < math.inf else axes.get_ylim()[1]),
            xytext=(1.02, place),
            textcoords="axes fraction",
            color=colour,
            fontsize=size,
            va="center",
            annotation_clip=False,
            # A name is no mathematics, whatever its dollars.
            parse_math=False,
            arrowprops=line if y < math.inf else None,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move numbers as little as needed so that any two are at least `gap` apart.

    Args:
        places: Where labels would like to be.
        gap: Least distance, not negative.

    Returns:
        Where they go, in the given order.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    # Groups of touching labels share their mean; a group grows until it touches no other.
    groups: list[list[int]] = []
    for index in order:
        groups.append([index])
        while len(groups) > 1 and _bottom(groups[-1], places, gap) < _top(groups[-2], places, gap):
            groups[-2:] = [groups[-2] + groups[-1]]
    result = [0.0] * len(places)
    for group in groups:
        for offset, index in enumerate(group):
            result[index] = _bottom(group, places, gap) + gap / 2 + offset * gap
    return result


def _bottom(group: Sequence[int], places: Sequence[float], gap: float) -> float:
    return sum(places[index] for index in group) / len(group) - gap * len(group) / 2


def _top(group: Sequence[int], places: Sequence[float], gap: float) -> float:
    return _bottom(group, places, gap) + gap * len(group)
