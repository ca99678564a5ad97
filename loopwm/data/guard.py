"""What tells a real step from one that a diverged simulator or a bad action made up."""

from typing import Any

import gymnasium as gym

from loopwm.data.engine import mujoco

ACTION = "action not finite"
DIVERGED = "simulation diverged"
OBSERVATION = "observation not finite"
REWARD = "reward not finite"

# Norm of all velocities in m/s and rad/s. Tasks stay far below it; a state beyond it is exploding,
# and MuJoCo resets it silently when it reaches 1e10.
SPEED_LIMIT = 1e4


class Watch:
    """Watch the MuJoCo simulation inside an environment, if there is one.

    MuJoCo answers an exploded state by resetting itself in the middle of a step, and a NaN action
    by ignoring it; both return finite observations. What betrays them is a clock that goes back
    and the counters of warnings.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Begin to watch; call this after every reset.

        Args:
            env: The environment, just reset.
        """
        data = getattr(env.unwrapped, "data", None)
        self._data = data if isinstance(data, mujoco.MjData) else None
        if self._data is not None:
            self._time = self._data.time
            self._warnings = self._data.warning.number
            self._before = self._warnings.tobytes()

    def diverged(self) -> bool:
        """Tell whether the simulation went wrong in the step just made."""
        if self._data is None:
            return False
        speed = self._data.qvel
        # Written so that NaN counts as too fast.
        fine = (
            self._data.time > self._time
            and self._warnings.tobytes() == self._before
            and speed @ speed <= SPEED_LIMIT**2
        )
        self._time = self._data.time
        return not fine


def step_fault(watch: Watch, obs_finite: bool, reward_finite: bool) -> str | None:
    """Return why the step just made must not be stored, or None if it may.

    Args:
        watch: The watch over the simulation.
        obs_finite: Whether the observation after the step is finite.
        reward_finite: Whether the reward of the step is finite.
    """
    if watch.diverged():
        return DIVERGED
    if not obs_finite:
        return OBSERVATION
    return None if reward_finite else REWARD
