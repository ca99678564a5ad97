"""Stable-Baselines3 learns in imagined environments, unchanged."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

import loopwm as lw
from loopwm.errors import ConfigError
from tests.agent.known import Point

sb3 = pytest.importorskip("stable_baselines3")
from loopwm.agent.sb3 import ImaginedVecEnv  # noqa: E402 - only where the package is

STARTS = np.random.default_rng(0).uniform(-1, 1, (50, 1)).astype(np.float32)


def imagined(num_envs: int = 8, horizon: int = 10, **options: Any) -> ImaginedVecEnv:
    envs = lw.ImaginationVectorEnv(
        Point(**options),
        STARTS,
        num_envs,
        horizon,
        action_space=Box(-1.0, 1.0, (1,), np.float32),
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    return ImaginedVecEnv(envs)


def test_ends_are_told_as_stable_baselines_expects():
    for ending, cut in ((0.0, True), (1.0, False)):
        venv = imagined(3, horizon=1, ending=ending)
        first = venv.reset()
        obs, _, done, infos = venv.step(np.ones((3, 1), np.float32))
        assert done.all()
        for row, info in enumerate(infos):
            np.testing.assert_allclose(info["terminal_observation"], first[row] + 0.25, rtol=1e-5)
            assert info["TimeLimit.truncated"] == cut
            assert info["iterations"] == 1
        assert all(any((row == start).all() for start in STARTS) for row in obs)


def test_a_prediction_that_is_not_finite_is_told_as_a_truncation():
    venv = imagined(2, next_obs=lambda obs: np.where(np.arange(2)[:, None] == 1, np.nan, obs))
    first = venv.reset()
    _, reward, done, infos = venv.step(np.ones((2, 1), np.float32))
    assert done.tolist() == [info["broken"] for info in infos] == [False, True]
    assert reward[1] == 0
    assert infos[1]["TimeLimit.truncated"]
    np.testing.assert_array_equal(infos[1]["terminal_observation"], first[1])


def test_seeds_repeat():
    venv, runs = imagined(), []
    for _ in range(2):
        venv.seed(7)
        runs.append(venv.reset())
    np.testing.assert_array_equal(*runs)


def test_another_way_of_beginning_anew_is_refused():
    envs = lw.ImaginationVectorEnv(Point(), STARTS, action_space=Box(-1.0, 1.0, (1,), np.float32))
    with pytest.raises(ConfigError, match="SAME_STEP"):
        ImaginedVecEnv(envs)


@pytest.mark.slow
def test_ppo_and_sac_learn_to_go_to_zero():
    def score(model: Any) -> float:
        venv, total = imagined(50), 0.0
        venv.seed(1)
        obs = venv.reset()
        for _ in range(10):
            action, _ = model.predict(obs, deterministic=True)
            obs, reward, _, _ = venv.step(action)
            total += float(reward.mean())
        return total

    # Doing nothing scores -5 on average, the best policy about -0.5.
    how: Any = {"policy_kwargs": {"net_arch": [32]}, "seed": 0, "device": "cpu"}
    ppo = sb3.PPO("MlpPolicy", imagined(), n_steps=32, learning_rate=3e-3, n_epochs=5, **how)
    sac = sb3.SAC("MlpPolicy", imagined(), learning_rate=5e-3, learning_starts=200, **how)
    for model, steps in ((ppo, 10_000), (sac, 4_000)):
        model.learn(steps)
        assert score(model) > -1.5
