"""Puzzles beside how difficult they are, and drawing until enough are as asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from loopwm.errors import ConfigError, DataError
from loopwm.reason.carry import PuzzleBatch

# Attempts without any puzzle after which to give up, and the most drawn in one.
_FRUITLESS, _MOST = 30, 1024

# (count) -> arrays with a row for each puzzle drawn, and which of them are as asked for.
Attempt = Callable[[int], tuple[Sequence[ndarray], Bool[ndarray, " N"]]]


@dataclass(frozen=True, slots=True, eq=False)
class Graded:
    """Hold puzzles and their difficulty.

    Attributes:
        batch: The puzzles with their answers.
        difficulty: Of each; its unit is the family's.
    """

    batch: PuzzleBatch
    difficulty: Float[ndarray, " N"]

    def __len__(self) -> int:
        """Return the number of puzzles."""
        return len(self.batch)


def accepted(attempt: Attempt, count: int, wanted: str) -> list[ndarray]:
    """Draw puzzles, and again in place of those that are not as asked for.

    Args:
        attempt: Draws puzzles.
        count: How many to return.
        wanted: What is asked for, for the message that it is not found.

    Raises:
        ConfigError: If none are asked for.
        DataError: If attempt after attempt finds none.
    """
    if count < 1:
        raise ConfigError(f"count must be at least 1, got {count}")
    kept: list[Sequence[ndarray]] = []
    left, fruitless = count, 0
    while left > 0:
        # Where nothing is found, more is tried at once.
        arrays, good = attempt(max(left, min(left << fruitless, _MOST)))
        kept.append([array[good] for array in arrays])
        left -= int(good.sum())
        fruitless = 0 if good.any() else fruitless + 1
        if fruitless == _FRUITLESS:
            raise DataError(f"no puzzles of {wanted} are found; ask for a wider range")
    return [np.concatenate(column)[:count] for column in zip(*kept, strict=True)]


def check_seed(seed: int) -> None:
    """Refuse a seed of which there are no random numbers.

    Raises:
        ConfigError: If it is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}")
