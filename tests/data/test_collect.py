import multiprocessing
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from loopwm.data import parallel
from loopwm.data.collect import collect
from loopwm.data.engine import mujoco
from loopwm.data.episode import Task
from loopwm.data.guard import ACTION, DIVERGED, OBSERVATION, REWARD
from loopwm.data.policy import Uniform
from loopwm.data.store import COLUMNS, RolloutDataset
from loopwm.errors import (
    ConfigError,
    DataError,
    EnvironmentUnsupported,
    LoopwmError,
    NumericalError,
)


class Counting(gym.Env[np.ndarray, np.ndarray]):
    """Count steps; the action decides nothing, the seed where the count begins."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length: int = 7, ends: bool = True) -> None:
        self.length, self.ends = length, ends

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.start, self.count = float(self.np_random.random()), 0
        return np.array([self.start, 0.0]), {}

    def step(self, action: np.ndarray) -> Any:
        self.count += 1
        over = self.ends and self.count == self.length
        return np.array([self.start, float(self.count)]), 0.5 * self.count, over, False, {}


class Spoilt(gym.Wrapper):
    """Spoil the observation or the reward of one step of every episode."""

    def __init__(self, env: gym.Env[Any, Any], what: str, when: int) -> None:
        super().__init__(env)
        self.what, self.when, self.steps = what, when, 0

    def reset(self, **options: Any) -> Any:
        self.steps = 0
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        self.steps += 1
        inner: Any = self.unwrapped
        now = self.steps == self.when
        if now and self.what == "physics":
            inner.data.qvel[0] = 1e12
        obs, reward, *rest = super().step(action)
        if now and self.what == "obs":
            obs = np.full_like(obs, np.nan)
        return obs, float("inf") if now and self.what == "reward" else reward, *rest


class UnsoundStart(Counting):
    """Count steps, from a first observation that is NaN in about half of the episodes."""

    def reset(self, **options: Any) -> Any:
        obs, info = super().reset(**options)
        return np.where(obs[0] < 0.5, np.nan, obs), info


class Reporting(gym.Wrapper):
    """Report difficulties, one of them at every second step only."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        inner: Any = self.unwrapped
        info["difficulty/contacts"] = inner.count % 3
        info["even"] = inner.count % 2 == 0
        if inner.count % 2:
            info["difficulty/odd"] = 1.5
        return obs, reward, terminated, truncated, info


def steer(obs: np.ndarray) -> np.ndarray:
    """Answer an observation in closed loop."""
    return np.tanh(3 * obs[:3]).astype(np.float32)


def rows_equal(one: RolloutDataset, two: RolloutDataset) -> bool:
    return one.meta == two.meta and all(
        getattr(one, name).tobytes() == getattr(two, name).tobytes() for name in COLUMNS
    )


@pytest.mark.parametrize("policy", [None, steer])
def test_rows_equal_a_plain_loop_over_gymnasium(policy: Any) -> None:
    data = collect("Hopper-v5", 130, 5, policy or Uniform())
    task = Task("Hopper-v5", {}, False, 5, steer, 1000)
    env = gym.make("Hopper-v5")
    row = 0
    for number in range(data.num_episodes):
        obs, _ = env.reset(seed=task.reset_seed(number))
        actions = Uniform().actions(task.policy_rng(number), env.action_space, 1000)
        for step in range(1000):
            action = policy(obs) if policy else actions[step]
            following, reward, terminated, truncated, _ = env.step(action)
            assert data.episode[row] == number
            assert data.obs[row].tobytes() == obs.tobytes()
            assert data.action[row].tobytes() == action.tobytes()
            assert data.next_obs[row].tobytes() == following.tobytes()
            assert data.reward[row] == reward
            assert data.terminated[row] == terminated
            obs, row = following, row + 1
            if terminated or truncated or row == len(data):
                break
    assert row == len(data) == 130
    assert data.truncated[-1]


def test_rows_do_not_depend_on_how_many_environments_step_side_by_side() -> None:
    options: dict[str, Any] = {"env_kwargs": {"max_episode_steps": 25}}
    one = collect("Hopper-v5", 300, 3, steer, num_envs=1, **options)
    for num_envs in (2, 5):
        assert rows_equal(one, collect("Hopper-v5", 300, 3, steer, num_envs=num_envs, **options))


