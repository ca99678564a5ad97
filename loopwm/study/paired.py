"""How two arms of several seeds compare on the same windows."""

from collections.abc import Sequence

import numpy as np

from loopwm.study.accuracy import PredictionReport
from loopwm.study.compare.gap import Curve, draw
from loopwm.study.notes import one_unit


def error_ratio(
    first: Sequence[PredictionReport], second: Sequence[PredictionReport], horizon: int
) -> list[float] | None:
    """Compare two arms on the same windows, errors of the seeds squared and averaged.

    The interval is a bootstrap: seeds of each arm, for trainings are independent of each other,
    then test episodes, the same for both arms.

    Args:
        first: Reports of the numerator's seeds.
        second: Reports of the denominator's seeds.
        horizon: Open-loop steps.

    Returns:
        Ratio of RMSEs and the ends of its 95% interval; None where they share no windows or units,
        where an episode has more of them in one report than in another, or an error is not finite.
    """
    if not one_unit((*first, *second)):
        return None
    found = [_by_episode(report, horizon) for report in (*first, *second)]
    shared = sorted(set(found[0]).intersection(*found))
    if not shared:
        return None
    counts = np.array([[each[number][0] for number in shared] for each in found], float)
    if (counts != counts[0]).any():
        return None
    squares = np.array([[each[number][1] for number in shared] for each in found])
    if not (np.isfinite(squares).all() and (squares > 0).all()):
        return None
    parts = (squares[: len(first)], squares[len(first) :])
    top, bottom = draw([Curve(np.ones(1), (part,), counts[0]) for part in parts])
    ends = np.quantile(top.draws / bottom.draws, (0.025, 0.975))
    return [float(each) for each in (*(top.errors / bottom.errors).flat, *ends)]


def _by_episode(report: PredictionReport, horizon: int) -> dict[int, tuple[int, float]]:
    """Return for each episode its windows and the sum of their squared errors."""
    return {number: (windows, total) for number, windows, total in report.by_episode[horizon]}
