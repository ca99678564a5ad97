"""How many seconds of simulated time pass in a step of an environment, wrappers included."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, Autoreset, MaxAndSkipObservation

from loopwm.data.engine import mujoco, quiet_mujoco

# Steps of a copy to measure; a wrapper need not make equally many inner steps in each.
MEASURED = 3


def seconds_per_step(env: gym.Env[Any, Any], copy: Callable[[], gym.Env[Any, Any]]) -> float | None:
    """Return the seconds of simulated time of a step, or None where they are not known.

    Args:
        env: The environment, whose innermost `dt` is taken times the inner steps of one step.
        copy: Makes another like it, to be stepped where a wrapper of a MuJoCo task may make any
            number of inner steps.
    """
    dt = _seconds(getattr(env.unwrapped, "dt", None))
    if dt is None:
        return None
    inner = _inner_steps(env)
    if inner is None and isinstance(getattr(env.unwrapped, "data", None), mujoco.MjData):
        inner = _measured_steps(copy, dt)
    return None if inner is None else inner * dt


def _seconds(dt: object) -> float | None:
    if isinstance(dt, bool) or not isinstance(dt, float | int | np.floating):
        return None
    return float(dt) if math.isfinite(dt) and dt > 0 else None


def _inner_steps(env: gym.Env[Any, Any]) -> int | None:
    """Count the inner steps of a step, as far as it is known what the wrappers do."""
    inner, layer = 1, env
    while isinstance(layer, gym.Wrapper):
        owner = next((each for each in type(layer).__mro__ if "step" in vars(each)), gym.Wrapper)
        if owner is MaxAndSkipObservation:
            inner *= vars(layer)["_skip"]
        elif owner.__name__ == "RepeatAction" and _of_gymnasium(owner):
            # By name, because earlier versions of Gymnasium do not have it.
            inner *= vars(layer)["num_repeats"]
        elif not _of_gymnasium(owner) or owner in (AtariPreprocessing, Autoreset):
            return None
        layer = layer.env
    return inner


def _of_gymnasium(owner: type) -> bool:
    return owner.__module__.split(".")[0] == "gymnasium"


def _measured_steps(copy: Callable[[], gym.Env[Any, Any]], dt: float) -> int | None:
    """Count the inner steps of the first steps by the simulator's clock; None if they differ."""
    env = copy()
    try:
        with quiet_mujoco():
            env.reset(seed=0)
            clock = [_time(env)]
            env.action_space.seed(0)
            for _ in range(MEASURED):
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                clock.append(_time(env))
                if terminated or truncated:
                    break
    except Exception:
        # What fails here fails when the environment is played, and is reported there.
        return None
    finally:
        env.close()
    inner = np.diff(clock) / dt
    count = round(float(inner[0])) if np.isfinite(inner).all() else 0
    return count if count > 0 and np.allclose(inner, count, atol=1e-3) else None


def _time(env: gym.Env[Any, Any]) -> float:
    simulated: Any = env.unwrapped
    return simulated.data.time
