"""Which puzzles are kept for testing: decided by their own content, so it needs no list."""

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

_ODD = np.uint64(0x9E3779B97F4A7C15)


def held_out(
    keys: Int[ndarray, "N S"] | Bool[ndarray, "N S"], one_in: int = 10
) -> Bool[ndarray, " N"]:
    """Return which puzzles are for testing, about one in `one_in`, the same for equal keys.

    Args:
        keys: What makes a puzzle the one that it is, small integers.
        one_in: Reciprocal of the share.
    """
    total = np.zeros(len(keys), np.uint64)
    for column in keys.T.astype(np.uint64):
        total = (total ^ column) * _ODD
        total ^= total >> np.uint64(29)
    return total % np.uint64(one_in) == 0
