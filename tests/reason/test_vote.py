"""Voting, against grids and numbers made by hand."""

import json

import numpy as np
import pytest

from loopwm.errors import DataError
from loopwm.reason.evaluate import Share
from loopwm.reason.tasks import Pair, Task
from loopwm.reason.vote import Score, Tally, merge, report, text
from loopwm.stats import bootstrap

A, B, C, D = (np.full((1, 2), colour, np.uint8) for colour in (1, 2, 3, 4))
ONE, TWO = np.array([[5]], np.uint8), np.array([[6]], np.uint8)

# The first task asks twice, for A and for B; the second once, for A.
TASKS = [
    Task("first", (Pair(A, A),), (Pair(ONE, A), Pair(TWO, B))),
    Task("second", (Pair(A, A),), (Pair(ONE, A),)),
]


def tally(*votes) -> Tally:
    """Count (task, question, answer, confidence); the first vote on each question is the plain."""
    counted, asked = Tally(), set()
    for task, question, answer, confidence in votes:
        plain = (task, question.item()) not in asked
        asked.add((task, question.item()))
        counted.add(task, question, answer, confidence, plain=plain)
    return counted


EARLY = tally(
    ("first", ONE, A, 0.5), ("first", ONE, A, 0.5), ("first", ONE, A, 0.5),
    ("first", TWO, B, 0.5), ("first", TWO, C, 0.5), ("first", TWO, D, 0.5),
    ("second", ONE, A, 0.5), ("second", ONE, A, 0.5), ("second", ONE, A, 0.5),
)  # fmt: skip
LATE = tally(
    # Plain: A, right. Votes: B twice, A once; so A is second.
    ("first", ONE, A, 0.9), ("first", ONE, B, 0.1), ("first", ONE, B, 0.1),
    # Plain: C, wrong. One vote each; by confidence D .8, B .6, C .2, so B is second.
    ("first", TWO, C, 0.2), ("first", TWO, D, 0.8), ("first", TWO, B, 0.6),
    # Plain: B, wrong. Votes: B, C, D one each; A never.
    ("second", ONE, B, 0.3), ("second", ONE, C, 0.2), ("second", ONE, D, 0.1),
)  # fmt: skip


def test_the_four_numbers_are_those_counted_by_hand():
    result = report(TASKS, [EARLY, LATE])
    # Single: first task 1 of 2, second none.
    assert (result.single_pass1.strict, result.single_pass1.partial) == (0.0, 0.25)
    # Most votes: B (wrong), D (wrong); B (wrong).
    assert (result.voted_pass1.strict, result.voted_pass1.partial) == (0.0, 0.0)
    # Two guesses: {B, A} and {D, B} are right; {B, C} is wrong.
    assert (result.voted_pass2.strict, result.voted_pass2.partial) == (0.5, 0.5)
    # Both checkpoints: A 4, B 2; for TWO B, C, D two each, by mean confidence D .65, B .55;
    # for the second task A 3.
    assert (result.ensembled_pass2.strict, result.ensembled_pass2.partial) == (1.0, 1.0)
    assert (result.checkpoints, result.votes) == (2, 3)


def test_votes_of_one_checkpoint_do_not_count_for_another():
    alone, after = report(TASKS, [LATE]), report(TASKS, [EARLY, LATE])
    for name in ("single_pass1", "voted_pass1", "voted_pass2"):
        np.testing.assert_array_equal(getattr(alone, name).shares, getattr(after, name).shares)
    np.testing.assert_array_equal(alone.ensembled_pass2.shares, alone.voted_pass2.shares)


def test_merging_leaves_the_tallies_as_they_are():
    before = json.dumps(LATE.to_json())
    merge([LATE, EARLY, LATE])
    assert json.dumps(LATE.to_json()) == before


def test_shares_of_a_checkpoint_merge_to_the_same_in_any_order_and_through_json():
    rng = np.random.default_rng(0)
    votes = [("t", ONE, (A, B, C)[rng.integers(3)], rng.random()) for _ in range(300)]

    def shared(order):
        parts = [Tally(), Tally(), Tally()]
        for i, (task, question, answer, confidence) in enumerate(votes):
            parts[i % 3].add(task, question, answer, confidence, plain=i == 0)
        sent = [Tally.from_json(json.loads(json.dumps(part.to_json()))) for part in parts]
        return merge(sent[i] for i in order)

    whole = Tally()
    for i, (task, question, answer, confidence) in enumerate(votes):
        whole.add(task, question, answer, confidence, plain=i == 0)
    assert shared((0, 1, 2)) == shared((2, 0, 1)) == whole


def test_answers_are_ranked_by_votes_then_by_mean_confidence():
    counted = tally(
        ("t", ONE, A, 0.9), ("t", ONE, B, 0.1), ("t", ONE, B, 0.3), ("t", ONE, C, 0.2),
        ("t", ONE, C, 0.1),
    )  # fmt: skip
    assert counted.ranked("t", ONE) == ["22", "33", "11"]


def test_an_answer_without_cells_is_a_vote_that_is_never_right():
    counted = tally(("second", ONE, np.zeros((1, 0), np.uint8), 0.5))
    assert report(TASKS[1:], [counted]).voted_pass2.partial == 0


def test_grids_of_different_shape_are_different_texts():
    row = np.array([[1, 2]], np.uint8)
    assert text(row) == "12"
    assert text(row.T) == "1/2"


def test_the_report_is_json_with_intervals_around_the_scores():
    document = json.loads(json.dumps(report(TASKS, [LATE]).to_json()))
    low, high = document["voted_pass2"]["partial_interval"]
    assert 0 <= low <= document["voted_pass2"]["partial"] <= high <= 1
    assert document["tasks"] == 2


def test_the_ends_of_none_and_of_all_are_exact():
    for total in range(1, 500):
        (low, _), (_, high) = Share(0, total).interval, Share(total, total).interval
        assert (low, high) == (0, 1)


def test_no_score_is_certain_and_strict_ones_have_wilsons_interval():
    # Of none and of all in 10 (Wilson 1927): from 0 to 0.2775, and from 0.7225 to 1.
    for share, ends in ((0.0, (0.0, 0.2775)), (1.0, (0.7225, 1.0))):
        score = Score(np.full(10, share))
        for strict in (True, False):
            found = score.interval(strict)
            assert (float(found.low), float(found.high)) == pytest.approx(ends, abs=1e-4)
    # Strict are 8 in 10, whatever share of the others is solved.
    some = Score(np.array([1.0] * 8 + [0.5, 0.0]))
    strict, partial = some.interval(), some.interval(strict=False)
    assert (float(strict.low), float(strict.high)) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    by_hand = bootstrap(some.shares)
    assert (partial.low, partial.high) == (by_hand.low, by_hand.high)


def test_what_was_not_asked_is_not_scored_as_wrong():
    with pytest.raises(DataError, match="no votes on task 'second'"):
        report(TASKS, [tally(("first", ONE, A, 0.5), ("first", TWO, A, 0.5))])
    unplain = Tally()
    unplain.add("second", ONE, A, 0.5)
    with pytest.raises(DataError, match="k = 0"):
        report(TASKS[1:], [unplain])
    with pytest.raises(DataError, match="nothing to score"):
        report(TASKS, [])
