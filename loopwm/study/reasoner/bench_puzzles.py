"""How fast puzzles of known difficulty are made."""

import time
from collections.abc import Mapping

import numpy as np

from loopwm.reason.puzzles.shape import SUDOKU_SHAPES
from loopwm.reason.puzzles.sudoku import generate
from loopwm.study.results import Column, Sheet

# Least rating: puzzles in a round. The hard ones are those that reasoners are tested on.
_MADE: Mapping[float, int] = {0.0: 100, 5.0: 50, 20.0: 10}


def bench_puzzles(counts: Mapping[float, int] = _MADE, repeats: int = 3) -> Sheet:
    """Time how many 9x9 sudokus a core makes, by how hard they are to be.

    Args:
        counts: Least ratings, each with the puzzles made in a timed round.
        repeats: Timed rounds, at least 1.

    Returns:
        A table of puzzles per CPU second, with quartiles.
    """
    nine = SUDOKU_SHAPES[9]
    generate(nine, 1, least=1.0)  # compiled only once
    rows: list[dict[str, object]] = []
    for least, count in counts.items():
        rates = []
        for seed in range(repeats):
            started = time.process_time()
            generate(nine, count, seed, least=least)
            rates.append(count / (time.process_time() - started))
        low, middle, high = np.quantile(rates, (0.25, 0.5, 0.75)).tolist()
        rows.append({"least": least, "rate": [middle, low, high]})
    columns = (Column("least", "least rating"), Column("rate", "puzzles per CPU s [quartiles]"))
    title = "9x9 sudokus made, rated by wrong guesses: one CPU thread"
    return Sheet(title, columns, tuple(rows))
