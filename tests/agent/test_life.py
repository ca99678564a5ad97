"""A life counts every real step, keeps each as it was, and can be taken up again."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from loopwm.agent.life import Life
from loopwm.errors import CheckpointError, DataError
from tests.agent.test_evaluate import Broken
from tests.agent.worlds import Levers, PointEnv


def pushes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 1)).astype(np.float32)


def test_rows_are_the_steps_that_were_made():
    life, expected = Life(PointEnv, seed=0), []
    for action in pushes(23):
        before = life.obs
        step = life.step(action)
        assert step is not None
        np.testing.assert_allclose(step.next_obs, before + action / 4, rtol=1e-6)
        expected.append((before, action, -abs(float(step.next_obs[0])), step.next_obs))
    data = life.dataset()
    assert len(data) == life.steps == len(life) == 23
    for name, column in zip(
        ("obs", "action", "reward", "next_obs"), zip(*expected, strict=True), strict=True
    ):
        np.testing.assert_array_equal(getattr(data, name), np.stack(column))
    assert data.episode.tolist() == [0] * 10 + [1] * 10 + [2] * 3
    assert data.truncated.nonzero()[0].tolist() == [9, 19, 22]
    assert life.returns == pytest.approx([data.reward[:10].sum(), data.reward[10:20].sum()])
    assert len(life.dataset(20)) == 3


def test_terminal_steps_end_episodes_and_the_next_begins_at_once():
    life = Life(Levers, seed=0)
    for action in (1, 1, 0, 2, 1):
        life.step(action)
    data = life.dataset()
    assert data.discrete
    assert data.terminated.tolist() == [False, False, True, False, False]
    assert data.episode.tolist() == [0, 0, 0, 1, 1]
    assert life.returns == [2.0]
    assert not life.fresh
    life.step(0)
    assert life.fresh


def test_a_life_taken_up_again_goes_on_as_it_would_have():
    for made in (20, 23, 30):
        first, second = Life("InvertedPendulum-v5", seed=1), Life("InvertedPendulum-v5", seed=1)
        for action in pushes(made):
            first.step(action)
        second.restore(first.dataset(), first.counters())
        assert second.fresh == first.fresh
        np.testing.assert_array_equal(second.obs, first.obs)
        for action in pushes(40, seed=1):
            first.step(action)
            second.step(action)
        assert first.counters() == second.counters()
        for name in ("obs", "action", "reward", "next_obs", "terminated", "episode"):
            one, two = getattr(first.dataset(), name), getattr(second.dataset(), name)
            np.testing.assert_array_equal(one, two)


def test_an_environment_that_does_not_repeat_itself_is_refused():
    rng = np.random.default_rng(0)

    class Moody(PointEnv):
        def step(self, action: Any):
            return super().step(action + rng.normal(size=1))

    life = Life(Moody, seed=0)
    for action in pushes(13):
        life.step(action)
    with pytest.raises(CheckpointError, match="does not repeat itself"):
        Life(Moody, seed=0).restore(life.dataset(), life.counters())


def test_spoilt_steps_are_counted_but_not_kept():
    life = Life(Broken, seed=0)
    kept = [life.step(action) is not None for action in pushes(10)]
    assert kept == [True] * 3 + [False] + [True] * 3 + [False] + [True] * 2
    assert (life.steps, len(life), life.dataset().num_episodes) == (10, 8, 3)
    again = Life(Broken, seed=0)
    again.restore(life.dataset(), life.counters())
    assert again.counters() == life.counters()
    np.testing.assert_array_equal(again.obs, life.obs)


def test_an_environment_that_changes_actions_in_place_changes_no_row():
    class Scales(PointEnv):
        def step(self, action: Any):
            action *= 0.5
            return super().step(action)

    life, again = Life(Scales, seed=0), Life(Scales, seed=0)
    given = pushes(13)
    for action in given.copy():
        life.step(action)
    np.testing.assert_array_equal(life.dataset().action, given)
    again.restore(life.dataset(), life.counters())
    np.testing.assert_array_equal(again.dataset().action, given)
    np.testing.assert_array_equal(again.obs, life.obs)


def test_an_environment_without_a_limit_is_given_one(monkeypatch: pytest.MonkeyPatch):
    class Endless(PointEnv):
        length = 10**9

    monkeypatch.setattr("loopwm.data.environment.DEFAULT_TIME_LIMIT", 4)
    life = Life(Endless, seed=0)
    for action in pushes(9):
        life.step(action)
    assert life.dataset().episode.tolist() == [0] * 4 + [1] * 4 + [2]


def test_rows_that_are_not_there_are_named():
    life = Life(PointEnv, seed=0)
    with pytest.raises(DataError, match="0 rows"):
        life.dataset()


def test_lives_of_different_seeds_begin_elsewhere():
    assert Life(PointEnv, seed=0).obs != Life(PointEnv, seed=1).obs
    assert isinstance(Life("CartPole-v1", seed=0).env, gym.Env)
