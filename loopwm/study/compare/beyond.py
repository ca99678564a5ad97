"""How much more an arm errs beyond what it was trained on, where it errs alike within."""

from collections.abc import Mapping, Sequence

import numpy as np

from loopwm.study.compare.curve import Reading, value_at
from loopwm.study.compare.drawing import Runs, drawn_curves, errors_at
from loopwm.study.compare.gap import Drawn, levels_of, ratio
from loopwm.study.compare.report import ArmReport, Beyond

_Read = tuple[Reading, Reading]


def beyond(
    arms: Sequence[ArmReport],
    runs: Mapping[tuple[str, int], Runs],
    horizons: Sequence[int],
    levels: Mapping[int, Sequence[float]],
) -> dict[str, dict[int, tuple[Beyond, ...]]]:
    """Compare errors on shifted experience at equal errors on experience as trained on.

    One draw takes the same seeds of every model, for both errors: a seed draws the same batches for
    all arms, and what a seed does to a model it does to both.

    Args:
        arms: The arms that were given the same.
        runs: Results by arm and size.
        horizons: Open-loop steps.
        levels: Errors within, by horizon, that were fixed beforehand.

    Returns:
        By arm and horizon one entry for each level; nothing where no result has shifted errors.
    """
    found: dict[str, dict[int, tuple[Beyond, ...]]] = {}
    if not any("shifted" in result for own in runs.values() for result in own):
        return found
    for k in horizons:
        within = drawn_curves(arms, runs, errors_at(k), paired=True)
        outside = drawn_curves(arms, runs, errors_at(k, "shifted"), paired=True)
        for arm in arms:
            base = arm.against or arm.name
            if not {arm.name, base} <= within.keys() & outside.keys():
                continue
            errors = levels.get(k) or tuple(each.error for each in levels_of(within[base]))
            found.setdefault(arm.name, {})[k] = tuple(
                _at(within, outside, arm.name, base, level) for level in errors
            )
    return found


def _at(
    within: Mapping[str, Drawn], outside: Mapping[str, Drawn], arm: str, base: str, level: float
) -> Beyond:
    ours, theirs = (_read(within[each], outside[each], level) for each in (arm, base))
    return Beyond(level, ratio(ours, _constant(ours, level)), ratio(ours, theirs))


def _read(within: Drawn, outside: Drawn, level: float) -> _Read:
    return (
        value_at(within.errors, outside.errors, level),
        value_at(within.draws, outside.draws, level),
    )


def _constant(like: _Read, level: float) -> _Read:
    first, second = (np.full(len(each.low), np.log(level)) for each in like)
    return Reading(first, first), Reading(second, second)
