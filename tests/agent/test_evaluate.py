"""Agents of every kind are evaluated alike, and the numbers are those of a plain loop."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box

import loopwm as lw
from loopwm.agent.action import fitted
from loopwm.agent.evaluate import AgentReport, evaluate_agent, evaluation_seed, play
from loopwm.agent.score import Scoring, score
from loopwm.data.actor import shipped_actors
from loopwm.data.excitation import Uniform
from loopwm.errors import ConfigError, DataError, NumericalError
from tests.agent.known import Point
from tests.agent.worlds import Levers, NarrowEnv, PointEnv


class Pays(gym.Env):
    """Pays the action, for as many steps as the seed says."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Box(-10.0, 10.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None):
        super().reset(seed=seed)
        self.left = self.length = int(self.np_random.integers(1, 9))
        return np.zeros(1, np.float32), {}

    def step(self, action: Any):
        self.left -= 1
        obs = np.array([self.length], np.float32)
        return obs, float(action[0]), self.left == 0, False, {}


class Broken(PointEnv):
    def step(self, action: Any):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, np.nan if self.steps == 4 else reward, terminated, truncated, info


def lengths(seed: int, episodes: int) -> list[int]:
    rngs = [np.random.default_rng(evaluation_seed(seed, index)) for index in range(episodes)]
    return [int(rng.integers(1, 9)) for rng in rngs]


def pay(amount: float) -> Any:
    return lambda obs: np.array([amount], np.float32)


def test_returns_are_those_of_each_episode_played_alone():
    report = evaluate_agent(pay(2.0), Pays, episodes=12, seed=3)
    expected = lengths(3, 12)
    assert len(set(expected)) > 3
    assert report.lengths.tolist() == expected
    assert report.returns.tolist() == [2.0 * length for length in expected]


def test_mean_interquartile_mean_and_interval_are_those_computed_by_hand():
    returns = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0])
    report = AgentReport("x", 0, returns, np.ones(8, np.int64))
    assert report.mean == 15.125
    assert report.iqm == np.mean([2, 3, 4, 5])
    rng = np.random.default_rng(7)
    means = rng.choice(returns, (20_000, 8)).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    # 2,000 resamples on our side leave a standard error of the ends of about 1.5.
    assert report.interval == pytest.approx((low, high), abs=5)
    document = report.to_json()
    assert document["returns"] == returns.tolist()
    assert document["interval"] == list(report.interval)


def test_of_one_agent_in_a_list_the_interval_resamples_episodes():
    returns = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    alone, listed = (
        AgentReport("x", 0, each, np.ones(each.shape, int)) for each in (returns, returns[None])
    )
    assert listed.interval == alone.interval
    assert alone.interval[0] < alone.mean < alone.interval[1]


def test_over_several_agents_the_interval_resamples_agents_not_episodes():
    report = evaluate_agent([pay(1.0), pay(3.0)], Pays, episodes=6)
    assert report.returns.shape == report.lengths.shape == (2, 6)
    means = report.returns.mean(axis=1)
    assert means[1] == pytest.approx(3 * means[0])
    # Of two agents, a quarter of the samples draws the first twice, and a quarter the second.
    assert report.interval == pytest.approx(tuple(means))
    assert report.mean == pytest.approx(means.mean())


class Planned:
    def __init__(self) -> None:
        self.resets, self.rows = 0, set()
        self.model = None

    def plan(self, obs: np.ndarray) -> np.ndarray:
        self.rows.add(len(obs))
        return -np.clip(4 * obs, -1, 1)

    def reset(self, mask: Any = None) -> None:
        self.resets += 1


class Uneven(PointEnv):
    """Like PointEnv, for as many steps as the seed says."""

    def reset(self, *, seed: int | None = None, options: Any = None):
        obs, info = super().reset(seed=seed)
        self.length = int(self.np_random.integers(2, 9))
        return obs, info


def searching(kind: Any = lw.ICEM) -> Any:
    options: dict[str, Any] = {"candidates": 16, "elites": 4, "horizon": 3}
    return kind(Point(), action_space=PointEnv.action_space, **options)


@pytest.mark.parametrize("kind", [lw.CEM, lw.ICEM, lw.MPPI])
def test_episodes_that_go_on_are_planned_as_they_would_be_alone(kind: Any):
    played = play(searching(kind), Uneven, 8, 3)
    assert len({len(each) for each in played}) > 3
    for index, episode in enumerate(played):
        env, planner, actions, over = Uneven(), searching(kind), [], False
        obs, _ = env.reset(seed=evaluation_seed(3, index))
        while not over:
            actions.append(planner.plan(obs))
            obs, _, _, over, _ = env.step(actions[-1])
        np.testing.assert_allclose(episode.action, np.stack(actions), atol=1e-5)


def test_nobody_is_asked_about_an_episode_that_is_over():
    planner, asked, rows = searching(), [], []
    search, model = planner.search, Acting()
    planner.search = lambda problem, warm: rows.append(len(warm[0])) or search(problem, warm)
    lengths = evaluate_agent(planner, Uneven, episodes=8, seed=3).lengths
    assert rows == [int((lengths > step).sum()) for step in range(lengths.max())]
    evaluate_agent(lambda obs: asked.append(0) or model.act(obs), Uneven, episodes=8, seed=3)
    assert len(asked) == lengths.sum()


def test_the_same_call_gives_a_planner_the_same_returns_and_leaves_it_as_it_was():
    planner, other = searching(), searching()
    seen = np.full(1, 0.3, np.float32)
    actions = [planner.plan(seen)]
    one, two = (evaluate_agent(planner, PointEnv, episodes=3) for _ in range(2))
    np.testing.assert_array_equal(one.returns, two.returns)
    actions.append(planner.plan(seen))
    np.testing.assert_array_equal(actions, [other.plan(seen), other.plan(seen)])
    # Real episodes do not repeat each other's random numbers.
    planner.reset()
    assert planner.plan(seen) != actions[0]


