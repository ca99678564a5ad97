"""A value learned from real steps agrees with closed forms, and tells a planner where to go."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

from loopwm.agent.config import MPC, Planning, TerminalValue
from loopwm.agent.mpc import make_planner
from loopwm.agent.value import ValueFunction, fit_value, lambda_returns, restore_value
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from tests.agent.known import Corridor

QUICK = TerminalValue(updates=300, width=(16,), lr=1e-2, batch_size=32, recency=0.0, members=1)


def walk(places: Any, rewards: Any, *, terminated: bool = False, episodes: int = 1, **meta: Any):
    """Return a dataset that goes through the places one after another, again and again."""
    places = np.asarray(places, np.float32)[:, None]
    rows, ends = len(places) - 1, np.zeros(len(places) - 1, bool)
    ends[-1] = terminated
    return RolloutDataset.from_arrays(
        obs=np.tile(places[:-1], (episodes, 1)),
        next_obs=np.tile(places[1:], (episodes, 1)),
        action=np.zeros(rows * episodes, np.int64),
        reward=np.tile(np.asarray(rewards, np.float64), episodes),
        terminated=np.tile(ends, episodes),
        episode=np.repeat(np.arange(episodes), rows),
        meta=DatasetMeta(num_actions=3, **meta),
    )


def of(value: ValueFunction, *places: float) -> np.ndarray:
    return value(torch.tensor(places, dtype=torch.float32)[:, None]).numpy()


@pytest.mark.parametrize("trace", [0.0, 0.5, 0.95, 1.0])
def test_returns_are_those_of_a_sum_over_all_numbers_of_steps(trace: float):
    rng = np.random.default_rng(0)
    one = walk(rng.normal(size=6), rng.normal(size=5), terminated=True)
    data = one.extend(walk(rng.normal(size=5), rng.normal(size=4)))
    after, discount = rng.normal(size=9), 0.9
    expected = []
    for first in range(9):
        end = 5 if first < 5 else 9
        # The return over n steps, for every n that the episode has, with its weight.
        total, weight = 0.0, 1.0
        for last in range(first, end):
            steps = data.reward[first : last + 1] * discount ** np.arange(last + 1 - first)
            rest = 0.0 if data.terminated[last] else discount ** (last + 1 - first) * after[last]
            share = weight if last == end - 1 else weight * (1 - trace)
            total, weight = total + share * (steps.sum() + rest), weight * trace
        expected.append(total)
    found = lambda_returns(data, after, discount, trace)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("trace", [0.0, 0.9])
def test_a_countdown_that_terminates_has_the_value_of_a_finite_sum(trace: float):
    data = walk(range(6), np.ones(5), terminated=True, episodes=10)
    value = fit_value(replace(QUICK, trace=trace), data, 0.8, 0)
    exact = [(1 - 0.8 ** (5 - place)) / (1 - 0.8) for place in range(5)]
    # 300 updates leave the perceptron a few hundredths off.
    np.testing.assert_allclose(of(value, *range(5)), exact, atol=0.1)


@pytest.mark.parametrize("trace", [0.0, 0.9])
def test_a_cut_episode_is_worth_as_much_as_one_that_goes_on(trace: float):
    # To and fro for ever, paid at every other step; cut after four steps.
    data = walk([0, 1, 0, 1, 0], [1, 0, 1, 0], episodes=10)
    value = fit_value(replace(QUICK, trace=trace), data, 0.8, 0)
    exact = [1 / (1 - 0.8**2), 0.8 / (1 - 0.8**2)]
    np.testing.assert_allclose(of(value, 0, 1), exact, atol=0.1)
    ended = walk([0, 1, 0, 1, 0], [1, 0, 1, 0], terminated=True, episodes=10)
    short = fit_value(replace(QUICK, trace=trace), ended, 0.8, 0)
    # Rows 0 and 2, and rows 1 and 3, look alike: what is told is between their values.
    assert (of(short, 0, 1) < [1.8, 0.8]).all()


def test_the_least_word_of_the_members_counts():
    data = walk(range(6), np.ones(5), terminated=True, episodes=2)
    value = fit_value(replace(QUICK, updates=30, members=3), data, 0.9, 0)
    places = torch.linspace(-20, 20, 41)[:, None]
    said = value.each(places)
    assert said.shape == (3, 41)
    assert len(set(said.argmin(0).tolist())) > 1
    for row, least in enumerate(value(places).tolist()):
        assert least == min(said[:, row].tolist())


def test_recency_believes_what_was_done_lately():
    # From the same place, half a life that gained nothing, then half a life that gained 1.
    data = walk([0, 1], [0.0], terminated=True, episodes=20)
    data = data.extend(walk([0, 1], [1.0], terminated=True, episodes=20))
    mean, lately = (
        of(fit_value(replace(QUICK, recency=each), data, 0.9, 0), 0)[0] for each in (0.0, 2.0)
    )
    # Of a density that grows with the square of the place, 7 in 8 lie in the later half.
    assert mean == pytest.approx(1 / 2, abs=0.15)
    assert lately == pytest.approx(7 / 8, abs=0.1)


def test_what_it_says_of_unseen_places_is_within_what_rewards_can_add_up_to():
    data = walk(range(6), [0, 0, 0, 0, 1], terminated=True, episodes=5)
    value = fit_value(QUICK, data, 0.5, 0)
    far = of(value, *np.linspace(-1e4, 1e4, 101))
    assert far.min() >= 0
    assert far.max() <= 2
    assert np.isfinite(far).all()


def test_constant_rewards_and_places_are_no_division_by_zero():
    data = walk(np.zeros(4), np.zeros(3), episodes=3)
    np.testing.assert_array_equal(of(fit_value(QUICK, data, 0.9, 0), 0.0), [0.0])


def test_a_turn_more_or_less_of_an_angle_is_the_same_place():
    data = walk(np.linspace(0, 2, 12), np.linspace(0, 1, 11), angles=(0,), episodes=3)
    value = fit_value(QUICK, data, 0.9, 0)
    here = of(value, 0.3, 1.2)
    np.testing.assert_allclose(of(value, 0.3 + 4 * np.pi, 1.2 - 2 * np.pi), here, rtol=1e-4)
    assert here[0] != here[1]


def test_the_seed_alone_decides_and_nobody_elses_generator_moves():
    data = walk(range(6), np.ones(5), episodes=2)
    before = torch.get_rng_state()
    one, two, other = (fit_value(QUICK, data, 0.9, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(of(one, *range(6)), of(two, *range(6)))
    assert (of(one, *range(6)) != of(other, *range(6))).any()


def test_arrays_bring_the_same_value_back():
    data = walk(range(6), np.ones(5), terminated=True, episodes=2)
    value = fit_value(QUICK, data, 0.9, 0)
    # More was lived since, with other statistics.
    later = data.extend(walk([7, 9], [3.0]))
    again = restore_value(QUICK, later, value.arrays())
    np.testing.assert_array_equal(of(again, *range(-9, 9)), of(value, *range(-9, 9)))


def test_a_planner_goes_where_the_value_is_beyond_its_horizon():
    # Seen: whoever is to the right went on to a reward that two steps ahead do not show.
    data = walk([3, 4, 5, 6], [0, 0, 1], terminated=True, episodes=10)
    data = data.extend(walk([3, 2, 1, 0], [0, 0, 0], terminated=True, episodes=10))
    value = fit_value(QUICK, data, 0.9, 0)
    space = Discrete(3)
    planning = Planning(horizon=2, candidates=32, discount=0.9)
    sees, blind = (
        make_planner(planning, Corridor([0.0] * 20), space, 0, each) for each in (value, None)
    )
    places = np.array([[3.0], [4.0]], np.float32)
    assert sees.plan(places).tolist() == [2, 2]
    assert blind.plan(places).tolist() != [2, 2]


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"updates": 0}, r"TerminalValue\.updates"),
        ({"updates": 10, "sweeps": 11}, "at least sweeps"),
        ({"trace": 1.5}, r"TerminalValue\.trace"),
        ({"recency": -1.0}, r"TerminalValue\.recency"),
        ({"members": 0}, r"TerminalValue\.members"),
        ({"width": (0,)}, r"TerminalValue\.width"),
        ({"lr": 0.0}, r"TerminalValue\.lr"),
        ({"batch_size": 0}, r"TerminalValue\.batch_size"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        TerminalValue(**settings)


def test_without_a_discount_there_is_no_value():
    with pytest.raises(ConfigError, match=r"MPC\.value needs Planning\.discount below 1"):
        MPC(planning=Planning(discount=1.0), value=TerminalValue())
