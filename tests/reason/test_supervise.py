"""Training a reasoner: one step of every slot is one update, and it resumes bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.config import Halting
from loopwm.reason.model import Reasoner
from loopwm.reason.supervise import DeepSupervision, supervised
from loopwm.train.config import AdamATan2, FitConfig, SignSGD
from loopwm.train.fit import run
from tests.reason.tiny import small

SETTINGS = FitConfig(
    updates=12,
    batch_size=4,
    lr=1e-3,
    clip=None,
    ema=0.9,
    final_lr=1.0,
    optimizer=AdamATan2(rows=SignSGD(1e-2, 0.1)),
    device="cpu",
    checkpoint_every=5,
    validate_every=100,
    log_every=4,
    progress=False,
)


def sampler(generator: torch.Generator, count: int) -> PuzzleBatch:
    """Ask for the tokens in reverse; the last puzzle is never an example."""
    tokens = torch.randint(0, 5, (count, 3), generator=generator)
    ids = torch.randint(0, 5, (count,), generator=generator)
    return PuzzleBatch(tokens=tokens, labels=tokens.flip(1), puzzle_ids=ids)


def module(seed: int = 0, rule: Halting = Halting(max_steps=3, explore=0.5)) -> DeepSupervision:
    return DeepSupervision(Reasoner(small("attention"), seed), 4, rule)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_slot_keeps_its_puzzle_and_goes_on_from_its_latents():
    trained, source = module(rule=Halting(max_steps=3, explore=0.0)), generator()
    offers = [sampler(source, 4) for _ in range(4)]
    seen, steps = [], []
    for offered in offers:
        before = trained.carry
        trained(offered, source)
        seen.append(trained.carry.batch.tokens.clone())
        steps.append(trained.carry.steps.tolist())
        model = trained.reasoner
        fresh = bool(before.halted.all())
        start = model.start(offered.tokens) if fresh else before.state
        batch = trained.carry.batch
        state = model.advance(start, batch.tokens, batch.puzzle_ids)
        for ours, theirs in zip(trained.carry.state, state, strict=True):
            torch.testing.assert_close(ours, theirs.detach())
    # A new model takes nothing for right: three steps on each puzzle, then the next one.
    assert steps == [[1] * 4, [2] * 4, [3] * 4, [1] * 4]
    for k, source_batch in enumerate([0, 0, 0, 3]):
        assert torch.equal(seen[k], offers[source_batch].tokens)


def test_the_metrics_are_what_they_are_called():
    trained = module(rule=Halting(max_steps=1))
    offered = sampler(generator(), 4)
    loss, metrics = trained(offered, generator())
    _, logits, _ = trained.reasoner.step(
        trained.reasoner.start(offered.tokens), offered.tokens, offered.puzzle_ids
    )
    right = logits.argmax(-1) == offered.labels
    assert float(metrics["tokens_right"]) == pytest.approx(float(right.float().mean()))
    assert float(metrics["exact"]) == pytest.approx(float(right.all(1).float().mean()))
    assert float(metrics["steps"]) == 1
    parts = float(metrics["answer"]) + 0.5 * float(metrics["verdict"])
    assert float(loss.detach()) == pytest.approx(parts)


def test_only_rows_of_puzzles_that_were_seen_are_trained():
    trained = module()
    untouched = trained.reasoner.adapter.puzzle.detach().clone()
    before = trained.reasoner.decode.weight.detach().clone()
    run(trained, supervised, sampler, SETTINGS)
    table = trained.reasoner.adapter.puzzle.detach()
    assert torch.equal(table[5], untouched[5])
    assert bool(table[:5].any(1).all())
    assert not torch.equal(trained.reasoner.decode.weight, before)


def test_an_interrupted_run_ends_bit_for_bit_like_a_whole_one(tmp_path: Path):
    whole = module()
    run(whole, supervised, sampler, SETTINGS, run_dir=tmp_path / "whole")
    again = module()

    class Stop(Exception):
        pass

    def interrupted(net, batch, update, source):
        if update == 8:
            raise Stop
        return supervised(net, batch, update, source)

    with pytest.raises(Stop):
        run(again, interrupted, sampler, SETTINGS, run_dir=tmp_path / "again")
    resumed = module(seed=1)
    history = run(resumed, supervised, sampler, SETTINGS, run_dir=tmp_path / "again")
    assert history.resumed_from == 5
    # The slots, with puzzles and latents, are part of it.
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_training_lowers_the_loss():
    trained = DeepSupervision(Reasoner(small("attention", cycles=1), 0), 16, Halting(2))
    config = replace(SETTINGS, updates=80, batch_size=16, lr=5e-3, ema=0.0, log_every=20)
    records = run(trained, supervised, sampler, config).records
    losses = [float(r["answer"] or 0) for r in records if "answer" in r]
    shares = [float(r["tokens_right"] or 0) for r in records if "tokens_right" in r]
    assert losses[-1] < 0.95 * losses[0]
    assert shares[-1] > shares[0]
