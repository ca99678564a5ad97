"""Sudokus of known difficulty: sets that are made once, without copies, and split by solution."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8, UInt64
from numpy import ndarray

from loopwm.errors import ConfigError, DataError, StoreError
from loopwm.files import read_tree, write_tree
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.loss import IGNORED
from loopwm.reason.puzzles.digger import fill_all, make
from loopwm.reason.puzzles.graded import check_seed
from loopwm.reason.puzzles.shape import SudokuShape
from loopwm.reason.puzzles.solver import rate_all
from loopwm.reason.puzzles.symmetry import canonical, kept_for_testing
from loopwm.seed import numpy_rng

ORDERS = 32
"""Random orders of guessing over which a rating is averaged."""

# Fewest clues with which a solution can be the only one (for 9 x 9: arXiv 1201.0749).
_FEWEST = {4: 4, 6: 8, 9: 17}
_FRUITLESS = 30


@dataclass(frozen=True, slots=True, eq=False)
class SudokuSet:
    """Hold sudokus.

    Attributes:
        shape: Their shape.
        clues: The puzzles, 0 where empty.
        solutions: The only solution of each.
        ratings: Mean wrong guesses of each, over random orders of guessing.
    """

    shape: SudokuShape
    clues: Int8[ndarray, "N S"]
    solutions: Int8[ndarray, "N S"]
    ratings: Float[ndarray, " N"]

    def __len__(self) -> int:
        """Return the number of puzzles."""
        return len(self.clues)

    def batch(self) -> PuzzleBatch:
        """Return all puzzles as tokens; see `encoded`."""
        return encoded(self.clues, self.solutions)

    def save(self, path: Path | str) -> None:
        """Write the set into a directory.

        Raises:
            StoreError: If it cannot be written.
        """
        arrays = {"clues": self.clues, "solutions": self.solutions, "ratings": self.ratings}
        boxes = [self.shape.box_rows, self.shape.box_columns]
        write_tree(path, {"sudokus": arrays}, {"shape": boxes})

    @classmethod
    def load(cls, path: Path | str) -> "SudokuSet":
        """Read a set that `save` wrote.

        Raises:
            StoreError: If there is none, or it is damaged.
        """
        tree = read_tree(path)
        if "shape" not in tree.documents:
            raise StoreError(f"{path} holds no set of sudokus; was it saved by something else?")
        return cls(SudokuShape(*tree.documents["shape"]), **tree.tensors("sudokus"))


def generate(
    shape: SudokuShape,
    count: int,
    seed: int = 0,
    *,
    clues: int = 0,
    least: float = 0.0,
    part: Literal["train", "test"] = "train",
    workers: int = 1,
) -> SudokuSet:
    """Make different sudokus, each with one solution.

    No puzzle is another one's symmetric copy, and no solution of the one part is a symmetric copy
    of one of the other, whatever the seeds (of 4 x 4: no solution is one of the other part's). The
    puzzles depend on all arguments but `workers`.

    Args:
        shape: Their shape.
        count: How many.
        seed: Seed, not negative.
        clues: Clues of each puzzle; 0 takes as many away as can go.
        least: Least rating: wrong guesses of a solver that knows naked and hidden singles and
            guesses where fewest digits are possible, averaged over `ORDERS` random orders. Above 0
            the puzzles have as few clues as can be, and are searched for: start with any, and
            change them for harder ones.
        part: Which part of the solutions to take.
        workers: Number of threads, each on a core of its own.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If so many different puzzles are not found.
    """
    check_seed(seed)
    _check(shape, count, clues, least, workers)
    seen: set[bytes] = set()
    found: list[tuple[ndarray, ndarray, float]] = []
    fruitless = 0
    with ThreadPoolExecutor(workers) as pool:
        for states in _states(seed, part, min(max(count, 16), 1024)):
            before = len(found)
            jobs = [
                pool.submit(make_sudokus, each, shape, clues, least, ORDERS, part)
                for each in np.array_split(states, workers)
            ]
            for job in jobs:
                grids, solutions, ratings, good = job.result()
                grids, solutions, ratings = grids[good], solutions[good], ratings[good]
                forms = canonical(solutions, grids, shape)[1]
                for form, *puzzle in zip(forms, grids, solutions, ratings, strict=True):
                    if len(found) < count and form.tobytes() not in seen:
                        seen.add(form.tobytes())
                        found.append((puzzle[0], puzzle[1], float(puzzle[2])))
            if len(found) == count:
                break
            fruitless = 0 if len(found) > before else fruitless + 1
            if fruitless == _FRUITLESS:
                raise DataError(
                    f"only {len(found)} of count={count} different sudokus were found with "
                    f"clues={clues}, least={least}; ask for fewer, or for easier ones"
                )
    columns = zip(*found, strict=True)
    grids, solutions, ratings = (np.stack(column) for column in columns)
    return SudokuSet(shape, grids, solutions, ratings)


def hard_sudokus() -> tuple[SudokuSet, SudokuSet]:
    """Return 1,000 sudokus of 9 x 9 to train on and 500 of the test part, rated 20 and more.

    They are the first ones that `generate(..., least=20)` makes, kept because it takes minutes.
    """
    with as_file(files("loopwm.reason.puzzles") / "hard") as folder:
        return SudokuSet.load(folder / "train"), SudokuSet.load(folder / "test")


def make_sudokus(
    states: UInt64[ndarray, "N 1"],
    shape: SudokuShape,
    clues: int,
    least: float,
    orders: int,
    part: Literal["train", "test"],
) -> tuple[Int8[ndarray, "N S"], Int8[ndarray, "N S"], Float[ndarray, " N"], Bool[ndarray, " N"]]:
    """Make a puzzle of each state of random numbers, where that succeeds.

    Args:
        states: Advanced, so that another attempt makes another puzzle.
        shape: Shape of the puzzles.
        clues: See `generate`.
        least: See `generate`.
        orders: Orders of a rating; 0 does not rate.
        part: See `generate`.

    Returns:
        Puzzles, solutions, ratings, and which of them are as asked for.
    """
    solutions = np.empty((len(states), shape.length), np.int8)
    fill_all(shape.tables, states, solutions)
    good = kept_for_testing(solutions, shape) == (part == "test")
    rows = np.flatnonzero(good)
    grids, ratings = np.zeros((len(rows), shape.length), np.int8), np.zeros(len(rows))
    advanced = states[rows]
    make(solutions[rows], shape.tables, advanced, clues, least, orders, grids, ratings)
    states[rows] = advanced
    good[rows] = ratings >= least
    all_grids, all_ratings = np.zeros_like(solutions), np.zeros(len(states))
    all_grids[rows], all_ratings[rows] = grids, ratings
    return all_grids, solutions, all_ratings, good


def ratings(
    clues: Int8[ndarray, "N S"], shape: SudokuShape, seed: int = 0, orders: int = ORDERS
) -> Float[ndarray, " N"]:
    """Rate puzzles by the mean number of wrong guesses over random orders of guessing.

    Args:
        clues: The puzzles, 0 where empty.
        shape: Their shape.
        seed: Seed of the orders.
        orders: How many.
    """
    words = numpy_rng(seed, "sudoku", "rate").integers(2**63, size=(len(clues), 1))
    out = np.empty(len(clues))
    rate_all(np.ascontiguousarray(clues), shape.tables, words.astype(np.uint64), orders, out)
    return out


def histogram(ratings: Float[ndarray, " N"]) -> dict[str, Any]:
    """Summarise ratings as JSON values: counts between edges, mean and percentiles.

    Args:
        ratings: Wrong guesses of each puzzle, at least one.
    """
    edges = [0, 0.01, 1, 2, 5, 10, 20, 30, 50, 100]
    counts, _ = np.histogram(ratings, [*edges, np.inf])
    return {
        "from": edges,
        "count": counts.tolist(),
        "mean": float(ratings.mean()),
        **{f"p{p}": float(np.percentile(ratings, p)) for p in (10, 50, 90)},
    }


def encoded(clues: Int8[ndarray, "B S"], solutions: Int8[ndarray, "B S"]) -> PuzzleBatch:
    """Return sudokus as tokens: 1 where empty, 1 more than the digit elsewhere.

    Args:
        clues: The puzzles, 0 where empty.
        solutions: What is asked for in the empty cells.
    """
    return PuzzleBatch(
        tokens=torch.from_numpy(clues.astype(np.int64) + 1),
        labels=torch.from_numpy(np.where(clues == 0, solutions.astype(np.int64) + 1, IGNORED)),
        puzzle_ids=torch.zeros(len(clues), dtype=torch.long),
    )


def check_clues(shape: SudokuShape, clues: int) -> None:
    """Refuse a number of clues that no sudoku can have.

    Raises:
        ConfigError: If it is out of range.
    """
    fewest = _FEWEST.get(shape.digits, 1)
    if clues and not fewest <= clues <= shape.length:
        raise ConfigError(
            f"clues must be 0, for as few as can be, or in [{fewest}, {shape.length}], got {clues}"
        )


def _states(seed: int, part: str, count: int) -> Iterator[UInt64[ndarray, "N 1"]]:
    rng = numpy_rng(seed, "sudoku", part)
    while True:
        yield rng.integers(2**63, size=(count, 1)).astype(np.uint64)


def _check(shape: SudokuShape, count: int, clues: int, least: float, workers: int) -> None:
    for name, value in (("count", count), ("workers", workers)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    check_clues(shape, clues)
    if least < 0:
        raise ConfigError(f"least must not be negative, got {least}")
    if clues and least:
        raise ConfigError(f"clues={clues} and least={least} exclude each other; leave one at 0")
