"""Batches hold real and imagined transitions at the stated ratio."""

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwm.agent.mixture import Mixture, Ring
from loopwm.errors import ConfigError

pytest.importorskip("stable_baselines3")


def rows(count: int, first: int = 0) -> tuple[np.ndarray, ...]:
    """Give transitions that can be told apart by each of their columns."""
    number = np.arange(first, first + count)
    column = number[:, None].astype(np.float32)
    return column, -column, number * 2.0, column + 0.5, number % 2 == 0


@settings(deadline=None, max_examples=50)
@given(
    capacity=st.none() | st.integers(1, 12),
    counts=st.lists(st.integers(0, 17), min_size=1, max_size=6),
)
def test_a_ring_keeps_the_newest_transitions_whole(capacity: int | None, counts: list[int]):
    ring, kept, total = Ring(capacity, 1, 1), deque(maxlen=capacity), 0
    for count in counts:
        ring.add(*rows(count, total))
        kept.extend(range(total, total + count))
        total += count
    state = ring.state()
    assert sorted(state["obs"][:, 0].tolist()) == sorted(kept)
    number = state["obs"]
    np.testing.assert_array_equal(state["action"], -number)
    np.testing.assert_array_equal(state["reward"], 2 * number)
    np.testing.assert_array_equal(state["next_obs"], number + 0.5)
    np.testing.assert_array_equal(state["terminated"], number % 2 == 0)


@settings(deadline=None, max_examples=25)
@given(st.none() | st.integers(3, 9), st.integers(1, 20), st.integers(1, 20))
def test_a_ring_taken_up_again_goes_on_as_it_would_have(
    capacity: int | None, before: int, after: int
):
    ring, again = Ring(capacity, 1, 1), Ring(capacity, 1, 1)
    ring.add(*rows(before))
    again.restore({name: each.copy() for name, each in ring.state().items()}, ring.place)
    for each in (ring, again):
        each.add(*rows(after, before))
    for name, column in ring.state().items():
        np.testing.assert_array_equal(again.state()[name], column)


def test_a_ring_that_keeps_all_outgrows_its_first_size():
    ring = Ring(None, 1, 1)
    for first in range(0, 5_000, 7):
        ring.add(*rows(7, first))
    assert ring.state()["obs"][:, 0].tolist() == list(range(5_005))


def mixture(real_rows: int, imagined: int = 50) -> Mixture:
    real, dreamt = Ring(None, 1, 1), Ring(100, 1, 1)
    real.add(*rows(40))
    dreamt.add(*rows(imagined, 1_000))
    return Mixture(real, dreamt, real_rows, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("real_rows", [1, 13, 64])
def test_every_batch_has_the_stated_number_of_real_transitions(real_rows: int):
    for _ in range(20):
        batch = mixture(real_rows).sample(64)
        assert len(batch.observations) == 64
        assert int((batch.observations < 1_000).sum()) == real_rows
        number = batch.observations
        assert torch.equal(batch.actions, -number)
        assert torch.equal(batch.rewards, 2 * number)
        assert torch.equal(batch.next_observations, number + 0.5)
        assert torch.equal(batch.dones, (number % 2 == 0).float())


def test_all_is_real_as_long_as_nothing_was_imagined():
    batch = mixture(5, imagined=0).sample(64)
    assert int((batch.observations < 1_000).sum()) == 64


def test_each_transition_is_as_likely_as_any_other():
    source = mixture(32)
    drawn = torch.cat([source.sample(64).observations for _ in range(400)]).flatten()
    for low, count in ((0, 40), (1_000, 50)):
        counts = np.bincount((drawn[(drawn >= low) & (drawn < low + 1_000)] - low).int().numpy())
        expected = 400 * 32 / count
        assert len(counts) == count
        # Five standard deviations of a count.
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_ring_without_room_is_refused():
    with pytest.raises(ConfigError, match="capacity must be at least 1"):
        Ring(0, 1, 1)
