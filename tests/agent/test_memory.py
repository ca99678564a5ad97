"""A planner that remembers plans from the state that its model is led to, row by row."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

import loopwm as lw
from loopwm.agent.evaluate import play
from loopwm.agent.memory import Remembering
from loopwm.errors import ConfigError, DataError
from tests.agent.known import prediction

DT = 0.3


class Push(gym.Env):
    """A mass is pushed towards 0, and only its place is seen; thirty steps."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(0.5, 1.5), 0
        self.speed = 0.0
        return np.array([self.place], np.float32), {}

    def step(self, action: Any):
        self.place += DT * self.speed
        self.speed += DT * float(action[0])
        self.steps += 1
        obs = np.array([self.place], np.float32)
        return obs, -abs(self.place), False, self.steps >= 30, {}


class Speedometer:
    """The equations of `Push`: the speed is 0 at first, and then known from what was seen."""

    def start(self, obs: Any) -> Any:
        place = torch.as_tensor(obs).float()
        return place, torch.zeros_like(place)

    def observe(self, state: Any, action: Any, obs: Any) -> Any:
        place = torch.as_tensor(obs).float()
        return place, (place - state[0]) / DT + DT * torch.as_tensor(action).float()

    def step(self, state: Any, action: Any) -> Any:
        place, speed = state
        new = (place + DT * speed, speed + DT * torch.as_tensor(action).float())
        return new, prediction(new[0], -new[0].abs().sum(1), torch.zeros(len(place)))


def planner(seed: int = 0) -> Any:
    space = Box(-1.0, 1.0, (1,), np.float32)
    return lw.ICEM(Speedometer(), action_space=space, horizon=10, candidates=64, seed=seed)


def test_what_is_hidden_is_acted_on():
    knowing, blind = (
        np.mean([each.reward.sum() for each in play(agent, Push, 4, 0)])
        for agent in (Remembering(planner()), planner())
    )
    # Who never knows that it moves keeps pushing until it is past the goal.
    assert knowing > -8
    assert blind < 2 * knowing


def test_the_model_is_led_through_all_rows_as_by_hand():
    remembering, plain, model = Remembering(planner()), planner(), Speedometer()
    seen = torch.randn(5, 3, 1)
    state: Any = None
    action = torch.zeros(3, 1)
    for obs in seen:
        state = model.start(obs) if state is None else model.observe(state, action, obs)
        action = plain.plan(obs, state=state)
        torch.testing.assert_close(remembering.plan(obs), action, rtol=0, atol=0)


def test_rows_forget_and_leave_without_a_word_to_the_others():
    seen = np.random.default_rng(0).normal(size=(6, 3, 1)).astype(np.float32)
    together, single = Remembering(planner()), Remembering(planner())
    for step in range(3):
        three, one = together.plan(seen[step]), single.plan(seen[step, 1])
        np.testing.assert_allclose(three[1], one, atol=1e-6)
    together.reset(np.array([True, False, True]))
    after, one = together.plan(seen[3]), single.plan(seen[3, 1])
    np.testing.assert_allclose(after[1], one, atol=1e-6)
    led = together._state
    assert led is not None
    assert led[1][0] == 0  # no speed is known in the first step of an episode
    assert led[1][1] != 0
    together.narrow(np.array([False, True, False]))
    for step in (4, 5):
        np.testing.assert_allclose(
            together.plan(seen[step, 1:2])[0], single.plan(seen[step, 1]), atol=1e-6
        )


def test_what_was_done_counts_and_not_what_was_planned():
    told, untold = Remembering(planner()), Remembering(planner())
    for each in (told, untold):
        each.plan(np.array([1.0], np.float32))
    told.took(np.array([-0.25]))
    for each in (told, untold):
        each.plan(np.array([1.0], np.float32))
    assert told._state is not None
    assert untold._state is not None
    assert float(told._state[1]) == pytest.approx(-0.25 * DT)
    assert float(untold._state[1]) != pytest.approx(-0.25 * DT)


def test_what_a_new_model_missed_is_recalled():
    seen = np.random.default_rng(1).normal(size=(5, 1)).astype(np.float32)
    followed = Remembering(planner())
    actions = [followed.plan(obs) for obs in seen[:4]]
    recalling = Remembering(planner())
    recalling.recall(seen[:4], np.array(actions))
    followed.plan(seen[4])
    recalling.plan(seen[4])
    assert followed._state is not None
    assert recalling._state is not None
    for one, two in zip(followed._state, recalling._state, strict=True):
        torch.testing.assert_close(one, two)


def test_a_new_model_another_batch_and_a_reset_begin_anew():
    changes: list[Any] = [
        lambda agent: setattr(agent, "model", Speedometer()),
        lambda agent: agent.reset(),
        lambda agent: None,
    ]
    for change, rows in zip(changes, (2, 2, 3), strict=True):
        agent = Remembering(planner())
        agent.plan(np.ones((2, 1), np.float32))
        agent.plan(np.zeros((2, 1), np.float32))
        change(agent)
        agent.plan(np.zeros((rows, 1), np.float32))
        assert agent._state is not None
        assert not agent._state[1].any()


def test_mistakes_are_named():
    space = Box(-1.0, 1.0, (1,), np.float32)
    with pytest.raises(ConfigError, match="has no state"):
        Remembering(lw.CEM(lambda candidates: candidates.sum((-2, -1)), action_space=space))
    agent = Remembering(planner())
    with pytest.raises(DataError, match="last plan"):
        agent.took(np.zeros(1))
    agent.plan(np.zeros((2, 1), np.float32))
    with pytest.raises(DataError, match="last plan"):
        agent.took(np.zeros(3))
    with pytest.raises(DataError, match="single number"):
        agent.plan(np.float32(1.0))
