"""Slots keep a puzzle until it halts, and take the next one then."""

import pytest
import torch

from loopwm.errors import ConfigError, DataError
from loopwm.reason.carry import Carry, PuzzleBatch, after_step, halting, refill
from loopwm.reason.config import Halting


def batch(value: int, slots: int = 4) -> PuzzleBatch:
    tokens = torch.full((slots, 3), value)
    return PuzzleBatch(tokens=tokens, labels=tokens + 1, puzzle_ids=torch.full((slots,), value))


def carry(halted: list[bool]) -> Carry:
    latent = torch.ones(4, 5, 2)
    return Carry(
        state=(latent, 2 * latent),
        batch=batch(7),
        steps=torch.tensor([3, 3, 3, 3]),
        halted=torch.tensor(halted),
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_only_slots_that_have_halted_take_a_new_puzzle_and_start_anew():
    start = (torch.zeros(1, 1, 2).expand(4, 5, 2), torch.full((4, 5, 2), -1.0))
    first = tuple(latent[:2] for latent in start)
    new = refill(carry([True, False, False, True]), batch(9, slots=2), first)
    assert new.steps.tolist() == [0, 3, 3, 0]
    assert not new.halted.any()
    assert new.batch.tokens[:, 0].tolist() == [9, 7, 7, 9]
    assert new.batch.labels[:, 0].tolist() == [10, 8, 8, 10]
    assert new.batch.puzzle_ids.tolist() == [9, 7, 7, 9]
    assert new.state[0][:, 0, 0].tolist() == [0, 1, 1, 0]
    assert new.state[1][:, 0, 0].tolist() == [-1, 2, 2, -1]


def test_as_many_puzzles_as_free_slots_must_be_offered():
    with pytest.raises(DataError, match="4 puzzles are offered to 3 free slots"):
        refill(carry([True, True, False, True]), batch(9), carry([True] * 4).state)


def test_where_no_slot_is_free_nothing_changes_hands():
    busy = carry([False] * 4)
    new = refill(busy, batch(9, slots=0), tuple(latent[:0] for latent in busy.state))
    assert torch.equal(new.batch.tokens, busy.batch.tokens)
    assert new.steps.tolist() == [3] * 4


def test_the_most_steps_double_in_equal_stretches_up_to_the_last():
    rule = Halting(max_steps=16, rise=0.4)
    seen = [rule.at((k + 0.5) / 20).max_steps for k in range(20)]
    assert seen == [1, 1, 2, 2, 4, 4, 8, 8] + [16] * 12
    assert Halting(max_steps=6, rise=1.0).at(0.99).max_steps == 4
    assert Halting(max_steps=6, rise=1.0).at(1.0) == Halting(max_steps=6)
    assert Halting(max_steps=1, rise=1.0).at(0.5).max_steps == 1
    assert Halting(max_steps=16).at(0.0).max_steps == 16


def test_latents_are_carried_as_constants():
    weight = torch.ones(4, 5, 2, requires_grad=True)
    new = after_step(
        carry([False] * 4), (2 * weight, 3 * weight), torch.zeros(4), Halting(), generator()
    )
    assert not any(s.requires_grad for s in new.state)
    assert new.steps.tolist() == [4] * 4


def test_a_puzzle_leaves_when_its_answer_is_taken_for_right_or_its_steps_are_over():
    q, steps = torch.tensor([-1.0, 0.0, 1e-6, -9.0]), torch.tensor([1, 1, 1, 5])
    out = halting(q, steps, Halting(max_steps=5, explore=0.0), generator())
    assert out.tolist() == [False, False, True, True]


def test_exploring_puzzles_stay_for_two_steps_to_the_most():
    rule, count = Halting(max_steps=5, explore=1.0), 40_000
    sure, source = torch.ones(count), generator()
    shares = [
        float(halting(sure, torch.full((count,), step), rule, source).float().mean())
        for step in range(1, 6)
    ]
    # Leaves after step k if the drawn number, one of 2, 3, 4, 5, is at most k.
    assert shares == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.01)


def test_the_share_of_exploring_puzzles_is_the_one_asked_for():
    rule, count = Halting(max_steps=16, explore=0.1), 40_000
    out = halting(torch.ones(count), torch.ones(count, dtype=torch.long), rule, generator())
    assert float(out.float().mean()) == pytest.approx(0.9, abs=0.006)


def test_with_one_step_every_puzzle_leaves_after_it():
    out = halting(-torch.ones(3), torch.ones(3, dtype=torch.long), Halting(1, 0.5), generator())
    assert out.all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "Halting.max_steps must be at least 1, got 0"),
        ({"explore": 1.5}, r"Halting.explore must be in \[0, 1\], got 1.5"),
        ({"rise": -0.1}, r"Halting.rise must be in \[0, 1\], got -0.1"),
    ],
)
def test_rules_that_cannot_be_are_refused(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Halting(**settings)


def test_rows_of_a_batch_keep_what_belongs_together():
    whole = PuzzleBatch(
        tokens=torch.arange(12).view(4, 3),
        labels=torch.arange(12).view(4, 3) + 100,
        puzzle_ids=torch.arange(4),
    )
    some = whole.rows(torch.tensor([2, 0]))
    assert some.tokens.tolist() == [[6, 7, 8], [0, 1, 2]]
    assert some.labels.tolist() == [[106, 107, 108], [100, 101, 102]]
    assert some.puzzle_ids.tolist() == [2, 0]
    assert len(whole.rows(slice(0))) == 0
