"""Observations with parts, all of an episode at once, as rows of numbers."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from loopwm.errors import DataError, LoopwmError


def flatten_rows(space: gym.Space[Any], observations: Any, rows: int) -> np.ndarray:
    """Flatten each of several observations as `gymnasium.spaces.flatten` does.

    Args:
        space: The space of one observation.
        observations: The observations, stored by part: a column for each leaf of the space.
        rows: How many they are.

    Returns:
        The numbers of each observation [rows,O].

    Raises:
        DataError: If they are not of the space, or it has parts that are no fixed number of
            numbers.
    """
    try:
        return _flat(space, observations, rows)
    except LoopwmError:
        raise
    except Exception as error:
        # What others stored may be anything, and so may what Gymnasium makes of it.
        raise DataError(
            f"the observations cannot be flattened as {space}: {type(error).__name__}: {error}"
        ) from error


def _flat(space: gym.Space[Any], values: Any, rows: int) -> np.ndarray:
    if isinstance(space, Dict):
        parts = [(each, values[name]) for name, each in space.spaces.items()]
    elif isinstance(space, Tuple):
        parts = list(zip(space.spaces, values, strict=True))
    else:
        return _leaf(space, values, rows)
    return np.concatenate([_flat(each, part, rows) for each, part in parts], axis=1)


def _leaf(space: gym.Space[Any], values: Any, rows: int) -> np.ndarray:
    if len(values) != rows:
        raise DataError(f"an episode of {rows - 1} steps has {len(values)} observations")
    if isinstance(space, Box | MultiBinary):
        return np.asarray(values, space.dtype).reshape(rows, -1)
    if isinstance(space, Discrete | MultiDiscrete):
        sizes = np.ravel(space.nvec if isinstance(space, MultiDiscrete) else space.n)
        places = np.asarray(values).reshape(rows, -1) - np.ravel(space.start)
        return _one_hot(places.astype(np.int64), sizes.astype(np.int64)).astype(space.dtype)
    return np.stack([np.asarray(gym.spaces.flatten(space, each)) for each in values])


def _one_hot(places: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return a one in the place of each digit, the digits one after another."""
    if ((places < 0) | (places >= sizes)).any():
        raise DataError(f"an observation holds a number that is none of {sizes.tolist()} choices")
    hot = np.zeros((len(places), sizes.sum()), np.int8)
    np.put_along_axis(hot, places + np.append(0, np.cumsum(sizes)[:-1]), 1, axis=1)
    return hot
