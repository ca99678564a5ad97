"""Experience of one MuJoCo task with other gears and dampings, which the observation tells."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from loopwm.data.collect import collect
from loopwm.data.concat import concat
from loopwm.data.engine import mujoco
from loopwm.data.environment import make
from loopwm.data.spaces import angle_dims, obs_names
from loopwm.data.standard import shares
from loopwm.data.store import RolloutDataset
from loopwm.data.unclipped import CLIPPED_IDS
from loopwm.errors import ConfigError, EnvironmentUnsupported
from loopwm.seed import key

FACTORS = (0.7, 1.0, 1.4)
GRID = {f"gear {g:g}, damping {d:g}": (g, d) for g in FACTORS for d in FACTORS}
# One of every row and every column: each factor is trained on, these pairs of factors are not.
HELD_OUT = tuple(
    f"gear {g:g}, damping {d:g}" for g, d in zip(FACTORS, reversed(FACTORS), strict=True)
)


class Told(gym.ObservationWrapper):
    """Append constants to the observation.

    Args:
        env: Environment with a flat observation.
        constants: What is appended.
    """

    def __init__(self, env: gym.Env[Any, Any], constants: tuple[float, ...]) -> None:
        super().__init__(env)
        self._told = np.array(constants, np.float64)
        space = env.observation_space
        assert isinstance(space, Box)
        low, high = (np.concatenate([end, self._told]) for end in (space.low, space.high))
        self.observation_space = Box(low, high, dtype=np.float64)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return the observation with the constants behind it."""
        return np.concatenate([observation, self._told])


def varied(task: str, gear: float, damping: float, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make a MuJoCo task whose motors and joints are others.

    Args:
        task: Gymnasium id.
        gear: Factor on the gear of every actuator, positive.
        damping: Factor on the damping of every joint, positive.
        kwargs: Arguments for the environment.

    Raises:
        EnvironmentUnsupported: If the task has no MuJoCo model.
    """
    env = make(task, kwargs, task in CLIPPED_IDS)
    model: Any = getattr(env.unwrapped, "model", None)
    if not isinstance(model, mujoco.MjModel):
        raise EnvironmentUnsupported(
            f'{task} has no MuJoCo model; leave "models" out of shifts for it'
        )
    model.actuator_gear[:] *= gear
    model.dof_damping[:] *= damping
    return Told(env, (gear, damping))


def collect_grid(task: str, rows: int, seed: int, env_kwargs: Mapping[str, Any]) -> RolloutDataset:
    """Collect excitation of every combination of gear and damping, a part each.

    Args:
        task: Gymnasium id of a MuJoCo task; where falls end episodes, here they do not.
        rows: Number of rows, at least one for each combination.
        seed: Non-negative integer.
        env_kwargs: Arguments for the environment.

    Raises:
        ConfigError: If there are fewer rows than combinations.
    """
    if rows < len(GRID):
        raise ConfigError(f"{rows} rows are too few for {len(GRID)} combinations")
    more = {"terminate_when_unhealthy": False} if task in CLIPPED_IDS else {}
    datasets = []
    for index, ((gear, damping), count) in enumerate(
        zip(GRID.values(), shares(rows, len(GRID)), strict=True)
    ):
        own = int(key(seed, "grid", index).generate_state(1)[0])
        kwargs = {"task": task, "gear": gear, "damping": damping, **env_kwargs, **more}
        datasets.append(collect(varied, count, own, env_kwargs=kwargs, progress=False))
    mixture = concat(datasets, list(GRID))
    plain = make(task, env_kwargs, task in CLIPPED_IDS)
    names = obs_names(plain)
    meta = replace(
        mixture.meta,
        seed=seed,
        obs_names=None if names is None else (*names, "gear", "damping"),
        angles=angle_dims(plain),
    )
    plain.close()
    return replace(mixture, meta=meta)
