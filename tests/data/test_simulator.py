from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from loopwm.data.collect import collect
from loopwm.data.engine import quiet_mujoco
from loopwm.data.fast import FAST_TASKS
from loopwm.data.simulator import can_simulate, play, set_state, simulate, state_from_obs, task_ends
from loopwm.errors import EnvironmentUnsupported


@pytest.mark.parametrize("env_id", FAST_TASKS)
def test_a_restarted_simulator_goes_on_as_recorded(env_id: str) -> None:
    unclipped = env_id in ("Hopper-v5", "Walker2d-v5")
    data = collect(env_id, 60, 2, unclipped=unclipped)
    length = int(np.diff(data.bounds).min().clip(max=8))
    starts = data.bounds[:-1][:4]
    steps = starts[:, None] + np.arange(length)
    future = simulate(data.meta, data.obs[starts], data.action[steps])
    played = play(data.meta, data.obs[starts], data.action[steps])
    np.testing.assert_allclose(played.reward, data.reward[steps], rtol=1e-5, atol=1e-6)
    assert (played.terminated == data.terminated[steps]).all()
    # Not bitwise: where the observation leaves the root out, it restarts at 0, and without the
    # solver's warm start.
    np.testing.assert_allclose(future, data.next_obs[steps], rtol=1e-6, atol=1e-8)


def test_a_simulation_that_diverges_is_not_a_number_from_there_on() -> None:
    data = collect("HalfCheetah-v5", 10)
    obs = data.obs[:2].copy()
    obs[1, 8:] = 1e12
    future = simulate(data.meta, obs, np.stack([data.action[:5]] * 2))
    assert np.isfinite(future[0]).all()
    assert np.isnan(future[1]).all()


@pytest.mark.parametrize("env_id", ["Ant-v5", "HalfCheetah-v5", "Humanoid-v5", "Swimmer-v5"])
def test_a_state_set_from_an_observation_is_observed_again(env_id: str) -> None:
    with quiet_mujoco():
        env = gym.make(env_id, disable_env_checker=True)
    obs, _ = env.reset(seed=0)
    obs = env.step(env.action_space.sample())[0]
    inner: Any = env.unwrapped
    qpos, qvel = inner.data.qpos.copy(), inner.data.qvel.copy()
    env.reset(seed=1)
    set_state(env, obs)
    skipped = inner.observation_structure["skipped_qpos"]
    assert inner.data.qpos[skipped:].tobytes() == qpos[skipped:].tobytes()
    assert (inner.data.qpos[:skipped] == 0).all()
    assert inner.data.qvel.tobytes() == qvel.tobytes()


def test_observations_that_do_not_hold_the_state_are_refused() -> None:
    hopper = collect("Hopper-v5", 20, unclipped=True)
    assert can_simulate(hopper.meta)
    clipped, blind = collect("Hopper-v5", 20), hopper.keep_obs([0, 1])
    cart = collect("CartPole-v1", 20)
    for data in (clipped, blind, cart):
        assert not can_simulate(data.meta)
        with pytest.raises(EnvironmentUnsupported, match="do not determine the state"):
            simulate(data.meta, data.obs[:1], data.action[None, :3])
    with pytest.raises(EnvironmentUnsupported, match="does not begin with positions"):
        state_from_obs(cart.make_env(), cart.obs)


class Backwards(gym.ActionWrapper):
    """Do the opposite of what is asked."""

    def action(self, action: Any) -> Any:
        return -action


def test_a_wrapper_in_a_registered_name_is_no_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = Backwards.wrapper_spec()
    plain = gym.spec("HalfCheetah-v5")
    spec = replace(plain, id="Backwards-v0", additional_wrappers=(wrapper,))
    monkeypatch.setitem(gym.registry, "Backwards-v0", spec)
    data = collect("Backwards-v0", 20)
    assert not can_simulate(data.meta)
    with pytest.raises(EnvironmentUnsupported, match="a wrapper changes the task"):
        simulate(data.meta, data.obs[:1], data.action[None, :3])


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5", "InvertedPendulum-v5"])
def test_the_rule_of_the_task_ends_what_the_task_ended(env_id: str) -> None:
    data = collect(env_id, 300, 0, unclipped=env_id == "Hopper-v5")
    ends = task_ends(data.meta)
    assert (ends(data.next_obs) == data.terminated).all()
    assert ends(data.next_obs[:4].reshape(2, 2, -1)).shape == (2, 2)
    assert data.terminated.any() or env_id == "HalfCheetah-v5"
