"""Polling: answers are undone to where they came from, in one process and in many."""

from functools import partial

import numpy as np
import pytest
import torch

from loopwm.core.config import Attend, PostNorm
from loopwm.errors import ConfigError
from loopwm.reason.arc import Arc, ArcConfig
from loopwm.reason.config import ReasonerConfig
from loopwm.reason.model import Reasoner
from loopwm.reason.poll import Solver, poll, poll_in_processes
from loopwm.reason.tasks import Pair, Task
from loopwm.reason.vote import report

SIDE, AUGMENTATIONS, STEPS = 5, 9, 3


def copying_tasks() -> list[Task]:
    """Make tasks whose rule, unlike most, is the same however it is shown: change nothing."""
    rng = np.random.default_rng(0)
    grids = [rng.integers(0, 10, rng.integers(1, SIDE + 1, 2), np.uint8) for _ in range(8)]
    pairs = [Pair(grid, grid) for grid in grids]
    return [Task("a", tuple(pairs[:2]), tuple(pairs[2:4])), Task("b", (pairs[4],), (pairs[5],))]


ARC = Arc([], copying_tasks(), ArcConfig(SIDE, AUGMENTATIONS))


class Copies:
    """Answer the question itself, after some steps, and something else in some augmentations."""

    def __init__(self, wrong: int) -> None:
        self.wrong = wrong

    def start(self, tokens):
        return (torch.zeros(len(tokens)),)

    def step(self, state, tokens, puzzle_ids):
        (taken,) = state
        taken = taken + 1
        astray = (puzzle_ids % AUGMENTATIONS < self.wrong) | (taken != STEPS)
        answer = torch.where(astray[:, None], 2, tokens)
        logits = torch.nn.functional.one_hot(answer, 12).float()
        return (taken,), logits, torch.zeros(len(tokens))


def scores(solver: Solver) -> tuple[float, float, float]:
    tally = poll(solver, ARC, ARC.questions(AUGMENTATIONS), steps=STEPS, batch_size=4)
    result = report(ARC.evaluation, [tally])
    assert result.votes == AUGMENTATIONS
    return result.single_pass1.strict, result.voted_pass1.strict, result.voted_pass2.strict


@pytest.mark.parametrize(
    ("wrong", "expected"),
    # Wrong answers are grids of one colour; undone, that colour is another in most augmentations.
    [(0, (1, 1, 1)), (1, (0, 1, 1)), (AUGMENTATIONS, (0, 0, 0))],
)
def test_right_answers_agree_once_their_augmentation_is_undone(wrong: int, expected):
    assert scores(Copies(wrong)) == expected


def small_reasoner() -> Reasoner:
    config = ReasonerConfig(
        12, SIDE**2, ARC.num_puzzles, 1, 8, 8, PostNorm(Attend(heads=2), layers=1), 1, 1
    )
    return Reasoner(config, seed=0)


def test_a_reasoner_can_be_polled_and_the_size_of_batches_does_not_matter():
    questions = ARC.questions(2)
    one, many = (
        poll(small_reasoner(), ARC, questions, steps=2, batch_size=size) for size in (1, 64)
    )
    assert {k: v.keys() for k, v in one.votes.items()} == {
        k: v.keys() for k, v in many.votes.items()
    }
    assert one.single == many.single


@pytest.mark.slow
def test_many_processes_count_the_same_votes_as_one():
    questions = ARC.questions(AUGMENTATIONS)
    alone = poll(Copies(2), ARC, questions, steps=STEPS, batch_size=3)
    shared = poll_in_processes(
        partial(Copies, 2), ARC, questions, workers=2, steps=STEPS, batch_size=3
    )
    assert shared == alone


def test_numbers_below_one_are_refused():
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        poll(Copies(0), ARC, ARC.questions(1), steps=0)
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        poll(Copies(0), ARC, ARC.questions(1), batch_size=0)
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        poll_in_processes(partial(Copies, 0), ARC, [], workers=0)
