"""What a training left on record: its seconds, its validations, whether it had come to an end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopwm.world.ensemble import Ensemble
    from loopwm.world.model import WorldModel


def histories(model: "WorldModel | Ensemble") -> list[Sequence[dict[str, Any]]]:
    """Return the training metrics of a model, or of each member of an ensemble."""
    return [each.history for each in getattr(model, "members", [model])]


def training_seconds(history: Sequence[dict[str, Any]]) -> float:
    """Return how long a training history took, interruptions left out."""
    return max((float(each["seconds"]) for each in history if "seconds" in each), default=0.0)


def validations(history: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """List (update, validation error) of a training history."""
    return [
        (int(each["update"]), float(each["validation"]))
        for each in history
        if each.get("validation") is not None
    ]


# Fewer validations than these tell no curve; the averaged weights have hardly moved.
_FEW = 8


def plateau_gain(history: Sequence[dict[str, Any]]) -> float | None:
    """Measure by which share the validation error still fell over the last quarter of updates.

    Args:
        history: Training metrics.

    Returns:
        1 - (error at the end) / (error at three quarters), None with less than eight validations.
    """
    points = validations(history)
    if len(points) < _FEW:
        return None
    end, last = points[-1]
    before = [error for update, error in points if update <= 0.75 * end]
    return None if not before else 1 - last / before[-1]


def left_out(several: Sequence[Sequence[dict[str, Any]]]) -> bool:
    """Say whether one of some trainings left out an update that was not finite.

    Trained at once, all leave out what is not finite for one of them, which is not their own.
    """
    return any(record.get("skipped") for history in several for record in history)


def largest_gain(several: Sequence[Sequence[dict[str, Any]]]) -> float | None:
    """Return the largest `plateau_gain` of the members of an ensemble, None if one has none."""
    gains = [plateau_gain(each) for each in several]
    return None if None in gains else max(each for each in gains if each is not None)
