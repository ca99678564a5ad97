"""Fill the regions that walls enclose; how far outside must be followed is the difficulty."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray

from loopwm.errors import ConfigError
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.loss import IGNORED
from loopwm.reason.puzzles.graded import Graded, accepted
from loopwm.reason.puzzles.grid import GridSource
from loopwm.reason.puzzles.split import held_out

WALL, OPEN, FILLED = 1, 2, 3
"""Tokens; 0 is padding, which does not occur."""

# Around the share of walls at which the open cells of a large grid fall apart, 41%.
_FEWEST_WALLS, _MOST_WALLS = 0.3, 0.5


@dataclass(frozen=True)
class Regions(GridSource):
    """Make grids with enclosed regions for every batch; a `PuzzleSource`. None is a test grid.

    An open cell is outside if open cells, side by side, lead from it to the edge of the grid;
    what is not outside is to be filled. The difficulty is the number of steps in which outside,
    spreading from the edge by one cell in each, reaches all that it can.

    Args:
        side: Rows, and columns, at least 5.
        least: Fewest steps, not negative.
        most: Most steps; None sets no limit.
    """

    vocabulary = FILLED + 1
    name = "region"

    side: int = 12
    least: int = 0
    most: int | None = None

    def __post_init__(self) -> None:
        if self.side < 5:
            raise ConfigError(f"side must be at least 5, got {self.side}")
        if not 0 <= self.least <= (self.most if self.most is not None else self.length):
            raise ConfigError(
                f"least must be in [0, {self.length}] and at most most={self.most}, got "
                f"{self.least}"
            )

    def make(self, generator: torch.Generator, count: int, test: bool) -> Graded:
        """Make grids, as difficult as outside spreads long (see `GridSource`)."""
        most = self.length if self.most is None else self.most

        def attempt(
            rows: int,
        ) -> tuple[
            tuple[Bool[ndarray, "N S"], Bool[ndarray, "N S"], Int[ndarray, " N"]],
            Bool[ndarray, " N"],
        ]:
            draws = torch.rand(rows, self.length + 1, generator=generator).numpy()
            share = _FEWEST_WALLS + (_MOST_WALLS - _FEWEST_WALLS) * draws[:, :1]
            walls = draws[:, 1:] < share
            outside, steps = spread(~walls.reshape(rows, self.side, self.side))
            inside = ~walls & ~outside.reshape(rows, -1)
            good = (steps >= self.least) & (steps <= most) & inside.any(1)
            return (walls, inside, steps), good & (held_out(walls) == test)

        wanted = f"{self.least} to {most} steps"
        walls, inside, steps = accepted(attempt, count, wanted)
        labels = np.where(walls, IGNORED, np.where(inside, FILLED, OPEN))
        batch = PuzzleBatch(
            tokens=torch.from_numpy(np.where(walls, WALL, OPEN)),
            labels=torch.from_numpy(labels),
            puzzle_ids=torch.zeros(count, dtype=torch.long),
        )
        return Graded(batch, steps.astype(np.float64))


def spread(cells: Bool[ndarray, "N R C"]) -> tuple[Bool[ndarray, "N R C"], Int[ndarray, " N"]]:
    """Return which open cells lead to the edge of their grid, and in how many steps that is known.

    Args:
        cells: Whether each cell is open.
    """
    edge = np.zeros(cells.shape[1:], bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    outside, steps = cells & edge, np.zeros(len(cells), np.int64)
    while True:
        wider = outside.copy()
        wider[:, 1:] |= outside[:, :-1]
        wider[:, :-1] |= outside[:, 1:]
        wider[:, :, 1:] |= outside[:, :, :-1]
        wider[:, :, :-1] |= outside[:, :, 1:]
        wider &= cells
        changed = (wider != outside).any((1, 2))
        if not changed.any():
            return outside, steps
        steps += changed
        outside = wider