@pytest.mark.parametrize("policy", [pytest.param(None, marks=pytest.mark.slow), steer])
def test_rows_do_not_depend_on_the_number_of_processes(
    monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    monkeypatch.setattr(parallel, "CHUNK_STEPS", 150)
    one = collect("Hopper-v5", 700, 3, policy)
    assert rows_equal(one, collect("Hopper-v5", 700, 3, policy, workers=2))


def test_fewer_steps_are_the_beginning_of_more() -> None:
    few, many = collect("Walker2d-v5", 90), collect("Walker2d-v5", 200)
    for name in ("obs", "next_obs", "action", "reward", "terminated", "episode"):
        assert getattr(few, name).tobytes() == getattr(many, name)[:90].tobytes()
    assert not rows_equal(few, collect("Walker2d-v5", 90, seed=1))


def die_once(marker: str) -> gym.Env[Any, Any]:
    """Make an environment in a process that dies the first time."""
    if multiprocessing.parent_process() is not None and not Path(marker).exists():
        Path(marker).touch()
        os._exit(1)
    return Counting()


def test_a_killed_worker_loses_and_repeats_no_episode(tmp_path: Path) -> None:
    options: dict[str, Any] = {"env_kwargs": {"marker": str(tmp_path / "died")}}
    one = collect(die_once, 40, **options)
    assert rows_equal(one, collect(die_once, 40, workers=2, **options))
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_workers_that_keep_dying_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "MAX_DEATHS", 0)
    with pytest.raises(LoopwmError, match="processes died 1 times"):
        collect(die_once, 40, workers=2, env_kwargs={"marker": str(tmp_path / "died")})


def test_a_factory_that_cannot_be_sent_to_workers_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"workers=2 needs .* pickled"):
        collect(lambda: Counting(), 40, workers=2)


def test_environments_of_other_kinds_keep_their_types() -> None:
    cart = collect("CartPole-v1", 60)
    assert cart.discrete
    assert cart.action.dtype == np.int64
    assert cart.action_dim == cart.meta.num_actions == 2
    assert cart.obs.dtype == np.float32
    pendulum = collect("Pendulum-v1", 210, policy=lambda obs: obs[:1])
    assert pendulum.obs.dtype == pendulum.action.dtype == np.float32
    assert pendulum.truncated.nonzero()[0].tolist() == [199, 209]
    assert not pendulum.terminated.any()


def test_an_environment_without_a_limit_is_cut_after_a_thousand_steps() -> None:
    data = collect(Counting, 1500, env_kwargs={"ends": False})
    assert data.truncated.nonzero()[0].tolist() == [999, 1499]


@pytest.mark.parametrize("limit", [400, 1200])
def test_a_time_limit_in_the_factory_replaces_the_one_of_environments_without(limit: int) -> None:
    data = collect(lambda: gym.wrappers.TimeLimit(Counting(ends=False), limit), 1500)
    assert np.diff(data.bounds)[0] == limit


def test_a_dict_of_observations_is_flattened_and_named() -> None:
    def factory() -> gym.Env[Any, Any]:
        return gym.wrappers.TransformObservation(
            Counting(),
            lambda obs: {"start": obs[:1], "time": {"now": obs[1:], "twice": obs * 2}},
            gym.spaces.Dict(
                start=gym.spaces.Box(0, 1, (1,), np.float64),
                time=gym.spaces.Dict(
                    now=gym.spaces.Box(0, 99, (1,), np.float64),
                    twice=gym.spaces.Box(0, 99, (2,), np.float64),
                ),
            ),
        )

    data = collect(factory, 20)
    assert data.obs.shape == (20, 4)
    assert (data.obs[:, 2:] == 2 * data.obs[:, :2]).all()


@pytest.mark.parametrize(
    ("what", "when", "reason"), [("obs", 5, OBSERVATION), ("reward", 4, REWARD)]
)
def test_an_episode_ends_before_a_step_that_is_not_finite(
    what: str, when: int, reason: str
) -> None:
    data = collect(lambda: Spoilt(Counting(length=9), what, when), 30)
    whole, rest = divmod(30 - 1, when - 1)
    assert np.diff(data.bounds).tolist() == [when - 1] * whole + [rest + 1]
    assert data.meta.dropped == {reason: whole}
    assert data.truncated[data.bounds[1:] - 1].all()
    assert not data.terminated.any()


@pytest.mark.parametrize("num_envs", [1, 3])
def test_an_episode_that_begins_with_nan_is_dropped_and_counted(num_envs: int) -> None:
    data = collect(UnsoundStart, 60, seed=1, num_envs=num_envs)
    assert len(data) == 60
    # About half of the episodes of 7 steps; which ones, their seeds alone say.
    assert data.meta.dropped.keys() == {OBSERVATION}
    assert 2 <= data.meta.dropped[OBSERVATION] <= 20
    assert (data.obs[:, 0] >= 0.5).all()
    alone = collect(UnsoundStart, 60, seed=1, num_envs=1)
    assert alone.obs.tobytes() == data.obs.tobytes()
    assert alone.meta.dropped == data.meta.dropped


