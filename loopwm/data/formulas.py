"""Observation, reward and termination of Gymnasium's MuJoCo tasks for many steps at once.

Each formula repeats, operation by operation, what the task computes for one step, so that the
results are equal bit for bit. Only tasks are here whose formulas read nothing but positions,
velocities and actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv
from gymnasium.envs.mujoco.swimmer_v5 import SwimmerEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

# Hopper and Walker2d clip observed velocities to this magnitude.
CLIP = 10


@dataclass(frozen=True, eq=False)
class Motion:
    """Hold what a task makes of T simulated steps.

    Attributes:
        obs: Observations [T+1,O].
        qvel: Velocities [T+1,V].
        reward: Rewards [T].
        terminated: Whether the state after each step is terminal [T].
    """

    obs: np.ndarray
    qvel: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


@dataclass(frozen=True)
class Formula:
    """Say how a task observes, rewards and ends.

    Attributes:
        skipped: Leading positions that the observation leaves out, unless told otherwise.
        clips: Whether the task clips observed velocities.
        healthy: From the task, positions and velocities [T,...] to whether each state is healthy
            [T], or None for a task that does not end by itself.
        reward: From the task, positions [T+1,...], actions [T,A] and health [T] to rewards [T].
    """

    skipped: int
    clips: bool
    healthy: Callable[[Any, np.ndarray, np.ndarray], np.ndarray] | None
    reward: Callable[[Any, np.ndarray, np.ndarray, np.ndarray], np.ndarray]

    def positions_left_out(self, task: Any) -> int:
        """Return the number of leading positions that a task does not observe."""
        return self.skipped * getattr(task, "_exclude_current_positions_from_observation", False)

    def terminates(self, task: Any) -> bool:
        """Tell whether an episode of a task can end before its time limit."""
        ends = bool(getattr(task, "_terminate_when_unhealthy", True))
        return self.healthy is not None and ends

    def ended(self, task: Any, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Tell which states are terminal [T], from positions [T,Q] and velocities [T,V]."""
        if self.healthy is None or not self.terminates(task):
            return np.zeros(len(qpos), bool)
        return ~self.healthy(task, qpos, qvel)

    def motion(
        self, task: Any, qpos: np.ndarray, qvel: np.ndarray, action: np.ndarray, unclipped: bool
    ) -> Motion:
        """Compute what a task makes of simulated steps.

        Args:
            task: The unwrapped environment, for its settings.
            qpos: Positions [T+1,Q].
            qvel: Velocities [T+1,V].
            action: Actions [T,A], in the type of the action space.
            unclipped: Observe velocities as they are.
        """
        seen = np.minimum(np.maximum(qvel, -CLIP), CLIP) if self.clips and not unclipped else qvel
        healthy = np.ones(len(action), bool)
        if self.healthy is not None:
            healthy = self.healthy(task, qpos[1:], qvel[1:])
        return Motion(
            obs=np.concatenate([qpos[:, self.positions_left_out(task) :], seen], axis=1),
            qvel=qvel,
            reward=self.reward(task, qpos, action, healthy),
            terminated=~healthy if self.terminates(task) else np.zeros(len(action), bool),
        )


def _forward(task: Any, qpos: np.ndarray) -> np.ndarray:
    return task._forward_reward_weight * ((qpos[1:, 0] - qpos[:-1, 0]) / task.dt)


def _effort(task: Any, action: np.ndarray) -> np.ndarray:
    # Stays in float32, as in the task, and adds in the task's order.
    total = np.zeros(len(action), action.dtype)
    for column in np.square(action).T:
        total += column
    return task._ctrl_cost_weight * total


def _run_reward(task: Any, qpos: np.ndarray, action: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    del healthy
    return _forward(task, qpos) - _effort(task, action)


def _hop_reward(task: Any, qpos: np.ndarray, action: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    return _forward(task, qpos) + healthy * task._healthy_reward - _effort(task, action)


def _balance_reward(
    task: Any, qpos: np.ndarray, action: np.ndarray, healthy: np.ndarray
) -> np.ndarray:
    del task, qpos, action
    return healthy.astype(np.float64)


def _walker_healthy(task: Any, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    del qvel
    low, high = task._healthy_z_range
    left, right = task._healthy_angle_range
    height, angle = qpos[:, 1], qpos[:, 2]
    return (low < height) & (height < high) & (left < angle) & (angle < right)


def _hopper_healthy(task: Any, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    low, high = task._healthy_state_range
    state = np.concatenate([qpos[:, 2:], qvel], axis=1)
    return ((low < state) & (state < high)).all(axis=1) & _walker_healthy(task, qpos, qvel)


def _pendulum_healthy(task: Any, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    del task
    # A sum of numbers this small is finite if all of them are.
    finite = np.isfinite(qpos.sum(axis=1) + qvel.sum(axis=1))
    return finite & (np.abs(qpos[:, 1]) <= 0.2)


FORMULAS: dict[type, Formula] = {
    HalfCheetahEnv: Formula(1, False, None, _run_reward),
    HopperEnv: Formula(1, True, _hopper_healthy, _hop_reward),
    InvertedPendulumEnv: Formula(0, False, _pendulum_healthy, _balance_reward),
    SwimmerEnv: Formula(2, False, None, _run_reward),
    Walker2dEnv: Formula(1, True, _walker_healthy, _hop_reward),
}
