"""From the results of trials to curves that are drawn together, again and again."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from loopwm.study.accuracy import PredictionReport
from loopwm.study.compare.gap import Curve, Drawn, draw
from loopwm.study.compare.report import ArmReport, Point
from loopwm.study.compare.trial import Result

# The results of one arm at one size, a seed each.
Runs = Sequence[Result]


def drawn_curves(
    arms: Sequence[ArmReport],
    runs: Mapping[tuple[str, int], Runs],
    k: int,
    *,
    measured: str = "report",
    paired: bool = False,
) -> dict[str, Drawn]:
    """Return the curves of all arms at one horizon, drawn together.

    Args:
        arms: The arms.
        runs: Results by arm and size.
        k: Horizon.
        measured: Which of a result's reports: "report", or "shifted".
        paired: Whether one draw takes the same seeds of every model.

    Returns:
        Curves by arm, without arms that have no window at this horizon.
    """
    curves: dict[str, Curve] = {}
    for arm in arms:
        on = [each for each in arm.points if each.envelope]
        tables = [
            [_episodes(each, k, measured) for each in runs[arm.name, point.size]] for point in on
        ]
        if not on or not all(table for tables_of in tables for table in tables_of):
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
    squares = np.nan_to_num(np.array([[*each.values()] for each in tables]), nan=np.inf)
    one = draw([Curve(np.ones(1), (squares,), counts)])[0]
    low, high = np.quantile(one.draws[:, 0], (0.025, 0.975))
    return float(one.errors[0, 0]), float(low), float(high)


def sizes_of(arm: ArmReport, measure: str) -> Float[ndarray, " N"]:
    """Return the sizes of the points that the curve goes through."""
    return np.array([each.cost[measure] for each in arm.points if each.envelope], np.float64)


def middle(arm: ArmReport) -> Point:
    """Return the middle one of the models that the curve goes through."""
    on = [each for each in arm.points if each.envelope]
    return on[len(on) // 2]


def _episodes(result: Result, k: int, measured: str) -> dict[int, tuple[int, float]]:
    """Return windows and squared errors by episode; those that are not numbers are infinite."""
    if measured not in result:
        return {}
    table = PredictionReport.from_dict(dict(result[measured])).by_episode[k]
    return {
        int(number): (int(count), float(total) if total == total else np.inf)
        for number, count, total in table
    }