def test_actions_are_those_that_were_chosen_where_an_environment_changes_them_in_place():
    class Scales(PointEnv):
        def step(self, action: Any):
            action *= 0.5
            return super().step(action)

    (episode,) = play(pay(0.8), Scales, 1, 0)
    assert (episode.action == np.float32(0.8)).all()


class Acting:
    def act(self, obs: np.ndarray) -> np.ndarray:
        assert obs.shape == (1,)
        return -np.clip(4 * obs, -1, 1)


class Predicting:
    def predict(self, observation: np.ndarray, *, deterministic: bool) -> tuple[np.ndarray, None]:
        assert deterministic
        return -np.clip(4 * observation, -1, 1), None


def test_planners_act_predict_and_functions_are_asked_alike():
    planner = Planned()
    reports = [
        evaluate_agent(agent, PointEnv, episodes=4, seed=1)
        for agent in (planner, Acting(), Predicting(), Acting().act)
    ]
    for report in reports[1:]:
        np.testing.assert_array_equal(report.returns, reports[0].returns)
    assert planner.rows == {4}
    assert planner.resets == 1


def test_policies_and_shipped_actors_act_too():
    actor = shipped_actors("Hopper-v5", "test")[-1]
    report = evaluate_agent(actor, "Hopper-v5", episodes=2, unclipped=True)
    assert report.mean > 300
    random = evaluate_agent(Uniform(), "Hopper-v5", episodes=2, seed=4)
    again = evaluate_agent(Uniform(), "Hopper-v5", episodes=2, seed=4)
    np.testing.assert_array_equal(random.returns, again.returns)


def test_the_same_seed_begins_alike_and_another_elsewhere():
    def starts(seed: int) -> list[float]:
        return [float(each.obs[0, 0]) for each in play(Acting(), PointEnv, 3, seed)]

    assert starts(5) == starts(5)
    assert len({*starts(5), *starts(6)}) == 6


def test_discrete_actions_of_planners_and_functions():
    class Second:
        model = None

        def plan(self, obs: np.ndarray) -> np.ndarray:
            return np.ones(len(obs), np.int64)

        def reset(self, mask: Any = None) -> None: ...

    assert evaluate_agent(Second(), Levers, episodes=2).returns.tolist() == [5, 5]
    report = evaluate_agent(lambda obs: 0, Levers, episodes=2)
    assert report.lengths.tolist() == [1, 1]


def test_a_spoilt_step_ends_its_episode_and_counts_for_nothing():
    (episode,) = play(Acting(), Broken, 1, 0)
    assert len(episode) == 3
    assert episode.fault == "reward not finite"
    assert np.isfinite(evaluate_agent(Acting(), Broken, episodes=1).mean)


def test_spoilt_episodes_are_counted_and_none_without_a_step_has_a_return():
    report = evaluate_agent(Acting(), Broken, episodes=2)
    assert report.faults == report.to_json()["faults"] == {"reward not finite": 2}
    assert evaluate_agent(Acting(), PointEnv, episodes=2).faults == {}

    class BrokenAtOnce(PointEnv):
        def step(self, action: Any):
            return super().step(action * np.nan)

    with pytest.raises(NumericalError, match="failed in its first step"):
        evaluate_agent(Acting(), BrokenAtOnce, episodes=2)
    assert score(Acting(), None, BrokenAtOnce, Scoring()) == {}


@pytest.mark.parametrize(
    ("action", "env", "why"),
    [
        (np.full(1, np.nan, np.float32), PointEnv, "must be finite"),
        (np.full(1, 1.5, np.float32), PointEnv, "must lie in the space"),
        (np.zeros(2, np.float32), PointEnv, r"numbers of the shape \(1,\)"),
        ("left", PointEnv, r"numbers of the shape \(1,\)"),
        (3, Levers, "must lie in the space"),
        (0.5, Levers, "must lie in the space"),
    ],
)
def test_an_action_that_the_environment_does_not_take_is_no_score(action: Any, env: Any, why: str):
    with pytest.raises(DataError, match=why):
        evaluate_agent(lambda obs: action, env, episodes=2)


def test_actions_in_32_bits_stay_inside_bounds_in_64():
    report = evaluate_agent(lambda obs: np.full(1, 0.1, np.float32), NarrowEnv, episodes=2)
    assert report.lengths.tolist() == [10, 10]
    lopsided = Box(0.0, np.array([0.1]), dtype=np.float64)
    assert fitted(np.array([-1e-9]), lopsided) == 0
    unbounded = Box(-np.inf, np.inf, (1,), np.float32)
    for number in (0.1, 1e9 / 3):
        assert fitted(np.array([number]), unbounded) == np.float32(number)


def test_one_environment_for_all_episodes_is_refused():
    one = PointEnv()
    for factory in (lambda: one, lambda: gym.Wrapper(one)):
        with pytest.raises(ConfigError, match="same environment"):
            evaluate_agent(Acting(), factory, episodes=2)
    assert evaluate_agent(Acting(), lambda: one, episodes=1).lengths.tolist() == [10]


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="episodes must be at least 1"):
        evaluate_agent(Acting(), PointEnv, episodes=0)
    with pytest.raises(ConfigError, match="empty sequence"):
        evaluate_agent([], PointEnv)
    with pytest.raises(ConfigError, match="policy must"):
        evaluate_agent(3, PointEnv)
    with pytest.raises(ConfigError, match="class Acting"):
        evaluate_agent(Acting, PointEnv)
