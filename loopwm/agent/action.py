"""An action on its way into a real environment: in the type of its space, inside it, or refused."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from loopwm.errors import DataError


def fitted(action: Any, space: gym.Space[Any]) -> Any:
    """Return an action in the type of its space, what rounding carried out of bounds moved back.

    Networks and planners compute in 32 bits, in which a bound such as 0.1 lies elsewhere than in
    the 64 bits of some environments.

    Args:
        action: Numbers [A], or an index.
        space: A flat Box of floats, or Discrete.

    Raises:
        DataError: If it has another shape, is not finite or lies outside of the space.
    """
    given = np.asarray(action)
    if given.size == 1 and not space.shape:
        given = given.reshape(())
    if given.shape != space.shape or given.dtype.kind not in "biuf":
        raise _refused(action, space, f"it must be numbers of the shape {space.shape}")
    if not np.isfinite(given).all():
        raise _refused(action, space, "it must be finite")
    if isinstance(space, Box):
        near = np.clip(given.astype(space.dtype), space.low, space.high)
        # As far as 32 bits tell numbers of this size, or of the bounds', apart.
        ends = [np.where(np.isfinite(end), np.abs(end), 0) for end in (space.low, space.high)]
        size = np.maximum.reduce([*ends, np.abs(near)]).astype(np.float32)
        if (np.abs(near - given) <= 2 * np.spacing(size)).all():
            return near
    elif space.contains(given.astype(np.int64)[()]) and given == np.floor(given):
        return np.asarray(given, np.int64)
    raise _refused(action, space, "it must lie in the space; clip it")


def _refused(action: Any, space: gym.Space[Any], why: str) -> DataError:
    return DataError(f"the action {action!r} cannot be taken in {space}: {why}")
