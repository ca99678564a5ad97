"""Which spaces are supported, and what their dimensions are called."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.wrappers import FlattenObservation, MaxAndSkipObservation

from loopwm.data.engine import mujoco
from loopwm.data.unclipped import UnclippedState
from loopwm.errors import EnvironmentUnsupported


def check_spaces(observation: gym.Space[Any], action: gym.Space[Any], name: str) -> None:
    """Refuse an environment whose observation or action cannot be a row of numbers.

    Args:
        observation: Its observation space.
        action: Its action space.
        name: What to call it.

    Raises:
        EnvironmentUnsupported: Naming the space and the remedy.
    """
    _check_observation(observation, name)
    if isinstance(action, Discrete):
        if action.start != 0:
            raise EnvironmentUnsupported(
                f"{name}: the action space {action} must count from 0; "
                "shift it with gymnasium.wrappers.TransformAction in a factory"
            )
    elif not (isinstance(action, Box) and len(action.shape) == 1 and action.dtype.kind == "f"):
        raise EnvironmentUnsupported(
            f"{name}: the action space {action} is neither a flat Box of floats nor Discrete; "
            "convert it with gymnasium.wrappers.TransformAction in a factory"
        )


def action_bounds(action: gym.Space[Any]) -> dict[str, Any]:
    """Return the fields of `DatasetMeta` that describe an action space."""
    if isinstance(action, Discrete):
        return {"num_actions": int(action.n)}
    assert isinstance(action, Box)
    bounds = {"action_low": action.low, "action_high": action.high}
    return {name: tuple(map(float, bound)) for name, bound in bounds.items()}


def obs_names(env: gym.Env[Any, Any]) -> tuple[str, ...] | None:
    """Return a name for each dimension of a flattened observation, where they are known.

    A wrapper that changes the observation may put anything anywhere: nothing is known then.
    """
    if _rewritten(env):
        return None
    structure = getattr(env.unwrapped, "observation_structure", None)
    names = None
    if isinstance(structure, dict):
        names = _mujoco_names(env.unwrapped, structure)
    elif isinstance(env.unwrapped.observation_space, Dict):
        names = _dict_names(env.unwrapped.observation_space.spaces)
    shape = env.observation_space.shape
    return tuple(names) if names is not None and shape == (len(names),) else None


def angle_dims(env: gym.Env[Any, Any]) -> tuple[int, ...]:
    """Return the observation dimensions that are angles of MuJoCo hinges without limit."""
    names = obs_names(env)
    model: Any = getattr(env.unwrapped, "model", None)
    if names is None or not isinstance(model, mujoco.MjModel):
        return ()
    free = {
        model.joint(index).name
        for index in range(model.njnt)
        if model.jnt_type[index] == mujoco.mjtJoint.mjJNT_HINGE and not model.jnt_limited[index]
    }
    return tuple(place for place, name in enumerate(names) if name in free)


def _rewritten(env: gym.Env[Any, Any]) -> bool:
    """Say whether a wrapper makes something else of the environment's own observation."""
    layer = env
    while isinstance(layer, gym.Wrapper):
        if not isinstance(layer, UnclippedState | FlattenObservation) and (
            isinstance(layer, gym.ObservationWrapper | MaxAndSkipObservation)
            or layer._observation_space is not None
        ):
            return True
        layer = layer.env
    return False


def _check_observation(space: gym.Space[Any], name: str) -> None:
    if isinstance(space, Dict):
        for key, each in space.spaces.items():
            if _is_image(each):
                raise EnvironmentUnsupported(
                    f"{name}: the observation {key!r} is an image, {each}; images are not "
                    "supported yet, drop it with gymnasium.wrappers.FilterObservation in a factory"
                )
        if space.is_np_flattenable:
            return
    elif isinstance(space, Box) and len(space.shape) == 1 and space.shape[0] > 0:
        return
    if _is_image(space):
        raise EnvironmentUnsupported(
            f"{name}: the observation space {space} is an image; images are not supported yet, "
            "use an environment or a wrapper that observes a flat state"
        )
    raise EnvironmentUnsupported(
        f"{name}: the observation space {space} is neither a flat Box nor a Dict of Boxes; "
        "flatten it with gymnasium.wrappers.FlattenObservation in a factory"
    )


def _is_image(space: gym.Space[Any]) -> bool:
    if not isinstance(space, Box):
        return False
    return len(space.shape) > 2 or (len(space.shape) == 2 and space.dtype == np.uint8)


def _mujoco_names(task: Any, structure: dict[str, int]) -> list[str] | None:
    """Name positions after joints and velocities after the joint they belong to."""
    positions, velocities = [], []
    for index in range(task.model.njnt):
        joint = task.model.joint(index)
        name = joint.name or f"joint {index}"
        for names, size in ((positions, len(joint.qpos0)), (velocities, len(joint.damping))):
            names += [name] if size == 1 else [f"{name}[{place}]" for place in range(size)]
    blocks = {
        "qpos": positions[structure.get("skipped_qpos", 0) :],
        "qvel": [f"d {name}/dt" for name in velocities],
    }
    names = []
    for key, size in structure.items():
        if not key.startswith("skipped"):
            names += blocks.get(key, [f"{key}[{place}]" for place in range(size)])
    return names


def _dict_names(spaces: Mapping[str, gym.Space[Any]], prefix: str = "") -> list[str]:
    names = []
    for key, each in spaces.items():
        if isinstance(each, Dict):
            names += _dict_names(each.spaces, f"{prefix}{key}.")
        else:
            size = gym.spaces.flatdim(each)
            places = [""] if size == 1 else [f"[{place}]" for place in range(size)]
            names += [f"{prefix}{key}{place}" for place in places]
    return names
