"""Mazes with one path from start to goal, whose length is their difficulty."""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Int16, Int32
from numpy import ndarray

from loopwm.errors import ConfigError, require
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.loss import IGNORED
from loopwm.reason.puzzles.graded import Graded, accepted
from loopwm.reason.puzzles.grid import GridSource
from loopwm.reason.puzzles.solver import draw, shuffle
from loopwm.reason.puzzles.split import held_out

numba = require("numba", "arc")

WALL, FREE, START, GOAL, PATH = 1, 2, 3, 4, 5
"""Tokens; 0 is padding, which does not occur."""

_MOVES = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])


@dataclass(frozen=True)
class Mazes(GridSource):
    """Make mazes for every batch; a `PuzzleSource`. None has the walls of a test maze.

    Corridors are carved by a random depth-first walk until all are joined, in exactly one way: so
    the path from start to goal is the only one. Asked for is, of each free cell between them,
    whether it lies on that path.

    Args:
        side: Rows, and columns, at least 5; corridors lie on every other one.
        least: Fewest steps from start to goal, at least 2.
        most: Most steps; None sets no limit.
    """

    vocabulary = PATH + 1
    name = "maze"

    side: int = 30
    least: int = 2
    most: int | None = None

    def __post_init__(self) -> None:
        if self.side < 5:
            raise ConfigError(f"side must be at least 5, got {self.side}")
        longest = 2 * (((self.side + 1) // 2) ** 2 - 1)
        if not 2 <= self.least <= (longest if self.most is None else self.most) <= longest:
            raise ConfigError(
                f"steps from least={self.least} to most={self.most} must be in [2, {longest}], "
                f"which is what side={self.side} has room for"
            )

    def make(self, generator: torch.Generator, count: int, test: bool) -> Graded:
        """Make mazes, as difficult as their paths are long (see `GridSource`)."""
        most = self.length if self.most is None else self.most

        def attempt(
            rows: int,
        ) -> tuple[tuple[Int16[ndarray, "N S"], Int32[ndarray, " N"]], Bool[ndarray, " N"]]:
            words = torch.randint(2**62, (rows, 1), generator=generator).numpy()
            mazes = np.full((rows, self.side, self.side), WALL, np.int16)
            steps = np.zeros(rows, np.int32)
            _make_all(words.astype(np.uint64), self.least, most, mazes, steps)
            flat = mazes.reshape(rows, -1)
            return (flat, steps), (steps > 0) & (held_out(flat == WALL) == test)

        wanted = f"{self.least} to {most} steps"
        answers, steps = accepted(attempt, count, wanted)
        asked = (answers == FREE) | (answers == PATH)
        batch = PuzzleBatch(
            tokens=torch.from_numpy(np.where(answers == PATH, FREE, answers)).long(),
            labels=torch.from_numpy(np.where(asked, answers, IGNORED)).long(),
            puzzle_ids=torch.zeros(count, dtype=torch.long),
        )
        return Graded(batch, steps.astype(np.float64))


@numba.njit(cache=True, nogil=True)
@no_type_check
def _carve(maze: ndarray, state: ndarray) -> None:
    """Join all cells at even places by a depth-first walk that backtracks where it is stuck."""
    side = (len(maze) + 1) // 2
    stack, depth = np.empty((side * side, 2), np.int64), 0
    stack[0] = draw(state, side), draw(state, side)
    maze[2 * stack[0, 0], 2 * stack[0, 1]] = FREE
    order = np.arange(4)
    while depth >= 0:
        row, column = stack[depth]
        shuffle(state, order)
        depth -= 1
        for turn in order:
            down, right = _MOVES[turn]
            r, c = row + down, column + right
            if 0 <= r < side and 0 <= c < side and maze[2 * r, 2 * c] == WALL:
                maze[2 * r, 2 * c] = maze[row + r, column + c] = FREE
                depth += 2
                stack[depth] = r, c
                break


@numba.njit(cache=True, nogil=True)
@no_type_check
def _distances(maze: ndarray, row: int, column: int) -> ndarray:
    """Return the steps from a cell to each other one, -1 where there is a wall."""
    side = len(maze)
    steps = np.full((side, side), -1, np.int32)
    queue, read, written = np.empty((side * side, 2), np.int64), 0, 1
    queue[0] = row, column
    steps[row, column] = 0
    while read < written:
        r, c = queue[read]
        read += 1
        for down, right in _MOVES:
            y, x = r + down, c + right
            inside = 0 <= y < side and 0 <= x < side
            if inside and maze[y, x] != WALL and steps[y, x] < 0:
                steps[y, x] = steps[r, c] + 1
                queue[written] = y, x
                written += 1
    return steps


@numba.njit(cache=True, nogil=True)
@no_type_check
def _walk_back(maze: ndarray, steps: ndarray, row: int, column: int) -> None:
    """Mark the path from a goal back to the start."""
    maze[row, column] = GOAL
    for left in range(steps[row, column] - 1, -1, -1):
        for down, right in _MOVES:
            y, x = row + down, column + right
            if 0 <= y < len(maze) and 0 <= x < len(maze) and steps[y, x] == left:
                row, column = y, x
                break
        maze[row, column] = PATH if left else START


@numba.njit(cache=True, nogil=True)
@no_type_check
def _make_all(states: ndarray, least: int, most: int, mazes: ndarray, lengths: ndarray) -> None:
    """Make a maze of each state, of length 0 where no goal is as far as asked for."""
    side = (mazes.shape[1] + 1) // 2
    for index in range(len(mazes)):
        state, maze = states[index], mazes[index]
        _carve(maze, state)
        steps = _distances(maze, 2 * draw(state, side), 2 * draw(state, side))
        goal_row, goal_column, seen = 0, 0, 0
        for row in range(0, len(maze), 2):
            for column in range(0, len(maze), 2):
                if least <= steps[row, column] <= most:
                    seen += 1
                    if draw(state, seen) == 0:
                        goal_row, goal_column = row, column
        if seen:
            lengths[index] = steps[goal_row, goal_column]
            _walk_back(maze, steps, goal_row, goal_column)
