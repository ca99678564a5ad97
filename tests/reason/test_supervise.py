"""One call of the module that trains a reasoner is one step of every slot."""

import pytest
import torch

from loopwm.reason.config import Halting
from loopwm.reason.model import Reasoner
from loopwm.reason.supervise import DeepSupervision
from tests.reason.echo import Reversed
from tests.reason.tiny import small


def module(rule: Halting = Halting(max_steps=3, explore=0.0)) -> DeepSupervision:
    return DeepSupervision(Reasoner(small("attention"), 0), 4, rule)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_slot_keeps_its_puzzle_and_goes_on_from_its_latents():
    trained, source = module(), generator()
    offers, seen, steps = [], [], []
    for _ in range(4):
        before = trained.carry
        offers.append(Reversed().sample(source, trained.free))
        trained(offers[-1], source)
        seen.append(trained.carry.batch.tokens.clone())
        steps.append(trained.carry.steps.tolist())
        model, batch = trained.reasoner, trained.carry.batch
        fresh = bool(before.halted.all())
        start = model.start(batch.tokens) if fresh else before.state
        state = model.advance(start, batch.tokens, batch.puzzle_ids)
        for ours, theirs in zip(trained.carry.state, state, strict=True):
            torch.testing.assert_close(ours, theirs.detach())
    # A new model takes nothing for right: three steps on each puzzle, then the next one.
    assert steps == [[1] * 4, [2] * 4, [3] * 4, [1] * 4]
    assert [len(each) for each in offers] == [4, 0, 0, 4]
    for k, offer in enumerate([0, 0, 0, 3]):
        assert torch.equal(seen[k], offers[offer].tokens)


def test_the_most_steps_follow_the_progress_of_training():
    trained, source = module(Halting(max_steps=4, explore=0.0, rise=0.8)), generator()
    for progress, left in ((0.1, 4), (0.3, 4), (0.5, 0), (0.5, 4), (0.9, 0)):
        trained(Reversed().sample(source, trained.free), source, progress)
        # One step of each puzzle at first; two from 0.4 on, four from 0.8 on.
        assert trained.free == left, progress


def test_the_metrics_are_what_they_are_called():
    trained = module(Halting(max_steps=1))
    offered = Reversed().sample(generator(), 4)
    loss, metrics = trained(offered, generator())
    _, logits, _ = trained.reasoner.step(
        trained.reasoner.start(offered.tokens), offered.tokens, offered.puzzle_ids
    )
    right = logits.argmax(-1) == offered.labels
    assert float(metrics["tokens_right"]) == pytest.approx(float(right.float().mean()))
    assert float(metrics["exact"]) == pytest.approx(float(right.all(1).float().mean()))
    assert float(metrics["new"]) == 4
    parts = float(metrics["answer"]) + 0.5 * float(metrics["verdict"])
    assert float(loss.detach()) == pytest.approx(parts)


def test_steps_are_those_of_the_puzzles_that_left_and_are_not_logged_where_none_did():
    trained, source = module(), generator()
    seen = []
    for _ in range(5):
        _, metrics = trained(Reversed().sample(source, trained.free), source)
        seen.append(metrics.get("steps"))
    # A new model takes nothing for right: the first four puzzles leave after three steps.
    assert seen == [None, None, None, 3, None]
