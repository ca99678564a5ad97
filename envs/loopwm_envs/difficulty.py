"""How hard each step of a MuJoCo task is, by what the simulator did in it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.utils import RecordConstructorArgs

from loopwm.data.engine import mujoco, quiet_mujoco
from loopwm.errors import ConfigError, EnvironmentUnsupported
from loopwm_envs.shadow import Moment, Shadow

MECHANISMS = {
    "contact": int(mujoco.mjtDisableBit.mjDSBL_CONTACT),
    "limit": int(mujoco.mjtDisableBit.mjDSBL_LIMIT),
    "actuation": int(mujoco.mjtDisableBit.mjDSBL_ACTUATION),
    "gravity": int(mujoco.mjtDisableBit.mjDSBL_GRAVITY),
}

# Long enough for what is lost in a difference of states, short enough to stay linear.
NUDGE = 1e-6


class TransitionDifficulty(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Report how hard each step of a MuJoCo task was, as `info["difficulty/..."]`.

    What a task shows after a step is left over from the last simulator step, or even from a stage
    of the integrator within it. So each step is replayed exactly, one simulator step after the
    other, in data of the wrapper's own; the task goes on as if it were not watched.

    - `contacts`: contact points, mean over the simulator steps.
    - `impulse`: integral over the step of the norm of the constraint force, in N s and N m s;
      contacts, joint limits and dry friction all are constraints.
    - `switches`: how often the set of geoms in contact changed from one state to the next.
    - `dissipation`: work of the actuators minus the gain in energy, in J.
    - `solver`: iterations of the constraint solver, over all islands and simulator steps; of the
      first stage, where the integrator has several.
    - `gain` (where `directions` > 0): how much the step amplifies a small displacement of positions
      and velocities, root mean square over random directions, which are the same in every step.
    - `without_contact`, `without_limit`, `without_actuation`, `without_gravity` (where named in
      `without`): how far the next state would lie away with the mechanism off, root mean square
      over the dimensions of positions and velocities.

    Gain and the mechanisms compare states in m, rad, m/s and rad/s alike, rotations by rotation
    vector, and cost a further replay for each direction and mechanism. From a step in which the
    simulator warned of a bad state or control, an episode has no labels.

    Args:
        env: A MuJoCo task of Gymnasium, wrapped or not, whose step holds one control for
            `frame_skip` simulator steps.
        directions: Number of random directions for the gain; 0 leaves it out.
        without: The mechanisms to switch off, each by itself.
        seed: Non-negative integer from which the directions are drawn.

    Raises:
        EnvironmentUnsupported: If the environment is not a MuJoCo task.
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        directions: int = 0,
        without: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        task = _checked(env, directions, without, seed)
        RecordConstructorArgs.__init__(self, directions=directions, without=without, seed=seed)
        super().__init__(env)
        self._task, self._shadow = task, Shadow(task)
        self._off = {name: MECHANISMS[name] for name in without}
        drawn = np.random.default_rng(seed).normal(size=(directions, 2 * task.model.nv))
        self._nudges = NUDGE * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the task, and add the labels to `info`.

        Args:
            action: The action.

        Raises:
            EnvironmentUnsupported: If the task does more in a step than can be replayed.
        """
        start = self._shadow.save()
        obs, reward, terminated, truncated, info = self.env.step(action)
        if not self._shadow.warned():
            with quiet_mujoco():
                labels = self._labels(start)
            info = {**info, **{f"difficulty/{name}": value for name, value in labels.items()}}
        return obs, reward, terminated, truncated, info

    def _labels(self, start: np.ndarray) -> dict[str, float]:
        moments = list(self._shadow.moments(start))
        if not self._shadow.matches():
            raise EnvironmentUnsupported(
                f"a step of {type(self._task).__name__} cannot be replayed: it does something else "
                "than hold one control for frame_skip simulator steps; use the task as Gymnasium "
                "has it, without TransitionDifficulty around what resets or changes it in a step"
            )
        before, timestep = moments[:-1], self._task.model.opt.timestep
        labels = {
            "contacts": float(np.mean([each.contacts for each in before])),
            "impulse": sum(each.constraint for each in before) * timestep,
            "switches": sum(one.pairs != other.pairs for one, other in pairwise(moments)),
            "dissipation": _work(moments) * timestep - (moments[-1].energy - moments[0].energy),
            "solver": sum(each.iterations for each in before),
        }
        if len(self._nudges):
            ends = np.array([self._shadow.replay(start, nudge) for nudge in self._nudges])
            labels["gain"] = float(np.sqrt((ends**2).sum(axis=1).mean())) / NUDGE
        for name, bit in self._off.items():
            gap = self._shadow.replay(start, without=bit)
            labels[f"without_{name}"] = float(np.sqrt((gap**2).mean()))
        return labels


def _work(moments: list[Moment]) -> float:
    """Return the work of the actuators per time step.

    The mean velocity is what a constant force changes the kinetic energy by, whether the integrator
    moves on with the velocity before it, after it or in between.
    """
    return sum(
        float(one.actuation @ (one.qvel + other.qvel)) / 2 for one, other in pairwise(moments)
    )


def _checked(
    env: gym.Env[Any, Any], directions: int, without: Sequence[str], seed: int
) -> MujocoEnv:
    task = env.unwrapped
    if not isinstance(task, MujocoEnv):
        raise EnvironmentUnsupported(
            f"TransitionDifficulty replays MuJoCo tasks of Gymnasium, got {type(task).__name__}; "
            "wrap an environment whose unwrapped one is a MujocoEnv"
        )
    for name, value in {"directions": directions, "seed": seed}.items():
        if value < 0:
            raise ConfigError(f"{name} must not be negative, got {value}")
    unknown = [name for name in without if name not in MECHANISMS]
    if isinstance(without, str) or unknown:
        raise ConfigError(
            f"without must be a list of mechanisms out of {', '.join(MECHANISMS)}, got {without!r}"
        )
    return task
