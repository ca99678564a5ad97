"""Labels of real tasks: exact replays that leave the task alone, and what they are made of."""

from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

from loopwm.data.collect import collect
from loopwm.data.engine import mujoco, quiet_mujoco
from loopwm.data.environment import make
from loopwm.errors import ConfigError, EnvironmentUnsupported
from loopwm_envs import TransitionDifficulty
from loopwm_envs.difficulty import MECHANISMS
from loopwm_envs.shadow import Shadow

TASKS = ("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
CHEAP = ("contacts", "dissipation", "impulse", "solver", "switches")
EVERYTHING = {"directions": 2, "without": tuple(MECHANISMS)}


def played(env: gym.Env[Any, Any], steps: int = 60) -> list[tuple[bytes, float, bool, dict]]:
    env.reset(seed=1)
    env.action_space.seed(2)
    rows = []
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        rows.append((obs.tobytes(), reward, terminated, info))
        if terminated or truncated:
            env.reset()
    return rows


def labels_of(info: dict[str, Any]) -> dict[str, float]:
    return {
        name.removeprefix("difficulty/"): value
        for name, value in info.items()
        if name.startswith("difficulty/")
    }


@pytest.mark.parametrize("name", TASKS)
def test_the_task_goes_on_as_if_it_were_not_watched(name: str) -> None:
    plain, watched = make(name), TransitionDifficulty(make(name), **EVERYTHING)
    for one, other in zip(played(plain), played(watched), strict=True):
        assert one[:3] == other[:3]
        assert {**one[3], **other[3]} == other[3]
        assert all(np.isfinite(value) for value in labels_of(other[3]).values())
    model: Any = watched.unwrapped
    assert model.model.opt.disableflags == 0


@pytest.mark.parametrize("name", TASKS)
def test_a_replay_ends_exactly_where_the_task_does(name: str) -> None:
    task: Any = make(name).unwrapped
    task.reset(seed=0)
    task.action_space.seed(0)
    shadow = Shadow(task)
    for _ in range(60):
        start = shadow.save()
        task.step(task.action_space.sample())
        moments = list(shadow.moments(start))
        assert len(moments) == task.frame_skip + 1
        assert moments[-1].qvel.tobytes() == task.data.qvel.tobytes()
        assert shadow.matches()
        assert (shadow.replay(start) == 0).all()
        # A replay under other circumstances leaves nothing behind.
        assert shadow.replay(start, nudge=np.full(2 * task.model.nv, 1e-3)).any()
        assert (shadow.replay(start) == 0).all()


def test_labels_are_what_a_simulator_of_ones_own_leaves_behind_at_each_of_its_steps() -> None:
    # With the Euler integrator, a step leaves the quantities of its beginning behind.
    env = TransitionDifficulty(make("HalfCheetah-v5"))
    task: Any = env.unwrapped
    env.reset(seed=0)
    data, model = mujoco.MjData(task.model), task.model
    data.qpos[:], data.qvel[:] = task.data.qpos, task.data.qvel
    mujoco.mj_forward(model, data)
    env.action_space.seed(0)
    for _ in range(80):
        action = env.action_space.sample()
        seen = labels_of(env.step(action)[4])
        contacts, impulse, solver, pairs = [], 0.0, 0, []
        data.ctrl[:] = action
        for _ in range(task.frame_skip):
            mujoco.mj_step(model, data)
            contacts.append(data.ncon)
            impulse += 0.01 * np.sqrt((data.qfrc_constraint**2).sum())
            solver += sum(data.solver_niter[: data.nisland])
            pairs.append({(int(a), int(b)) for a, b in data.contact.geom})
        after = mujoco.MjData(model)
        after.qpos[:] = data.qpos
        mujoco.mj_forward(model, after)
        pairs.append({(int(a), int(b)) for a, b in after.contact.geom})
        assert seen["contacts"] == np.mean(contacts)
        assert seen["impulse"] == pytest.approx(impulse, rel=1e-12)
        assert seen["solver"] == solver
        assert seen["switches"] == sum(one != other for one, other in pairwise(pairs))


def test_labels_become_columns_of_a_dataset() -> None:
    data = collect(lambda: TransitionDifficulty(gym.make("Hopper-v5"), directions=1), steps=70)
    names = [f"difficulty/{name}" for name in sorted((*CHEAP, "gain"))]
    assert sorted(data.info) == names
    assert all(np.isfinite(data.info[name]).all() for name in names)
    plain = collect("Hopper-v5", steps=70)
    assert plain.obs.tobytes() == data.obs.tobytes()
    assert plain.reward.tobytes() == data.reward.tobytes()


def test_what_costs_much_is_reported_on_demand() -> None:
    env = TransitionDifficulty(make("Hopper-v5"))
    assert sorted(labels_of(played(env, 1)[0][3])) == sorted(CHEAP)
    env = TransitionDifficulty(make("Hopper-v5"), directions=1, without=["limit", "gravity"])
    wanted = (*CHEAP, "gain", "without_limit", "without_gravity")
    assert sorted(labels_of(played(env, 1)[0][3])) == sorted(wanted)


def test_the_seed_chooses_the_directions_of_the_gain() -> None:
    gains = [
        [
            labels_of(row[3])["gain"]
            for row in played(TransitionDifficulty(make("Hopper-v5"), 2, seed=seed), 5)
        ]
        for seed in (0, 0, 1)
    ]
    assert gains[0] == gains[1] != gains[2]


@pytest.mark.parametrize("fault", ["a bad action", "an explosion"])
def test_from_a_warning_of_the_simulator_on_an_episode_has_no_labels(fault: str) -> None:
    env = TransitionDifficulty(make("Hopper-v5", {"terminate_when_unhealthy": False}))
    task: Any = env.unwrapped
    env.reset(seed=0)
    good = np.zeros(3, np.float32)
    assert labels_of(env.step(good)[4])
    with quiet_mujoco():
        if fault == "a bad action":
            info = env.step(np.full(3, np.nan, np.float32))[4]
        else:
            task.data.qvel[0] = 1e12
            info = env.step(good)[4]
    assert labels_of(info) == labels_of(env.step(good)[4]) == {}
    env.reset(seed=0)
    assert labels_of(env.step(good)[4])


def test_a_replay_that_explodes_is_not_reported_on_stderr(
    capfd: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = TransitionDifficulty(make("Hopper-v5"), directions=1)
    env.reset(seed=0)
    env._nudges = np.full_like(env._nudges, 1e11)
    env.step(np.zeros(3, np.float32))
    assert capfd.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


class Twice(HopperEnv):
    """Hold the control for twice as long as it says."""

    def do_simulation(self, ctrl: Any, n_frames: int) -> None:
        super().do_simulation(ctrl, n_frames)
        super().do_simulation(ctrl, n_frames)


def test_a_task_whose_step_cannot_be_replayed_is_refused() -> None:
    env = TransitionDifficulty(Twice())
    env.reset(seed=0)
    with pytest.raises(EnvironmentUnsupported, match="a step of Twice cannot be replayed"):
        env.step(np.zeros(3, np.float32))


def test_an_environment_without_mujoco_is_refused() -> None:
    with pytest.raises(EnvironmentUnsupported, match="got PendulumEnv"):
        TransitionDifficulty(gym.make("Pendulum-v1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directions": -1}, "directions must not be negative, got -1"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"without": ["friction"]}, r"out of contact, limit, .* got \['friction'\]"),
        ({"without": "limit"}, "without must be a list of mechanisms"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TransitionDifficulty(make("Hopper-v5"), **arguments)


def test_gymnasium_can_make_the_wrapped_task_again() -> None:
    spec = TransitionDifficulty(make("Hopper-v5"), **EVERYTHING).spec
    assert spec is not None
    again = gym.make(spec)
    assert labels_of(played(again, 1)[0][3]).keys() >= {"gain", "without_contact"}
