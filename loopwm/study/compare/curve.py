"""Read a curve of error against size: straight between its points on a log-log plot, never beyond.

What lies beyond the sizes tried is not extrapolated: a reading is a pair of ends, equal where it is
known, and infinitely far apart on the side where only a bound is known.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


class Reading(NamedTuple):
    """Hold the logarithms between which each read number lies.

    Attributes:
        low: Lower end; minus infinity where nothing is known below.
        high: Upper end; infinity where nothing is known above.
    """

    low: Float[ndarray, " R"]
    high: Float[ndarray, " R"]

    def minus(self, other: "Reading") -> "Reading":
        """Return what is known of the difference; of two infinite numbers, nothing."""
        with np.errstate(invalid="ignore"):
            low, high = self.low - other.high, self.high - other.low
        return Reading(
            np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
        )


def envelope(sizes: Float[ndarray, " N"], errors: Float[ndarray, " N"]) -> Int[ndarray, " M"]:
    """Choose the models of the lower envelope: each better than all that are no larger.

    Args:
        sizes: Size of each model, in any order.
        errors: Error that the choice is made by; one that is not finite is never chosen.

    Returns:
        Indices of the chosen models, sizes ascending.
    """
    best, chosen = np.inf, []
    for index in np.lexsort((errors, sizes)):
        if errors[index] < best:
            best = errors[index]
            chosen.append(index)
    return np.array(chosen, np.int64)


def size_at(
    sizes: Float[ndarray, " N"],
    errors: Float[ndarray, "R N"],
    level: float | Float[ndarray, " R"],
) -> Reading:
    """Read the smallest size at which an error is reached, on R curves over the same sizes.

    Args:
        sizes: Sizes, ascending.
        errors: Error at each size; infinite ones are never reached through.
        level: Error to reach, positive; one for all curves, or one for each.

    Returns:
        Logarithm of the size. A curve that never reaches the level gives the largest size as lower
        end; one that is below it from the start gives the smallest size as upper end.
    """
    x, y = np.log(sizes), _log(errors)
    at = np.log(np.broadcast_to(level, len(y)))
    reached = y <= at[:, None]
    rows = np.arange(len(y))
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(x))
    after = np.clip(first, 1, len(x) - 1) if len(x) > 1 else np.zeros(len(y), np.int64)
    before = np.maximum(after - 1, 0)
    above, below = y[rows, before], y[rows, after]
    with np.errstate(invalid="ignore", divide="ignore"):
        # From an infinite error nothing can be drawn: the level is reached at the next size.
        part = np.where(np.isfinite(above), (above - at) / (above - below), 1.0)
        exact = x[before] + part * (x[after] - x[before])
    none, start = first == len(x), (first == 0) & (y[:, 0] < at)
    exact = np.where(first == 0, x[0], exact)
    return Reading(
        np.where(none, x[-1], np.where(start, -np.inf, exact)), np.where(none, np.inf, exact)
    )


def value_at(errors: Float[ndarray, "R N"], values: Float[ndarray, "R N"], level: float) -> Reading:
    """Read what else is measured of the models where an error is reached, on R curves.

    Args:
        errors: Error of each model, the smallest model first.
        values: The other quantity of the same models, positive.
        level: Error at which it is read, positive.

    Returns:
        Logarithm of the quantity, straight between the two models whose errors have the level
        between them. Nothing is known where all models err more, or the smallest errs less already.
    """
    x, y = _log(errors), _log(values)
    reached = x <= np.log(level)
    rows, last = np.arange(len(x)), x.shape[1] - 1
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), last)
    before = np.maximum(first - 1, 0)
    above, below = x[rows, before], x[rows, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(np.isfinite(above), (above - np.log(level)) / (above - below), 1.0)
        # An infinite quantity at the far end counts for nothing where that end is reached.
        far = np.where(part < 1, (1 - part) * y[rows, before], 0.0)
        read = far + part * y[rows, first]
    read = np.where(first == 0, y[:, 0], read)
    exact = np.isclose(x[:, 0], np.log(level), rtol=0, atol=1e-12)
    known = reached.any(axis=1) & ((first > 0) | exact)
    return Reading(np.where(known, read, -np.inf), np.where(known, read, np.inf))


def error_at(sizes: Float[ndarray, " N"], errors: Float[ndarray, "R N"], size: float) -> Reading:
    """Read the least error that is reached without exceeding a size, on R curves.

    Args:
        sizes: Sizes, ascending.
        errors: Error at each size.
        size: Largest size allowed, positive.

    Returns:
        Logarithm of the error. Below the smallest size tried nothing is known; above the largest,
        its error is an upper end.
    """
    x, y, at = np.log(sizes), np.minimum.accumulate(_log(errors), axis=1), np.log(size)
    rows = len(y)
    if at < x[0] and not np.isclose(at, x[0]):
        return Reading(np.full(rows, -np.inf), np.full(rows, np.inf))
    if at > x[-1] and not np.isclose(at, x[-1]):
        return Reading(np.full(rows, -np.inf), y[:, -1])
    read = np.array([np.interp(at, x, each) for each in y])
    return Reading(read, read)


def _log(errors: Float[ndarray, "R N"]) -> Float[ndarray, "R N"]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(np.where(np.isnan(errors), np.inf, errors))
