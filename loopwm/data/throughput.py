"""How fast experience is collected, beside stepping the same environment in Gymnasium."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from loopwm.data.collect import assemble, collect
from loopwm.data.engine import quiet_mujoco
from loopwm.data.environment import describe, make, time_limit
from loopwm.data.episode import Task
from loopwm.data.policy import Uniform
from loopwm.data.stepping import play_stepping

NUM_ENVS = 8


def collection_speed(
    env_id: str,
    steps: int = 20_000,
    rounds: int = 5,
    env_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Measure how many open-loop steps are collected per CPU-second, and how many Gymnasium makes.

    The methods take turns, so that other load on the machine meets all of them.

    Args:
        env_id: A Gymnasium id with bounded actions.
        steps: Steps per round and method.
        rounds: Rounds, of which the median counts.
        env_kwargs: Arguments for the environment.

    Returns:
        Steps per CPU-second: `collect` as it is; `sync_vector_env`, the same rows collected by
        stepping SyncVectorEnv; `sync_bare`, SyncVectorEnv stepped with actions drawn beforehand,
        checking and keeping nothing. `ratio` is collect / sync_vector_env, and `ratio_bare` is
        collect / sync_bare.
    """
    methods = {"collect": _collect, "sync_vector_env": _stepped, "sync_bare": _bare}
    rates: dict[str, list[float]] = {name: [] for name in methods}
    with quiet_mujoco():
        for seed in range(rounds):
            for name, prepare in methods.items():
                run = prepare(env_id, steps, seed, dict(env_kwargs or {}))
                start = time.process_time()
                run()
                rates[name].append(steps / (time.process_time() - start))
    speed = {name: statistics.median(each) for name, each in rates.items()}
    speed["ratio"] = speed["collect"] / speed["sync_vector_env"]
    speed["ratio_bare"] = speed["collect"] / speed["sync_bare"]
    return speed


def _collect(
    env_id: str, steps: int, seed: int, env_kwargs: dict[str, Any]
) -> Callable[[], object]:
    return lambda: collect(env_id, steps, seed, Uniform(), env_kwargs=env_kwargs, progress=False)


def _stepped(
    env_id: str, steps: int, seed: int, env_kwargs: dict[str, Any]
) -> Callable[[], object]:
    def run() -> object:
        env = make(env_id, env_kwargs)
        meta = describe(env_id, env, env_kwargs, False)
        task = Task(env_id, env_kwargs, False, seed, Uniform(), time_limit(env))
        return assemble(play_stepping(task, 0, None, steps, NUM_ENVS), steps, meta)

    return run


def _bare(env_id: str, steps: int, seed: int, env_kwargs: dict[str, Any]) -> Callable[[], object]:
    vector = gym.make_vec(env_id, NUM_ENVS, vectorization_mode="sync", **env_kwargs)
    vector.reset(seed=seed)
    vector.action_space.seed(seed)
    actions = [np.asarray(vector.action_space.sample()) for _ in range(steps // NUM_ENVS)]

    def run() -> None:
        for action in actions:
            vector.step(action)
        vector.close()

    return run
