"""The ball chain as an environment: Gymnasium's contract, the physics and the labels."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from loopwm.data.collect import collect
from loopwm.errors import ConfigError
from loopwm_envs import BallChainEnv, Chain

NAME = "loopwm/BallChain-v0"


def action(push: float) -> np.ndarray:
    return np.array([push], np.float32)


@pytest.mark.parametrize("arguments", [{}, {"balls": 3, "masses": (1, 2, 4), "length": 2.0}])
def test_gymnasium_accepts_the_environment(arguments: dict[str, Any]) -> None:
    check_env(gym.make(NAME, **arguments).unwrapped)


def test_episodes_end_at_the_time_limit_and_not_before() -> None:
    env = gym.make(f"loopwm_envs:{NAME}")
    env.reset(seed=0)
    ends = [env.step(action(1))[2:4] for _ in range(200)]
    assert ends == [(False, False)] * 199 + [(False, True)]


def test_a_step_pushes_the_first_ball_and_folds_and_sorts_free_flights() -> None:
    env = BallChainEnv(length=4.0, max_impulse=0.25)
    obs, info = env.reset(seed=3)
    assert info == {}
    rng = np.random.default_rng(0)
    for push in rng.uniform(-1, 1, 30).astype(np.float32):
        position, velocity = np.split(obs.copy(), 2)
        velocity[0] += 0.25 * float(push)
        folded = 2 - np.abs((position + velocity + 2) % 8 - 4)
        obs, reward, *_, info = env.step(np.array([push]))
        np.testing.assert_allclose(obs[:6], np.sort(folded), atol=1e-12)
        np.testing.assert_allclose(reward, -abs(obs[5]) / 4)
        flight = Chain(walls=(-2, 2)).advance(position[None], velocity[None])
        assert flight.position[0].tobytes() == obs[:6].tobytes()
        assert flight.velocity[0].tobytes() == obs[6:].tobytes()
        assert info == {
            "difficulty/count": flight.count[0],
            "difficulty/depth": flight.depth[0],
        }


@pytest.mark.parametrize("masses", [None, (1.0, 5.0, 0.1)])
def test_pushed_for_long_it_stays_in_its_space(masses: tuple[float, ...] | None) -> None:
    env = BallChainEnv(3, masses=masses, max_impulse=3.0, max_speed=2.0)
    starts = [env.reset(seed=seed)[0] for seed in range(100)]
    assert all(obs in env.observation_space for obs in starts)
    assert np.abs(starts)[:, 3:].max() == 2.0
    obs, fastest = starts[-1], 0.0
    for _ in range(300):
        obs, *_ = env.step(action(np.sign(obs[3]) or 1))
        assert obs in env.observation_space
        fastest = max(fastest, float(np.abs(obs[3:]).max()))
    # Equal balls exchange velocities; a light one among heavy ones gets faster than any of them.
    assert fastest == 2.0 if masses is None else fastest > 2.0


def test_a_push_is_worth_less_to_a_heavier_ball_and_is_clipped() -> None:
    gain = {}
    for mass in (1.0, 4.0):
        for push in (1.0, 50.0):
            env = BallChainEnv(2, masses=(mass, 1.0), max_impulse=0.5)
            env.position, env.velocity = np.array([-0.5, 0.5]), np.zeros(2)
            gain[mass, push] = env.step(action(push))[0][2]
    assert gain == pytest.approx({(1, 1): 0.5, (1, 50): 0.5, (4, 1): 0.125, (4, 50): 0.125})


def test_a_longer_interval_is_as_many_steps_of_which_the_first_has_the_push() -> None:
    long, short = BallChainEnv(frame_skip=3), BallChainEnv()
    np.testing.assert_array_equal(long.reset(seed=5)[0], short.reset(seed=5)[0])
    for push in np.random.default_rng(1).uniform(-1, 1, 20).astype(np.float32):
        ends = [short.step(action(each)) for each in (push, 0, 0)]
        obs, reward, *_, info = long.step(action(push))
        np.testing.assert_allclose(obs, ends[-1][0], atol=1e-9)
        assert reward == pytest.approx(ends[-1][1])
        assert info["difficulty/count"] == sum(each[4]["difficulty/count"] for each in ends)


def test_without_a_push_the_energy_stays() -> None:
    env = BallChainEnv(masses=(1, 2, 3, 4, 5, 6), max_speed=1e3)
    obs, _ = env.reset(seed=0)
    energy = [obs[6:] ** 2 @ np.arange(1, 7)]
    for _ in range(100):
        obs, *_ = env.step(action(0))
        energy.append(obs[6:] ** 2 @ np.arange(1, 7))
    np.testing.assert_allclose(energy, energy[0], rtol=1e-12)


def test_random_play_shows_transitions_of_many_depths_and_their_labels_become_columns() -> None:
    data = collect(NAME, 600, seed=0)
    assert sorted(data.info) == ["difficulty/count", "difficulty/depth"]
    depth, count = data.info["difficulty/depth"], data.info["difficulty/count"]
    assert set(range(7)) <= set(depth.tolist())
    assert (depth <= count).all()
    quiet = depth == 0
    kept = np.abs(data.next_obs[quiet, 7:] - data.obs[quiet, 7:])
    assert kept.max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0.0}, "length must be positive"),
        ({"max_impulse": -1.0}, "max_impulse must be positive and finite, got -1"),
        ({"max_speed": np.inf}, "max_speed must be positive and finite, got inf"),
        ({"balls": 1}, "balls must be at least 2"),
        ({"frame_skip": 0}, "frame_skip must be at least 1, got 0"),
    ],
)
def test_impossible_environments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BallChainEnv(**arguments)


def test_an_action_that_is_not_finite_is_refused() -> None:
    env = BallChainEnv()
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"action must be finite, got \[nan\]"):
        env.step(action(np.nan))
