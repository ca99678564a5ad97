"""From the results of trials to curves that are drawn together, again and again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from loopwm.study.accuracy import PredictionReport
from loopwm.study.compare.gap import Curve, Drawn, draw
from loopwm.study.compare.report import ArmReport, Point
from loopwm.study.compare.trial import Result

# The results of one arm at one size, a seed each.
Runs = Sequence[Result]
# Windows and sum of squared errors, by the number of the episode.
Episodes = dict[int, tuple[int, float]]


def drawn_curves(
    arms: Sequence[ArmReport],
    runs: Mapping[tuple[str, int], Runs],
    table: Callable[[Result], Episodes],
    *,
    paired: bool = False,
) -> dict[str, Drawn]:
    """Return the curves of all arms, drawn together.

    Args:
        arms: The arms.
        runs: Results by arm and size.
        table: Returns the errors of a result by episode (`errors_at`, `errors_of_third`).
        paired: Whether one draw takes the same seeds of every model.

    Returns:
        Curves by arm, without arms that have no window.
    """
    curves: dict[str, Curve] = {}
    for arm in arms:
        on = [each for each in arm.points if each.envelope]
        tables = [[table(each) for each in runs[arm.name, point.size]] for point in on]
        if not on or not all(map(all, tables)):
            continue
        numbers = sorted(tables[0][0])
        windows = np.array([tables[0][0][each][0] for each in numbers], np.float64)
        squares = tuple(
            np.array([[seed[each][1] for each in numbers] for seed in size]) for size in tables
        )
        curves[arm.name] = Curve(sizes_of(arm, "parameters"), squares, windows)
    drawn = draw(list(curves.values()), paired=paired) if curves else []
    return dict(zip(curves, drawn, strict=True))


def error_of(reports: Sequence[PredictionReport], k: int) -> tuple[float, float, float]:
    """Return the error over seeds and episodes, with its interval."""
    tables = [{number: total for number, _, total in each.by_episode[k]} for each in reports]
    counts = np.array([count for _, count, _ in reports[0].by_episode[k]], np.float64)
    squares = np.array([[*each.values()] for each in tables])
    squares = np.where(np.isnan(squares), np.inf, squares)
    one = draw([Curve(np.ones(1), (squares,), counts)])[0]
    # Without interpolation, which would make NaN of two infinite neighbours.
    low, high = np.quantile(one.draws[:, 0], (0.025, 0.975), method="inverted_cdf")
    return float(one.errors[0, 0]), float(low), float(high)


def sizes_of(arm: ArmReport, measure: str) -> Float[ndarray, " N"]:
    """Return the sizes of the points that the curve goes through."""
    return np.array([each.cost[measure] for each in arm.points if each.envelope], np.float64)


def middle(arm: ArmReport) -> Point:
    """Return the middle one of the models that the curve goes through; of two, the smaller."""
    on = [each for each in arm.points if each.envelope]
    return on[(len(on) - 1) // 2]


def errors_at(k: int, measured: str = "report") -> Callable[[Result], Episodes]:
    """Return what reads a result's errors at a horizon.

    Args:
        k: Horizon.
        measured: Which of its reports: "report", or "shifted".
    """

    def read(result: Result) -> Episodes:
        if measured not in result:
            return {}
        return _known(result[measured]["by_episode"][str(k)])

    return read


def errors_of_third(label: str, k: int, third: int) -> Callable[[Result], Episodes]:
    """Return what reads a result's errors in the windows of a third by difficulty.

    Args:
        label: Name of the label.
        k: Horizon.
        third: 0 for the easiest, 2 for the hardest.
    """

    def read(result: Result) -> Episodes:
        tables = result.get("strata", {}).get(label, {}).get(str(k))
        return {} if tables is None else _known(tables[third])

    return read


def _known(table: Sequence[Sequence[Any]]) -> Episodes:
    """Read a table; errors that are not numbers are infinite."""
    rows = [(int(number), int(count), float(total)) for number, count, total in table]
    return {number: (count, total if total == total else np.inf) for number, count, total in rows}
