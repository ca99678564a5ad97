"""Counterfactual pairs differ in one ball's place, and in collisions that did not happen."""

import numpy as np
import pytest

from loopwm.errors import ConfigError
from loopwm_envs import Chain, sample_balanced, simulate, without_collision

PLAIN = Chain()
WALLED = Chain(4, masses=(1, 2, 1, 3), walls=(0, 4))


@pytest.mark.parametrize(("chain", "vanish"), [(PLAIN, 1), (PLAIN, 3), (WALLED, 1), (WALLED, 2)])
def test_one_ball_is_elsewhere_and_all_else_is_equal(chain: Chain, vanish: int) -> None:
    given = sample_balanced(np.random.default_rng(0), 60, chain, depths=range(6))
    pair = without_collision(given, chain, vanish)
    changed, original = pair.transitions, given.rows(pair.row)
    assert len(pair.row) > 80
    assert (changed.velocity == original.velocity).all()
    moved = changed.position - original.position
    rows = np.arange(len(moved))
    np.testing.assert_allclose(moved[rows, pair.ball], pair.shift, atol=1e-12)
    moved[rows, pair.ball] = 0
    assert not moved.any()
    assert (pair.shift != 0).all()
    assert (np.diff(changed.position) >= 0).all()
    assert (pair.vanished >= vanish).all()
    assert (changed.count == original.count - pair.vanished).all()
    assert (changed.depth <= original.depth).all()
    flight = chain.advance(changed.position, changed.velocity)
    assert (flight.position == changed.next_position).all()
    assert (flight.count == changed.count).all()


def test_most_transitions_with_a_collision_have_such_a_pair_and_those_without_have_none() -> None:
    given = sample_balanced(np.random.default_rng(1), 60)
    pair = without_collision(given, PLAIN)
    assert (given.count[pair.row] > 0).all()
    assert len(pair.row) > 0.9 * (given.count > 0).sum()
    # All else equal: in most pairs no other collision is gone.
    assert (pair.vanished == 1).mean() > 0.9


def test_the_shortest_move_is_taken() -> None:
    # The balls meet within the step unless more than 2 apart, and 2 is how far they can come.
    chain = Chain(2)
    given = simulate(chain, np.array([[0.0, 1.0]]), np.array([[1.0, -1.0]]))
    pair = without_collision(given, chain)
    assert pair.row.tolist() == [0]
    assert 1 < abs(pair.shift[0]) <= 1 + 2 / 16
    assert pair.transitions.count.tolist() == [0]


def test_a_chain_in_which_no_move_helps_is_left_out() -> None:
    chain = Chain(2, walls=(0, 1))
    given = simulate(chain, np.array([[0.4, 0.6]]), np.array([[5.0, -5.0]]))
    assert given.count[0] > 1
    pair = without_collision(given, chain, int(given.count[0]))
    assert len(pair.row) == len(pair.transitions) == 0


def test_at_least_one_collision_must_vanish() -> None:
    given = sample_balanced(np.random.default_rng(0), 1)
    with pytest.raises(ConfigError, match="vanish must be at least 1, got 0"):
        without_collision(given, PLAIN, 0)
