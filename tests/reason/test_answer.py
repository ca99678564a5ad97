"""Asking a reasoner: steps, stop rules, noise; each row as if it were alone."""

import zlib
from typing import Any

import pytest
import torch
from torch import Tensor

from loopwm.errors import ConfigError, DataError
from loopwm.reason.answer import Noise, solve, trace
from loopwm.reason.model import Reasoner
from loopwm.reason.stop import Settled, Stop, Sure, Thought, Unchanged
from loopwm.seed import torch_rng
from tests.reason.tiny import small


@pytest.fixture
def model(make) -> Reasoner:
    """Give a reasoner whose verdicts differ between puzzles and steps."""
    return make(small("attention"), scale=0.3).eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 5, (12, 3), generator=torch.Generator().manual_seed(0))


def by_steps(model: Reasoner, tokens: Tensor, steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return answers and verdicts of a loop written out."""
    state, answers, verdicts = model.start(tokens), [], []
    with torch.no_grad():
        for _ in range(steps):
            state, logits, q_halt = model.step(state, tokens)
            answers.append(logits.argmax(-1))
            verdicts.append(q_halt)
    return answers, verdicts


def test_a_trace_is_the_loop_written_out(model: Reasoner, tokens: Tensor):
    answers, verdicts = by_steps(model, tokens, 5)
    seen = trace(model, tokens, steps=5, batch_size=5)
    assert torch.equal(seen.tokens, torch.stack(answers))
    torch.testing.assert_close(seen.confidence, torch.stack(verdicts).sigmoid())
    assert bool((seen.change[0] > 0).all())


def test_without_a_rule_every_step_is_run(model: Reasoner, tokens: Tensor):
    out = solve(model, tokens, steps=7, batch_size=5)
    answers, verdicts = by_steps(model, tokens, 7)
    assert torch.equal(out.tokens, answers[-1])
    torch.testing.assert_close(out.confidence, verdicts[-1].sigmoid())
    assert out.steps.tolist() == [7] * 12
    assert not out.stopped.any()


@pytest.mark.parametrize(
    "stop", [Sure(0.5), Sure(0.6, patience=2), Unchanged(2), Settled(0.3), Settled(0.5, 2)]
)
def test_a_row_that_stops_answers_as_if_it_were_alone(model: Reasoner, tokens: Tensor, stop: Stop):
    together = solve(model, tokens, steps=8, stop=stop)
    for row in range(len(tokens)):
        steps, stopped = alone(model, tokens[row : row + 1], stop, 8)
        assert int(together.steps[row]) == steps
        assert bool(together.stopped[row]) == stopped
        answers, _ = by_steps(model, tokens[row : row + 1], steps)
        assert torch.equal(together.tokens[row], answers[-1][0])
    # Otherwise the rule is not put to the test.
    assert len(together.steps.unique()) > 1


def alone(model: Reasoner, tokens: Tensor, stop: Stop, most: int) -> tuple[int, bool]:
    state, before, calm = model.start(tokens), None, 0
    with torch.no_grad():
        for t in range(1, most + 1):
            now = Thought(*model.step(state, tokens))
            calm = calm + 1 if bool(stop.met(now, before)) else 0
            if calm >= stop.patience:
                return t, True
            state, before = now.state, now
    return most, False


def thought(answer: list[int], q_halt: float, latent: float) -> Thought:
    logits = torch.nn.functional.one_hot(torch.tensor([answer]), 4).float()
    return Thought((torch.full((1, 2, 2), latent),), logits, torch.tensor([q_halt]))


def test_the_rules_say_what_they_are_called():
    first, second = thought([1, 2], 0.1, 1.0), thought([1, 2], -0.1, 1.1)
    assert bool(Sure().met(first, None))
    assert not bool(Sure().met(second, first))
    assert not bool(Sure(0.6).met(first, None))
    assert not bool(Unchanged().met(first, None))
    assert bool(Unchanged().met(second, first))
    assert not bool(Unchanged().met(thought([1, 3], 0.1, 1.0), first))
    assert not bool(Settled(0.09).met(second, first))
    assert bool(Settled(0.1).met(second, first))


def test_of_noisy_tries_the_surest_is_the_answer(model: Reasoner, tokens: Tensor):
    plain = solve(model, tokens, steps=4)
    noise = Noise(samples=6, scale=0.5)
    best = solve(model, tokens, steps=4, noise=noise)
    # The first try has no noise, so that no puzzle ends less sure than without.
    assert bool((best.confidence >= plain.confidence - 1e-6).all())
    assert bool((best.confidence > plain.confidence + 1e-3).any())
    again = solve(model, tokens, steps=4, noise=noise)
    assert torch.equal(best.tokens, again.tokens)
    other = solve(model, tokens, steps=4, noise=Noise(6, 0.5, seed=1))
    assert not torch.equal(best.confidence, other.confidence)


def test_the_surest_try_is_the_one_of_all_tries_written_out(model: Reasoner, tokens: Tensor):
    noise, steps = Noise(samples=3, scale=0.4), 2
    chosen = set()
    out = solve(model, tokens, steps=steps, noise=noise)
    for index, puzzle in enumerate(tokens):
        word = zlib.crc32(puzzle.numpy().tobytes())
        source = torch_rng(noise.seed, "reason", "noise", word, 0)
        rows = puzzle.repeat(3, 1)
        state = model.start(rows)
        keep = torch.tensor([0.0, 1.0, 1.0])[:, None, None]
        logits = q_halt = torch.empty(0)
        with torch.no_grad():
            for _ in range(steps):
                drawn = [torch.randn(s.shape, generator=source) for s in state]
                state = tuple(s + 0.4 * keep * n for s, n in zip(state, drawn, strict=True))
                state, logits, q_halt = model.step(state, rows)
        best = int(q_halt.argmax())
        chosen.add(best)
        assert torch.equal(out.tokens[index], logits[best].argmax(-1))
        torch.testing.assert_close(out.confidence[index], q_halt[best].sigmoid())
    assert len(chosen) > 1


def test_noise_of_no_scale_changes_nothing(model: Reasoner, tokens: Tensor):
    plain, still = (
        solve(model, tokens, steps=3, noise=each) for each in (None, Noise(3, scale=0.0))
    )
    assert torch.equal(plain.tokens, still.tokens)


@pytest.mark.parametrize("stop", [None, Unchanged()])
def test_noise_belongs_to_the_puzzle_and_not_to_its_neighbours(
    model: Reasoner, tokens: Tensor, stop: Stop | None
):
    asked = tokens.repeat(3, 1) if len(tokens) < 8 else tokens
    noise = Noise(4, 2.0)
    together = solve(model, asked, steps=4, noise=noise, stop=stop)
    in_parts = solve(model, asked, steps=4, noise=noise, stop=stop, batch_size=5)
    alone = solve(model, asked[-2:], steps=4, noise=noise, stop=stop)
    assert torch.equal(together.tokens, in_parts.tokens)
    assert torch.equal(together.tokens[-2:], alone.tokens)
    torch.testing.assert_close(together.confidence[-2:], alone.confidence)
    other = solve(model, asked, steps=4, noise=Noise(4, 2.0, seed=1), stop=stop)
    assert not torch.equal(together.confidence, other.confidence)


def test_no_puzzles_have_no_answers(model: Reasoner, tokens: Tensor):
    out = solve(model, tokens[:0])
    assert out.tokens.shape == (0, 3)
    assert len(out.confidence) == len(out.steps) == 0


@pytest.mark.usefixtures("without_shape_checks")
def test_what_cannot_be_asked_is_refused(model: Reasoner, tokens: Tensor):
    with pytest.raises(ConfigError, match="steps must be at least 1, got 0"):
        solve(model, tokens, steps=0)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        trace(model, tokens, batch_size=0)
    with pytest.raises(DataError, match="puzzles have 2 tokens, the reasoner is for 3"):
        solve(model, tokens[:, :2])
    for make, message in (
        (lambda: Noise(samples=0), "Noise.samples must be at least 1"),
        (lambda: Noise(scale=-1.0), "Noise.scale must be finite and not negative"),
        (lambda: Noise(scale=float("nan")), "must be a finite number"),
        (lambda: Noise(samples=2.5), "Noise.samples must be a whole number"),  # pyright: ignore[reportArgumentType]
        (lambda: Sure(patience=1.5), "Sure.patience must be a whole number"),  # pyright: ignore[reportArgumentType]
        (lambda: Settled(tol=float("inf")), "must be a finite number"),
        (lambda: Noise(seed=-1), "Noise.seed must not be negative, got -1"),
        (lambda: Sure(1.0), r"Sure.probability must be in \(0, 1\)"),
        (lambda: Sure(patience=0), "Sure.patience must be at least 1"),
        (lambda: Unchanged(0), "Unchanged.patience must be at least 1"),
        (lambda: Settled(0.0), "Settled.tol must be above 0"),
        (lambda: Settled(patience=0), "Settled.patience must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("ask", [solve, trace])
@pytest.mark.parametrize(
    ("asked", "ids", "message"),
    [
        (torch.full((2, 3), 5), None, r"tokens must be in \[0, 5\), got values from 5 to 5"),
        (torch.full((2, 3), -1), None, r"tokens must be in \[0, 5\)"),
        (torch.zeros(2, 3), None, r"tokens must be whole numbers, got torch\.float32"),
        (torch.zeros(3).long(), None, r"tokens must have the shape \[B, S\]"),
        (torch.zeros(2, 3).long(), torch.tensor([0, 6]), r"puzzle_ids must be in \[0, 6\)"),
        (torch.zeros(2, 3).long(), torch.tensor([0]), "give one id for each"),
    ],
)
def test_what_no_table_has_a_row_for_is_refused(
    model: Reasoner, ask: Any, asked: Tensor, ids: Tensor | None, message: str
):
    with pytest.raises(DataError, match=message):
        ask(model, asked, ids)