def test_episodes_that_all_fail_at_once_are_reported() -> None:
    with pytest.raises(NumericalError, match="failed in their first step"):
        collect(lambda: Spoilt(Counting(), "obs", 1), 30)


def test_a_simulator_that_resets_itself_is_noticed_and_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def factory() -> gym.Env[Any, Any]:
        return Spoilt(gym.make("HalfCheetah-v5"), "physics", 11)

    monkeypatch.chdir(tmp_path)
    data = collect(factory, 45)
    assert np.diff(data.bounds).tolist() == [10, 10, 10, 10, 5]
    assert data.meta.dropped == {DIVERGED: 4}
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert mujoco.MjLogConfig.get().logto_file


def test_an_action_that_is_not_finite_ends_the_episode_before_it() -> None:
    def confused(obs: np.ndarray) -> np.ndarray:
        return np.array([np.nan if obs[1] == 3 else 0.5], np.float32)

    data = collect(Counting, 14, policy=confused)
    assert np.diff(data.bounds).tolist() == [3, 3, 3, 3, 2]
    assert data.meta.dropped == {ACTION: 4}


def test_an_action_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(2,\)"):
        collect(Counting, 14, policy=lambda obs: obs)


@pytest.mark.parametrize("name", ["steps", "seed", "num_envs", "workers"])
@pytest.mark.usefixtures("without_shape_checks")
def test_a_number_that_is_not_whole_is_refused_before_any_step(name: str) -> None:
    arguments: dict[str, Any] = {"env_id": Counting, "steps": 20, name: 20.5}
    with pytest.raises(ConfigError, match=f"{name} must be a whole number, got 20.5"):
        collect(**arguments)
    arguments[name] = np.int64(2)
    assert len(collect(**arguments)) == arguments["steps"]


@pytest.mark.parametrize("chosen", [0.99, 1.7])
def test_an_action_between_two_discrete_ones_is_refused(chosen: float) -> None:
    with pytest.raises(DataError, match="whole numbers"):
        collect("CartPole-v1", 14, policy=lambda obs: chosen)
    assert set(collect("CartPole-v1", 14, policy=lambda obs: 1.0).action) == {1}


@pytest.mark.parametrize("chosen", [-1, 2])
def test_a_discrete_action_out_of_range_is_refused_before_it_is_played(chosen: int) -> None:
    played: list[Any] = []

    class Careless(Counting):
        action_space: Any = gym.spaces.Discrete(2)

        def step(self, action: np.ndarray) -> Any:
            played.append(int(action))
            return super().step(action)

    with pytest.raises(DataError, match=rf"returned {chosen}, and .* lie in 0..1"):
        collect(Careless, 5000, policy=lambda obs: chosen if obs[1] == 3 else 1)
    assert set(played) == {1}


class TooFew:
    """Draw three actions, however many are asked for."""

    def actions(self, rng: Any, action_space: Any, horizon: int) -> np.ndarray:
        return rng.uniform(-1, 1, (min(horizon, 3), 6)).astype(np.float32)


@pytest.mark.parametrize("info_keys", [(), ("x_position",)], ids=["fast", "stepped"])
def test_an_excitation_with_too_few_actions_is_refused(info_keys: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"shape \(3, 6\) where"):
        collect("HalfCheetah-v5", 300, policy=TooFew(), info_keys=info_keys)


def test_difficulties_and_chosen_numbers_of_info_become_columns() -> None:
    data = collect(lambda: Reporting(Counting()), 20, info_keys=("even",))
    count = data.next_obs[:, 1]
    assert sorted(data.info) == ["difficulty/contacts", "difficulty/odd", "even"]
    assert data.info["difficulty/contacts"].tolist() == (count % 3).tolist()
    assert data.info["even"].tolist() == (count % 2 == 0).tolist()
    odd = np.where(count % 2 == 1, 1.5, np.nan)
    np.testing.assert_array_equal(data.info["difficulty/odd"], odd)
    with pytest.raises(ConfigError, match="never appeared"):
        collect(Counting, 20, info_keys=("typo",))


