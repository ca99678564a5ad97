"""Ways to show the same ARC task: turned or mirrored, and in other colours.

An augmentation is a number in [0, `VARIANTS`), of which 0 changes nothing, and it is computed from
task, seed and k when it is needed: nothing is stored, and no two processes need to agree on more.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from loopwm.reason.grid import COLOURS
from loopwm.seed import key

TURNS = 8
_ORDERS = math.factorial(COLOURS - 1)
VARIANTS = TURNS * _ORDERS
"""Symmetries of the square times orders of the colours 1 to 9; 0, the background, stays."""

# A block of the generator's counter.
_WORDS = 4


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Say how a task is shown.

    Args:
        turn: Quarter turns against the clock, and 4 more if the grid is first mirrored left to
            right, in [0, 8).
        colours: What each colour becomes.
    """

    turn: int = 0
    colours: tuple[int, ...] = tuple(range(COLOURS))

    @classmethod
    def of(cls, code: int) -> "Augmentation":
        """Return the augmentation of a number in [0, `VARIANTS`)."""
        turn, colours = unpack(np.array([code]))
        return cls(int(turn[0]), tuple(colours[0].tolist()))

    def apply(self, grid: UInt8[ndarray, "R C"]) -> UInt8[ndarray, "P Q"]:
        """Show a grid this way."""
        mirrored = grid[:, ::-1] if self.turn >= TURNS // 2 else grid
        return np.array(self.colours, np.uint8)[np.rot90(mirrored, self.turn % 4)]

    def undo(self, grid: UInt8[ndarray, "R C"]) -> UInt8[ndarray, "P Q"]:
        """Return the grid that `apply` shows so."""
        turned = np.rot90(np.argsort(self.colours).astype(np.uint8)[grid], -self.turn % 4)
        return np.ascontiguousarray(turned[:, ::-1] if self.turn >= TURNS // 2 else turned)


def code(task: str, seed: int, k: int) -> int:
    """Return the number of a task's k-th augmentation; it is 0 for k = 0.

    Args:
        task: Name of the task.
        seed: Seed, not negative.
        k: Which one, not negative.
    """
    if k == 0:
        return 0
    block = np.random.Philox(key(seed, "augment", task), counter=k)
    return int(block.random_raw() % VARIANTS)


def codes(task: str, seed: int, count: int) -> Int[ndarray, " K"]:
    """Return `code(task, seed, k)` of every k below `count`."""
    blocks = np.random.Philox(key(seed, "augment", task)).random_raw(count * _WORDS)
    numbers = (blocks[::_WORDS] % VARIANTS).astype(np.int32)
    numbers[:1] = 0
    return numbers


def unpack(codes: Int[ndarray, " B"]) -> tuple[Int[ndarray, " B"], UInt8[ndarray, "B 10"]]:
    """Return the turn and the colours of each number.

    Args:
        codes: Numbers in [0, `VARIANTS`).
    """
    turn, order = np.divmod(codes.astype(np.int64), _ORDERS)
    colours = np.zeros((len(codes), COLOURS), np.int64)
    # Lehmer's code: digit i says which of the colours that are left comes next. Read from the
    # last place, each digit makes room among those behind it.
    for place in range(COLOURS - 1, 0, -1):
        order, digit = np.divmod(order, COLOURS - place)
        behind = colours[:, place + 1 :]
        behind += behind > digit[:, None]
        colours[:, place] = digit + 1
    return turn, colours.astype(np.uint8)
