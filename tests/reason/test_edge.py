"""Integers of any kind are a puzzle; what is none is refused by name, and training never looks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import loopwm as lw
from loopwm.errors import DataError
from loopwm.reason import model as reasoners
from loopwm.reason.answer import solve, trace
from loopwm.reason.supervise import DeepSupervision
from tests.reason.echo import Reversed
from tests.reason.tiny import small

# uint64 of torch knows few operations; of numpy it is one more type of integers.
TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
IDS = [4, 1, 4]


@pytest.fixture
def model(make) -> lw.Reasoner:
    return make(small("attention"), scale=0.3).eval()


def asked(model: lw.Reasoner, tokens: Any, ids: Any) -> tuple[Any, Any]:
    """Return logits and verdict after two steps."""
    state, _, _ = model.step(model.start(tokens), tokens, ids)
    _, logits, q_halt = model.step(state, tokens, ids)
    return logits, q_halt


@pytest.mark.parametrize("kind", TYPES)
def test_integers_of_every_type_are_the_same_puzzle(model: lw.Reasoner, puzzles, kind: str):
    tokens, _, ids = puzzles
    expected = asked(model, tokens, ids)
    as_type = getattr(torch, kind)
    for ours, theirs in zip(
        asked(model, tokens.to(as_type), ids.to(as_type)), expected, strict=True
    ):
        assert torch.equal(ours, theirs)
    arrays = (tokens.numpy().astype(kind), ids.numpy().astype(kind))
    for ours, theirs in zip(asked(model, *arrays), expected, strict=True):
        assert isinstance(ours, np.ndarray)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs.detach().numpy())


def test_lists_and_arrays_of_any_layout_are_the_same_puzzle(model: lw.Reasoner, puzzles):
    tokens, _, ids = puzzles
    expected, _ = asked(model, tokens, ids)
    locked = tokens.numpy().copy()
    locked.flags.writeable = False
    for given in (
        tokens.tolist(),
        list(tokens),
        tokens.numpy()[::-1].copy()[::-1],
        tokens.numpy().astype(">i8"),
        locked,
    ):
        logits, _ = asked(model, given, IDS)
        assert isinstance(logits, np.ndarray)
        np.testing.assert_array_equal(logits, expected.detach().numpy())
    # Of tokens and ids each may be what it likes; the tokens say what comes out.
    mixed, _ = asked(model, tokens, tuple(IDS))
    assert torch.equal(mixed, expected)
    assert torch.equal(
        model.advance(model.start(tokens.tolist()), tokens.tolist(), IDS)[0],
        model.advance(model.start(tokens), tokens, ids)[0],
    )


def test_no_puzzles_at_all_have_no_answers(model: lw.Reasoner):
    logits, q_halt = asked(model, np.zeros((0, 3), dtype=np.uint8), [])
    assert (logits.shape, q_halt.shape) == ((0, 3, 5), (0,))


def test_a_model_in_bfloat16_answers_numpy_in_float32(model: lw.Reasoner, puzzles):
    tokens, _, ids = puzzles
    half = model.bfloat16()
    logits, _ = asked(half, tokens.numpy(), ids)
    assert logits.dtype == np.float32
    expected, _ = asked(half, tokens, ids)
    assert expected.dtype == torch.bfloat16
    np.testing.assert_array_equal(logits, expected.detach().float().numpy())


@pytest.mark.parametrize("ask", [solve, trace])
def test_answers_to_arrays_are_those_to_tensors(model: lw.Reasoner, puzzles, ask: Any):
    tokens, _, ids = puzzles
    expected = ask(model, tokens, ids, steps=3)
    for given in (tokens.numpy(), tokens.byte(), tokens.tolist()):
        assert torch.equal(ask(model, given, IDS, steps=3).tokens, expected.tokens)


@pytest.mark.parametrize("convert", [torch.as_tensor, np.asarray, lambda given: given])
@pytest.mark.parametrize(
    ("tokens", "ids", "message"),
    [
        ([[0, 1, 5]], None, r"tokens must be in \[0, 5\), got values from 0 to 5"),
        ([[0, -1, 2]], None, r"tokens must be in \[0, 5\), got values from -1 to 2"),
        ([[0.0, 1.0, 2.0]], None, r"tokens must be whole numbers, got .*float"),
        ([[True, False, True]], None, r"tokens must be whole numbers, got .*bool"),
        ([0, 1, 2], None, r"tokens must have the shape \[B, S\], got \(3,\)"),
        (3, None, r"tokens must have the shape \[B, S\], got \(\)"),
        ([[[0, 1, 2]]], None, r"tokens must have the shape \[B, S\], got \(1, 1, 3\)"),
        ([[0, 1]], None, "puzzles have 2 tokens, the reasoner is for 3"),
        ([[0, 1, 2]] * 2, [6, 0], r"puzzle_ids must be in \[0, 6\), got values from 0 to 6"),
        ([[0, 1, 2]] * 2, [-1, 0], r"puzzle_ids must be in \[0, 6\), got values from -1"),
        ([[0, 1, 2]] * 2, [1], r"puzzle_ids have the shape \(1,\) for 2 puzzles: give one id"),
        ([[0, 1, 2]] * 2, 1, r"puzzle_ids have the shape \(\) for 2 puzzles"),
        ([[0, 1, 2]] * 2, [0.5, 1.0], "puzzle_ids must be whole numbers, got .*float"),
    ],
)
def test_what_is_no_puzzle_is_refused_by_name(
    model: lw.Reasoner, convert: Any, tokens: Any, ids: Any, message: str
):
    tokens, ids = convert(tokens), None if ids is None else convert(ids)
    state = model.begin(2)
    with pytest.raises(DataError, match=message):
        model.step(state, tokens, ids)
    with pytest.raises(DataError, match=message):
        model.advance(state, tokens, ids)
    if ids is None:
        with pytest.raises(DataError, match=message):
            model.start(tokens)


@pytest.mark.parametrize("given", [[[0, 1, 2], [0, 1]], None, "012", [["a", "b", "c"]], {}])
def test_what_is_no_array_of_numbers_is_refused_by_name(model: lw.Reasoner, given: Any):
    with pytest.raises(DataError, match="tokens must be"):
        model.start(given)


def test_a_state_of_other_puzzles_is_refused(model: lw.Reasoner, puzzles):
    tokens, _, _ = puzzles
    # One row would spread over all, and nobody would notice.
    for rows in (1, 2):
        with pytest.raises(DataError, match=rf"tokens are of 3 puzzles, the state of {rows}"):
            model.step(model.start(tokens[:rows]), tokens)


def test_numbers_on_another_device_are_not_looked_at(model: lw.Reasoner, puzzles):
    # Of a meta tensor no number can be read: a look at one would raise.
    tokens, _, ids = (each.to("meta") for each in puzzles)
    elsewhere = model.to("meta")
    assert asked(elsewhere, tokens, ids)[0].is_meta


def test_training_steps_look_at_no_puzzles(monkeypatch: pytest.MonkeyPatch):
    looked: list[Tensor] = []
    monkeypatch.setattr(reasoners, "enter", lambda *given: looked.append(given[0]))
    trained = DeepSupervision(lw.Reasoner(small("attention")), slots=4)
    source = torch.Generator().manual_seed(0)
    for _ in range(2):
        trained(Reversed().sample(source, trained.free), source)
    assert not looked