class Priced(Counting):
    """Report a cost that is a whole number or a fraction, and what fits into no common array."""

    def step(self, action: np.ndarray) -> Any:
        obs, reward, *rest, _ = super().step(action)
        draw = float(self.np_random.random())
        seen = [0] * int(9 * draw) if draw < 0.8 else np.zeros(int(9 * draw))
        info = {"cost": 0 if draw < 0.5 else draw, "seen": seen}
        info["mood"] = "glad" if draw < 0.5 else draw
        info["trace"] = np.zeros(int(9 * draw))
        info["_cost"] = "kept apart"
        return np.array([draw, obs[1]]), reward, *rest, info


@pytest.mark.parametrize("num_envs", [1, 2, 8])
def test_numbers_of_info_are_those_that_each_environment_reported(num_envs: int) -> None:
    def factory() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Priced(), 5)

    data = collect(factory, 400, info_keys=("cost",), num_envs=num_envs)
    draw = data.next_obs[:, 0]
    assert data.info["cost"].tolist() == np.where(draw < 0.5, 0, draw).tolist()
    assert list(data.info) == ["cost"]


def test_a_chosen_name_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match=r"info\['mood'\] must be a number"):
        collect(Priced, 400, info_keys=("mood",))


def test_the_bar_is_drawn_on_stderr_alone(capfd: pytest.CaptureFixture[str]) -> None:
    collect(Counting, 20, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "20/20" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"num_envs": 0}, "num_envs must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"info_keys": "even"}, "info_keys must be a sequence of names"),
        ({"env_id": "Hoper-v5"}, "no environment 'Hoper-v5'; did you mean Hopper-v5"),
        ({"env_kwargs": {"lenght": 3}}, "does not accept env_kwargs"),
        ({"env_kwargs": {"length": object()}}, "object, which a dataset cannot record"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        collect(**({"env_id": Counting, "steps": 20} | arguments))


def box(*shape: int, dtype: Any = np.float32) -> gym.spaces.Box:
    return gym.spaces.Box(0, 9, shape, dtype)


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        ("observation_space", box(64, 64, 3, dtype=np.uint8), "images are not supported yet"),
        ("observation_space", box(84, 84, dtype=np.uint8), "images are not supported yet"),
        ("observation_space", gym.spaces.Dict(eye=box(8, 8, 3)), "'eye' is an image"),
        ("observation_space", box(4, 4), "FlattenObservation"),
        ("observation_space", gym.spaces.Discrete(3), "FlattenObservation"),
        ("action_space", gym.spaces.MultiDiscrete([2, 2]), "TransformAction"),
        ("action_space", gym.spaces.Discrete(3, start=1), "must count from 0"),
    ],
)
def test_spaces_that_are_not_supported_are_named_with_a_remedy(
    space: str, value: gym.Space[Any], message: str
) -> None:
    def factory() -> gym.Env[Any, Any]:
        env = Counting()
        setattr(env, space, value)
        return env

    with pytest.raises(EnvironmentUnsupported, match=message):
        collect(factory, 10)


def test_the_environment_of_a_dataset_can_be_made_again() -> None:
    data = collect("Hopper-v5", 30, unclipped=True, env_kwargs={"terminate_when_unhealthy": False})
    env = data.make_env(ctrl_cost_weight=0.5)
    inner: Any = env.unwrapped
    assert not inner._terminate_when_unhealthy
    assert inner._ctrl_cost_weight == 0.5
    obs, _ = env.reset(seed=Task("Hopper-v5", {}, True, 0, steer, 1000).reset_seed(0))
    assert obs.tobytes() == data.obs[0].tobytes()
    fewer = data.keep_obs([3, 1]).make_env()
    assert fewer.observation_space.shape == (2,)
    obs, _ = fewer.reset(seed=Task("Hopper-v5", {}, True, 0, steer, 1000).reset_seed(0))
    assert obs.tobytes() == data.obs[0, [3, 1]].tobytes()
    with pytest.raises(ConfigError, match="pass factory="):
        collect(Counting, 10).make_env()


def test_a_dataset_tells_where_it_comes_from() -> None:
    meta = collect("Hopper-v5", 10, 4, Uniform()).meta
    assert (meta.env_id, meta.seed, meta.policy, meta.dt) == ("Hopper-v5", 4, "Uniform()", 0.008)
    assert meta.action_low == (-1.0,) * 3
    assert meta.obs_names is not None
    assert meta.obs_names[:3] == ("rootz", "rooty", "thigh_joint")
    assert meta.obs_names[5] == "d rootx/dt"
    assert {"python", "gymnasium", "mujoco", "numpy"} <= meta.versions.keys()
    assert collect(Counting, 10, policy=lambda obs: obs[:1]).meta.dt is None
    assert collect(Counting, 10, policy=lambda obs: obs[:1]).meta.env_id.endswith("Counting")
