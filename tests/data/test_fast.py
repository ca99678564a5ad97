from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import loopwm.data.collect
from loopwm.data.collect import collect
from loopwm.data.engine import mujoco, quiet_mujoco
from loopwm.data.episode import Task
from loopwm.data.fast import FAST_TASKS, Simulation, can_play_fast, full_state
from loopwm.data.guard import DIVERGED
from loopwm.data.policy import OrnsteinUhlenbeck, Uniform
from loopwm.data.store import COLUMNS, RolloutDataset
from loopwm.errors import ConfigError

MUJOCO_TASKS = (
    *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5"),
    *("InvertedDoublePendulum-v5", "InvertedPendulum-v5", "Pusher-v5", "Reacher-v5"),
    *("Swimmer-v5", "Walker2d-v5"),
)


def collect_both_ways(
    monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any
) -> tuple[RolloutDataset, RolloutDataset]:
    fast = collect(*args, **options)
    monkeypatch.setattr(loopwm.data.collect, "can_play_fast", lambda *_: False)
    return fast, collect(*args, **options)


def assert_same_rows(one: RolloutDataset, two: RolloutDataset) -> None:
    for name in COLUMNS:
        left, right = getattr(one, name), getattr(two, name)
        assert left.dtype == right.dtype, name
        assert left.tobytes() == right.tobytes(), name
    assert one.meta == two.meta


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
@pytest.mark.parametrize("before", [0, 37])
def test_physics_equals_gymnasium_bit_for_bit_from_reset_and_from_mid_episode(
    env_id: str, before: int
) -> None:
    with quiet_mujoco():
        env = gym.make(env_id, disable_env_checker=True)
    env.reset(seed=3)
    env.action_space.seed(4)
    inner: Any = env.unwrapped
    for _ in range(before):
        inner.step(env.action_space.sample())
    start, warmstart = full_state(inner.model, inner.data), inner.data.qacc_warmstart.copy()
    actions = np.stack([env.action_space.sample() for _ in range(100)])
    expected = []
    for action in actions:
        inner.step(action)
        expected.append(full_state(inner.model, inner.data))
    simulation = Simulation(inner.model, inner.frame_skip)
    # In two stretches: the second one begins with the warm start that the first one leaves.
    first, _ = simulation.run(start, warmstart, actions[:60])
    second, sound = simulation.run(first[-1], simulation.warmstart, actions[60:])
    assert np.concatenate([first, second]).tobytes() == np.stack(expected).tobytes()
    assert sound == 40


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("HalfCheetah-v5", {"env_kwargs": {"max_episode_steps": 150}}),
        ("HalfCheetah-v5", {"env_kwargs": {"ctrl_cost_weight": 0.3, "frame_skip": 2}}),
        ("Hopper-v5", {}),
        ("Hopper-v5", {"unclipped": True}),
        ("Hopper-v5", {"env_kwargs": {"terminate_when_unhealthy": False}}),
        ("Hopper-v5", {"env_kwargs": {"healthy_state_range": (-4.0, 4.0)}}),
        ("Hopper-v5", {"env_kwargs": {"max_episode_steps": 13}}),
        ("InvertedPendulum-v5", {}),
        ("Swimmer-v5", {}),
        ("Swimmer-v5", {"env_kwargs": {"exclude_current_positions_from_observation": False}}),
        ("Walker2d-v5", {}),
        (
            "Walker2d-v5",
            {"unclipped": True, "env_kwargs": {"terminate_when_unhealthy": False}},
        ),
    ],
)
def test_fast_rows_equal_stepped_rows_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, env_id: str, options: dict[str, Any]
) -> None:
    fast, stepped = collect_both_ways(monkeypatch, env_id, 400, 7, **options)
    assert_same_rows(fast, stepped)


def is_fast(env_id: str, **changes: Any) -> bool:
    with quiet_mujoco():
        env = gym.make(env_id, disable_env_checker=True)
    task = Task(env_id, {}, False, 0, Uniform(), 1000)
    wrapped = changes.pop("wrap", lambda env: env)(env)
    return can_play_fast(Task(**{**vars(task), **changes}), wrapped)


def test_the_fast_tasks_are_those_that_are_played_fast() -> None:
    assert tuple(env_id for env_id in MUJOCO_TASKS if is_fast(env_id)) == FAST_TASKS


def test_closed_loops_further_columns_and_unknown_wrappers_are_stepped() -> None:
    assert not is_fast("Hopper-v5", policy=lambda obs: obs[:3])
    assert not is_fast("Hopper-v5", info_keys=("x_position",))
    assert not is_fast("Hopper-v5", wrap=gym.wrappers.ClipAction)
    assert not is_fast("CartPole-v1")


def unstable(timestep: float) -> gym.Env[Any, Any]:
    """Make a cheetah whose steps are too long to be stable."""
    env = gym.make("HalfCheetah-v5", disable_env_checker=True)
    inner: Any = env.unwrapped
    inner.model.opt.timestep = timestep
    return env


@pytest.mark.parametrize("timestep", [0.09, 0.1])
def test_a_simulation_that_resets_itself_ends_the_episode_in_the_same_row_on_both_paths(
    monkeypatch: pytest.MonkeyPatch, timestep: float
) -> None:
    options: dict[str, Any] = {"env_kwargs": {"timestep": timestep}}
    fast, stepped = collect_both_ways(monkeypatch, unstable, 150, 0, **options)
    assert fast.meta.dropped[DIVERGED] > 0
    assert_same_rows(fast, stepped)


def test_a_state_that_explodes_at_once_leaves_no_sound_step() -> None:
    with quiet_mujoco():
        env = gym.make("HalfCheetah-v5", disable_env_checker=True)
        env.reset(seed=0)
        inner: Any = env.unwrapped
        inner.data.qvel[:] = 1e12
        state = full_state(inner.model, inner.data)
        simulation = Simulation(inner.model, inner.frame_skip)
        states, sound = simulation.run(state, np.zeros(inner.model.nv), np.zeros((20, 6)))
    assert np.isfinite(states).all()
    assert sound == 0
    assert int(mujoco.mjtState.mjSTATE_FULLPHYSICS) > 0


class Broken(OrnsteinUhlenbeck):
    """Draw a NaN now and then."""

    def actions(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> np.ndarray:
        actions = super().actions(rng, action_space, horizon)
        actions[23::31, 0] = np.nan
        return actions


def test_an_action_that_is_not_finite_ends_the_episode_in_the_same_row_on_both_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast, stepped = collect_both_ways(monkeypatch, "HalfCheetah-v5", 100, 0, Broken())
    assert fast.meta.dropped == {"action not finite": 4}
    assert fast.episode.tolist() == [0] * 23 + [1] * 23 + [2] * 23 + [3] * 23 + [4] * 8
    assert_same_rows(fast, stepped)


class Stretched:
    """Draw actions that all change with the horizon."""

    def actions(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> np.ndarray:
        return np.full((horizon, 3), 1e-3 * horizon, np.float32)


def test_actions_that_change_with_the_horizon_are_refused() -> None:
    with pytest.raises(ConfigError, match="must give the beginning"):
        collect("Hopper-v5", 100, 0, Stretched())


def test_episodes_that_end_early_are_drawn_and_simulated_in_stretches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loopwm.data.fast.STRETCH", 3)
    short = collect("Walker2d-v5", 300, 5)
    monkeypatch.setattr("loopwm.data.fast.STRETCH", 1000)
    assert_same_rows(short, collect("Walker2d-v5", 300, 5))
