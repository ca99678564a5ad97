"""Ratios apart for easy and hard windows: where looping pays, if it pays at all."""

from collections.abc import Mapping, Sequence

from loopwm.study.compare.drawing import Runs, drawn_curves, errors_of_third, middle
from loopwm.study.compare.gap import Drawn, Level, levels_of, ratio
from loopwm.study.compare.report import ArmReport, Stratum
from loopwm.study.compare.strata import THIRDS


def by_difficulty(
    arms: Sequence[ArmReport], runs: Mapping[tuple[str, int], Runs], horizons: Sequence[int]
) -> tuple[Stratum, ...]:
    """Compare arms in each third of the windows by each difficulty label.

    Args:
        arms: The arms that were given the same.
        runs: Results by arm and size.
        horizons: Open-loop steps.

    Returns:
        One entry for each label, third, horizon and arm; none where the test set has no labels.
    """
    results = [each for several in runs.values() for each in several]
    labels = dict.fromkeys(name for each in results for name in each.get("strata", {}))
    found = []
    for label in labels:
        for third in range(len(THIRDS)):
            for k in horizons:
                drawn = drawn_curves(arms, runs, errors_of_third(label, k, third))
                for arm in arms:
                    if arm.against in drawn and arm.name in drawn:
                        found.append(_stratum(arms, drawn, arm, (label, third, k)))
    return tuple(found)


def _stratum(
    arms: Sequence[ArmReport],
    drawn: Mapping[str, Drawn],
    arm: ArmReport,
    place: tuple[str, int, int],
) -> Stratum:
    label, third, k = place
    (base,) = (each for each in arms if each.name == arm.against)
    ours, theirs = drawn[arm.name], drawn[base.name]
    levels, size = levels_of(theirs), middle(base).cost["parameters"]
    level = levels[len(levels) // 2] if levels else Level.fixed(1.0)
    return Stratum(
        label=label,
        third=THIRDS[third],
        horizon=k,
        arm=arm.name,
        quality=ratio(ours.size_at(level), theirs.size_at(level)),
        matched=ratio(ours.error_at(size), theirs.error_at(size)),
    )
