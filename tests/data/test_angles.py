"""Angles without limit are found, and a full turn of one is the same place to the simulator."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from loopwm.data.collect import collect
from loopwm.data.environment import make
from loopwm.data.spaces import angle_dims, obs_names
from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError

FREE = {
    "HalfCheetah-v5": ("rooty",),
    "Hopper-v5": ("rooty",),
    "Swimmer-v5": ("free_body_rot",),
    "Walker2d-v5": ("rooty",),
}


def stepped(task: Any, qpos: np.ndarray, qvel: np.ndarray, action: np.ndarray) -> np.ndarray:
    task.set_state(qpos, qvel)
    task.do_simulation(action, task.frame_skip)
    return np.concatenate([task.data.qpos - qpos, task.data.qvel - qvel])


@pytest.mark.parametrize("name", [*FREE, "Ant-v5", "InvertedPendulum-v5", "Reacher-v5"])
def test_the_angles_of_hinges_without_limit_are_found(name: str) -> None:
    env = make(name)
    names, dims = obs_names(env), angle_dims(env)
    assert tuple((names or ())[each] for each in dims) == FREE.get(name, ())
    assert collect(name, 5).meta.angles == dims


@pytest.mark.parametrize("name", FREE)
def test_a_full_turn_of_such_an_angle_leads_back(name: str) -> None:
    task: Any = make(name).unwrapped
    rng = np.random.default_rng(0)
    joint = next(i for i in range(task.model.njnt) if task.model.joint(i).name == FREE[name][0])
    qpos = task.init_qpos + rng.uniform(-0.1, 0.1, task.model.nq)
    qvel, action = rng.normal(size=task.model.nv), rng.uniform(-1, 1, task.model.nu)
    turned = qpos.copy()
    turned[joint] += 2 * np.pi
    once, again = (stepped(task, each, qvel, action) for each in (qpos, turned))
    np.testing.assert_allclose(again, once, atol=1e-9)
    half = qpos.copy()
    half[joint] += np.pi
    assert np.abs(stepped(task, half, qvel, action) - once).max() > 1e-3 or name == "Swimmer-v5"


def test_the_angles_are_stored_and_data_without_them_is_another_kind(tmp_path: Any) -> None:
    data = collect("Hopper-v5", 20)
    data.save(tmp_path / "data")
    assert RolloutDataset.load(tmp_path / "data").meta.angles == (1,)
    plain = RolloutDataset.from_arrays(data.obs, data.action, data.reward, data.terminated)
    assert plain.meta.angles == ()
    with pytest.raises(DataError, match="differ in"):
        data.extend(plain)


class Reversed(gym.ObservationWrapper):
    """Observe the same numbers in another order."""

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[::-1].copy()


def test_nothing_is_known_of_what_a_wrapper_makes_of_an_observation() -> None:
    for wrapper in (Reversed, gym.wrappers.NormalizeObservation):
        meta = collect(lambda made=wrapper: made(gym.make("HalfCheetah-v5")), 5).meta
        assert (meta.angles, meta.obs_names) == ((), None)
    kept = collect(lambda: gym.wrappers.TimeLimit(gym.make("HalfCheetah-v5"), 9), 5).meta
    assert kept.angles == (1,)
    assert collect("Hopper-v5", 5, unclipped=True).meta.angles == (1,)
