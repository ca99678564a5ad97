from typing import cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv

from loopwm.data.unclipped import UnclippedState
from loopwm.errors import EnvironmentUnsupported
from loopwm.seed import numpy_rng


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Walker2d-v5"])
@pytest.mark.parametrize("first", [0, 1])
def test_the_observation_is_the_state_of_the_simulator_and_clips_to_gymnasiums(env_id, first):
    kwargs = {"exclude_current_positions_from_observation": bool(first)}
    plain, unclipped = gym.make(env_id, **kwargs), UnclippedState(gym.make(env_id, **kwargs))
    assert unclipped.observation_space.contains(unclipped.reset(seed=0)[0])
    plain.reset(seed=0)
    tasks = [cast(MujocoEnv, env.unwrapped) for env in (plain, unclipped)]
    fast = numpy_rng(0).uniform(-40, 40, tasks[0].data.qvel.shape)
    for task in tasks:
        task.set_state(task.init_qpos, fast)

    action = np.zeros_like(unclipped.action_space.sample())
    clipped, *outcome = plain.step(action)
    obs, *unclipped_outcome = unclipped.step(action)

    qpos, qvel = tasks[1].data.qpos, tasks[1].data.qvel
    np.testing.assert_array_equal(obs, np.concatenate([qpos[first:], qvel]))
    assert np.abs(qvel).max() > 10
    velocities = slice(len(qpos) - first, None)
    np.testing.assert_array_equal(np.clip(obs[velocities], -10, 10), clipped[velocities])
    assert outcome == unclipped_outcome


def test_a_task_that_does_not_clip_is_refused():
    with pytest.raises(EnvironmentUnsupported, match=r"HalfCheetah-v5.*unclipped=False"):
        UnclippedState(gym.make("HalfCheetah-v5"))
