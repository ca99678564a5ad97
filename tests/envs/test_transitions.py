"""Transitions in bulk: as many as asked for, of the depths asked for, the same every time."""

from typing import Any

import numpy as np
import pytest

from loopwm.errors import ConfigError
from loopwm_envs import Chain, Transitions, sample_balanced, sample_states, sample_transitions
from loopwm_envs.transitions import HOPELESS

COLUMNS = ("position", "velocity", "next_position", "next_velocity", "count", "depth")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same(one: Transitions, other: Transitions) -> bool:
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in COLUMNS)


def test_the_same_seed_gives_the_same_transitions() -> None:
    for sample in (
        lambda seed: sample_transitions(rng(seed), 300),
        lambda seed: sample_transitions(rng(seed), 300, max_depth=2),
        lambda seed: sample_balanced(rng(seed), 20),
    ):
        assert same(sample(3), sample(3))
        assert not same(sample(3), sample(4))


def test_causal_depths_from_nought_to_eight_all_occur() -> None:
    share = np.bincount(sample_transitions(rng(), 60_000).depth, minlength=9)[:9] / 60_000
    assert (share > 0.004).all()


@pytest.mark.parametrize("chain", [Chain(), Chain(3, 0.5, (1, 2, 4), (-1, 2))])
def test_training_keeps_shallow_transitions_and_drops_only_deep_ones(chain: Chain) -> None:
    shallow = sample_transitions(rng(), 20_000, chain, max_depth=2)
    assert len(shallow) == 20_000
    assert shallow.depth.max() == 2
    every = sample_transitions(rng(1), 20_000, chain)
    rest = every.depth[every.depth <= 2]
    share, other = (np.bincount(each) / len(each) for each in (shallow.depth, rest))
    # Three standard errors of the difference of two shares of some thousand rows.
    np.testing.assert_allclose(share, other, atol=0.03)


def test_many_transitions_are_drawn_for_as_long_as_wanted_ones_turn_up() -> None:
    assert len(sample_transitions(rng(), HOPELESS + 1, Chain(2), max_depth=0)) == HOPELESS + 1


def test_testing_has_as_many_transitions_of_each_depth() -> None:
    data = sample_balanced(rng(), 40, depths=(0, 7, 3))
    assert data.depth.tolist() == [0] * 40 + [7] * 40 + [3] * 40
    assert len(sample_balanced(rng(), 0)) == len(sample_transitions(rng(), 0)) == 0


def test_transitions_are_what_the_chain_does() -> None:
    data = sample_balanced(rng(), 30)
    np.testing.assert_allclose(
        data.next_position, np.sort(data.position + data.velocity, axis=1), atol=1e-12
    )
    flight = Chain().advance(data.position, data.velocity)
    assert flight.depth.tolist() == data.depth.tolist()
    assert flight.count.tolist() == data.count.tolist()
    assert (data.state[:, :6] == data.position).all()
    assert (data.next_state[:, 6:] == data.next_velocity).all()


def test_rows_are_chosen_by_index_and_by_mask() -> None:
    data = sample_transitions(rng(), 50)
    assert same(data.rows(np.arange(50)[data.depth > 1]), data.rows(data.depth > 1))
    assert data.rows(np.array([4, 2])).count.tolist() == [data.count[4], data.count[2]]


@pytest.mark.parametrize(
    ("walls", "low", "high"),
    [((-2, 6), -2, 6), ((-np.inf, np.inf), -2, 2), ((1, np.inf), 1, 5), ((-np.inf, 1), -3, 1)],
)
def test_states_fill_the_line_and_have_the_speeds_asked_for(
    walls: tuple[float, float], low: float, high: float
) -> None:
    chain = Chain(4, dt=0.5, walls=walls)
    position, velocity = sample_states(rng(), 20_000, chain, speeds=(3, 3))
    assert (np.diff(position) >= 0).all()
    assert low <= position.min() < low + 0.01 < high - 0.01 < position.max() <= high
    gap = (high - low) / 4
    np.testing.assert_allclose(velocity.std(), 3 * gap / 0.5, rtol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": -1}, "num must not be negative, got -1"),
        ({"num": 5, "speeds": (2.0, 1.0)}, r"speeds must be \(least, greatest\)"),
        ({"num": 5, "speeds": (0.0, 1.0)}, "speeds must be"),
        ({"num": 5, "max_depth": -1}, "causal depth of at most -1; ask for another depth"),
    ],
)
def test_impossible_wishes_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sample_transitions(rng(), chain=Chain(2), **arguments)


def test_a_depth_that_does_not_occur_is_named() -> None:
    with pytest.raises(ConfigError, match=r"causal depth of 5; .* more balls"):
        sample_balanced(rng(), 5, Chain(2), depths=(0, 1, 5))
