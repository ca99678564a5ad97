"""The simulator restarted from observed states, for ceilings of accuracy and for pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from loopwm.data.engine import quiet_mujoco
from loopwm.data.environment import make_env
from loopwm.data.fast import Simulation, full_state, is_plain
from loopwm.data.formulas import FORMULAS
from loopwm.data.meta import DatasetMeta
from loopwm.data.unclipped import CLIPPED_IDS
from loopwm.errors import ConfigError, EnvironmentUnsupported


def state_from_obs(env: gym.Env[Any, Any], obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions and velocities that an observation shows.

    Leading positions that the task leaves out of its observation (how far it has come) are 0, as
    nothing else depends on them. Velocities that the task clips stay clipped.

    Args:
        env: A MuJoCo task whose observation begins with positions and velocities.
        obs: Observations [..., O].

    Returns:
        Positions [..., Q] and velocities [..., V], as MuJoCo orders them.

    Raises:
        EnvironmentUnsupported: If the observation does not hold the state.
    """
    task: Any = env.unwrapped
    structure = getattr(task, "observation_structure", {})
    kept = [name for name in structure if not name.startswith("skipped")]
    if kept[:2] != ["qpos", "qvel"]:
        raise EnvironmentUnsupported(
            f"the observation of {type(task).__name__} does not begin with positions and "
            "velocities, so that no state can be set from it"
        )
    skipped, positions = structure.get("skipped_qpos", 0), structure["qpos"]
    obs = np.asarray(obs, np.float64)
    if obs.shape[-1] < positions + task.model.nv:
        raise EnvironmentUnsupported(
            f"an observation of {obs.shape[-1]} dimensions does not hold the "
            f"{positions} positions and {task.model.nv} velocities of {type(task).__name__}"
        )
    origin = np.zeros((*obs.shape[:-1], skipped))
    return (
        np.concatenate([origin, obs[..., :positions]], axis=-1),
        obs[..., positions : positions + task.model.nv],
    )


def set_state(env: gym.Env[Any, Any], obs: np.ndarray) -> None:
    """Put a MuJoCo task into the state that an observation [O] shows, to render it."""
    task: Any = env.unwrapped
    task.set_state(*state_from_obs(env, obs))


def can_simulate(meta: DatasetMeta) -> bool:
    """Tell whether `simulate` can restart the environment of a dataset from its observations."""
    try:
        env = make_env(meta)
    except (ConfigError, EnvironmentUnsupported):
        return False
    # A wrapper between, such as one that repeats actions, makes another environment of it.
    formula = FORMULAS.get(type(env.unwrapped)) if is_plain(env) else None
    env.close()
    clipped = formula is not None and formula.clips and not meta.unclipped
    return formula is not None and not clipped and meta.obs_kept is None


def task_ends(meta: DatasetMeta) -> Callable[[np.ndarray], np.ndarray]:
    """Return the task's own rule of termination, as a function of observations [..., O].

    Args:
        meta: The description of a dataset for which `can_simulate` holds.

    Raises:
        EnvironmentUnsupported: If the observation does not determine the state.
    """
    check_simulable(meta)
    env = make_env(meta)
    task: Any = env.unwrapped
    formula = FORMULAS[type(task)]
    env.close()

    def ends(obs: np.ndarray) -> np.ndarray:
        flat = np.asarray(obs, np.float64).reshape(-1, obs.shape[-1])
        return formula.ended(task, *state_from_obs(env, flat)).reshape(obs.shape[:-1])

    return ends


@dataclass(frozen=True, eq=False)
class Played:
    """Hold what the simulator made of actions; what follows a divergence is NaN, or False.

    Attributes:
        obs: Observations after each action [B,H,O].
        reward: Rewards [B,H].
        terminated: Whether the task calls the state after each action terminal [B,H].
    """

    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


def simulate(meta: DatasetMeta, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Let the simulator predict the observations after each action [B,H,O] (see `play`)."""
    return play(meta, obs, actions).obs


def play(meta: DatasetMeta, obs: np.ndarray, actions: np.ndarray) -> Played:
    """Let the simulator predict: restart it from observations, and apply actions.

    The observation holds no warm start for the contact solver, so that the motion differs from the
    recorded one by rounding at first, and visibly after some hundred steps of a chaotic motion.
    Episodes do not end here; a row whose simulation diverges is NaN from that step on.

    Args:
        meta: The description of a dataset for which `can_simulate` holds.
        obs: Observations to start from [B,O].
        actions: Actions to apply [B,H,A].

    Returns:
        Observations, rewards and terminations; the task's settings are those of variant 0.

    Raises:
        EnvironmentUnsupported: If the observation does not determine the state.
    """
    check_simulable(meta)
    env = make_env(meta)
    env.reset(seed=0)
    task: Any = env.unwrapped
    formula = FORMULAS[type(task)]
    simulation = Simulation(task.model, task.frame_skip)
    start = full_state(task.model, task.data)
    qpos, qvel = state_from_obs(env, obs)
    first, split = task.model.nq + 1, task.model.nq + 1 + task.model.nv
    future = np.full((*actions.shape[:2], obs.shape[1]), np.nan)
    reward, ended = np.full(actions.shape[:2], np.nan), np.zeros(actions.shape[:2], bool)
    for row, sequence in enumerate(actions.astype(env.action_space.dtype, copy=False)):
        start[0], start[1:first], start[first:split] = 0, qpos[row], qvel[row]
        with quiet_mujoco():
            states, sound = simulation.run(start, np.zeros(task.model.nv), sequence)
        states = np.concatenate([start[None], states[:sound]])
        motion = formula.motion(
            task, states[:, 1:first], states[:, first:split], sequence[:sound], meta.unclipped
        )
        future[row, :sound], reward[row, :sound] = motion.obs[1:], motion.reward
        ended[row, :sound] = motion.terminated
    env.close()
    return Played(future, reward, ended)


def check_simulable(meta: DatasetMeta) -> None:
    """Refuse an environment that cannot be restarted from its observations.

    Raises:
        EnvironmentUnsupported: If `can_simulate` does not hold.
    """
    if not can_simulate(meta):
        remedy = "; collect it with unclipped=True" if meta.env_id in CLIPPED_IDS else ""
        raise EnvironmentUnsupported(
            f"the observations of {meta.env_id} (unclipped={meta.unclipped}, "
            f"obs_kept={meta.obs_kept}) do not determine the state of a simulator, or a wrapper "
            f"changes the task{remedy}"
        )
