"""How often a reasoner is right: whole answers, after every step, with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from loopwm.reason.answer import Noise, solve, trace
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.check import check_puzzles
from loopwm.reason.model import Reasoner
from loopwm.reason.stop import Stop


@dataclass(frozen=True, slots=True)
class Share:
    """Hold a share of puzzles with its 95% interval (Wilson's, of a binomial proportion).

    Attributes:
        right: Number of puzzles answered rightly.
        total: Number of puzzles.
    """

    right: int
    total: int

    @property
    def value(self) -> float:
        """Return the share itself, in [0, 1]."""
        return self.right / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the interval."""
        z, n, p = 1.959964, self.total, self.value
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # Where none is right, or all are, the end is exact; the formula misses it by rounding.
        low = middle - half if self.right else 0.0
        return low, middle + half if self.right < n else 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """Hold how one way of asking did.

    Attributes:
        exact: Puzzles whose every labelled token was right.
        taken: Puzzles that the model itself took for right (probability above a half).
        agreed: Puzzles whose verdict, right or not, was the true one.
        steps: Mean number of steps.
    """

    exact: Share
    taken: Share
    agreed: Share
    steps: float


def accuracy(
    model: Reasoner,
    puzzles: PuzzleBatch,
    *,
    steps: int = 16,
    stop: Stop | None = None,
    noise: Noise | None = None,
    batch_size: int = 256,
) -> Score:
    """Ask all puzzles and compare with their labels.

    Args:
        model: Who is asked.
        puzzles: Puzzles with labels, on the device of the model.
        steps: Most steps, at least 1.
        stop: Rule by which puzzles leave earlier.
        noise: Tries with noise.
        batch_size: Most tries at once.

    Raises:
        DataError: If there are no puzzles, or they do not fit (see `check_puzzles`).
    """
    check_puzzles(puzzles, model.config)
    answer = solve(
        model,
        puzzles.tokens,
        puzzles.puzzle_ids,
        steps=steps,
        stop=stop,
        noise=noise,
        batch_size=batch_size,
    )
    right = _right(answer.tokens, puzzles)
    return _score(right, answer.confidence, float(answer.steps.double().mean()))


def followed(
    model: Reasoner, puzzles: PuzzleBatch, *, steps: int = 16, batch_size: int = 256
) -> tuple[Score, Sequence[Share]]:
    """Think once, and return the `accuracy` after all steps and the `shares` after each.

    Args:
        model: Who is asked.
        puzzles: Puzzles with labels, on the device of the model.
        steps: Number of steps, at least 1.
        batch_size: Puzzles at once.

    Raises:
        DataError: If there are no puzzles, or they do not fit (see `check_puzzles`).
    """
    right, confidence = _traced(model, puzzles, steps, batch_size)
    return _score(right[-1], confidence[-1], float(steps)), shares(right)


def exact(
    model: Reasoner, puzzles: PuzzleBatch, *, steps: int = 16, batch_size: int = 256
) -> Bool[Tensor, "T B"]:
    """Return which puzzles are answered rightly after each step.

    Args:
        model: Who is asked.
        puzzles: Puzzles with labels, on the device of the model.
        steps: Number T of steps, at least 1.
        batch_size: Puzzles at once.

    Raises:
        DataError: If there are no puzzles, or they do not fit (see `check_puzzles`).
    """
    return _traced(model, puzzles, steps, batch_size)[0]


def shares(right: Bool[Tensor, "T B"]) -> Sequence[Share]:
    """Return the share of right answers after each step."""
    return [Share(int(each.sum()), each.numel()) for each in right]


def _traced(
    model: Reasoner, puzzles: PuzzleBatch, steps: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return which puzzles are answered rightly, and how surely, after each step."""
    check_puzzles(puzzles, model.config)
    seen = trace(model, puzzles.tokens, puzzles.puzzle_ids, steps=steps, batch_size=batch_size)
    return torch.stack([_right(answers, puzzles) for answers in seen.tokens]), seen.confidence


def _score(right: Tensor, confidence: Tensor, steps: float) -> Score:
    taken, total = confidence > 0.5, len(right)
    return Score(
        exact=Share(int(right.sum()), total),
        taken=Share(int(taken.sum()), total),
        agreed=Share(int((taken == right).sum()), total),
        steps=steps,
    )


def _right(answers: Tensor, puzzles: PuzzleBatch) -> Tensor:
    return ((answers == puzzles.labels) | (puzzles.labels < 0)).all(1)
