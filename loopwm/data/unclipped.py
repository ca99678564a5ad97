"""State observations whose velocities are not clipped, for the two tasks that clip them."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

from loopwm.errors import EnvironmentUnsupported

CLIPPED_IDS = ("Hopper-v5", "Walker2d-v5")


class UnclippedState(gym.ObservationWrapper):
    """Observe the positions and the velocities of the simulator as they are.

    Hopper-v5 and Walker2d-v5 clip observed velocities to a range that their motion leaves, so
    that two different states look the same and the next observation is not a function of the
    present one. Only the observation differs here; the dynamics and the reward do not.

    Args:
        env: A Hopper-v5 or Walker2d-v5 environment.

    Raises:
        EnvironmentUnsupported: If the environment is not one of the two.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        task = env.unwrapped
        if not isinstance(task, HopperEnv | Walker2dEnv):
            name = env.spec.id if env.spec is not None else type(task).__name__
            raise EnvironmentUnsupported(
                f"unclipped observations exist for {' and '.join(CLIPPED_IDS)}, got {name}, "
                "which does not clip its velocities this way: use unclipped=False"
            )
        self._task = task
        self._first = int(task._exclude_current_positions_from_observation)

    def observation(self, observation: Any) -> np.ndarray:
        """Return positions and velocities in the order of the clipped observation."""
        del observation
        state = self._task.data
        return np.concatenate([state.qpos[self._first :], state.qvel])
