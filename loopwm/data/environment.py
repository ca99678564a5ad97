"""Making environments, and describing them for the datasets collected in them."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import FlattenObservation, TimeLimit, TransformObservation

from loopwm.data.clock import seconds_per_step
from loopwm.data.engine import quiet_mujoco
from loopwm.data.meta import DatasetMeta, package_versions
from loopwm.data.registration import register
from loopwm.data.spaces import action_bounds, angle_dims, check_spaces, obs_names
from loopwm.data.unclipped import UnclippedState
from loopwm.errors import ConfigError, EnvironmentUnsupported, LoopwmError

Source: TypeAlias = str | Callable[..., gym.Env[Any, Any]]

# `loopwm collect` uses no name of the package, and that is what registers otherwise.
register()

# Episodes of an environment that sets no limit end here, so that every episode ends.
DEFAULT_TIME_LIMIT = 1000


def make(
    source: Source, env_kwargs: Mapping[str, Any] | None = None, unclipped: bool = False
) -> gym.Env[Any, Any]:
    """Make an environment whose observation is one row of numbers.

    Args:
        source: A Gymnasium id, "module:Name-v0" where a module registers it, or a function that
            makes an environment.
        env_kwargs: Arguments for the environment.
        unclipped: Observe velocities as simulated where the task would clip them.

    Raises:
        ConfigError: If the id is unknown, with close matches, or malformed, its module cannot be
            imported, or the arguments do not fit.
        EnvironmentUnsupported: If its spaces are not supported, or it cannot be made here.
    """
    name = source_name(source)
    with quiet_mujoco():
        env = _make(source, name, dict(env_kwargs or {}))
    check_spaces(env.observation_space, env.action_space, name)
    if unclipped:
        env = UnclippedState(env)
    if isinstance(env.observation_space, Dict):
        env = FlattenObservation(env)
    return env


def make_env(
    meta: DatasetMeta, *, factory: Callable[..., gym.Env[Any, Any]] | None = None, **overrides: Any
) -> gym.Env[Any, Any]:
    """Make the environment of a dataset again, with the same observation.

    Args:
        meta: The description of the dataset.
        factory: What made the environment, where it was not a Gymnasium id.
        overrides: Arguments that replace or complete the recorded ones, such as `render_mode`.

    Raises:
        ConfigError: If the environment is not registered; import the package that does so.
    """
    # An id that names its module is registered by importing that.
    known = ":" in meta.env_id or meta.env_id in gym.registry
    if factory is None and not known:
        raise ConfigError(
            f"{meta.env_id!r} is not a registered environment; import the package that registers "
            "it first, or pass factory="
        )
    env = make(factory or meta.env_id, meta.settings() | overrides, meta.unclipped)
    return env if meta.obs_kept is None else _keep(env, meta.obs_kept)


def source_name(source: Source) -> str:
    """Return the id of an environment, or the name of the function that makes it."""
    if isinstance(source, str):
        return source
    if callable(source):
        name = getattr(source, "__qualname__", type(source).__qualname__)
        return f"{getattr(source, '__module__', '')}.{name}"
    raise ConfigError(
        f"env must be a Gymnasium id or a function that makes an environment, got {source!r}"
        + ("; pass a function, so that copies can be made" * isinstance(source, gym.Env))
    )


def describe(
    source: Source, env: gym.Env[Any, Any], env_kwargs: Mapping[str, Any], unclipped: bool
) -> DatasetMeta:
    """Return what a dataset collected in an environment says about it.

    Args:
        source: What the environment was made from.
        env: The environment.
        env_kwargs: The arguments that it was made with.
        unclipped: Whether velocities are observed as simulated.
    """
    return DatasetMeta(
        env_id=_full_id(source, env),
        env_kwargs=dict(env_kwargs),
        unclipped=unclipped,
        versions=package_versions(),
        **action_bounds(env.action_space),
        obs_names=obs_names(env),
        angles=angle_dims(env),
        dt=seconds_per_step(env, lambda: make(source, env_kwargs, unclipped)),
    )


def time_limit(env: gym.Env[Any, Any]) -> int:
    """Return the most steps that an episode can have, by default `DEFAULT_TIME_LIMIT`."""
    layer = env
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, TimeLimit):
            return layer._max_episode_steps
        layer = layer.env
    limit = env.spec.max_episode_steps if env.spec is not None else None
    return limit or DEFAULT_TIME_LIMIT


def _full_id(source: Source, env: gym.Env[Any, Any]) -> str:
    """Return the id with its version, and with the module that has to be imported for it."""
    if not isinstance(source, str) or env.spec is None:
        return source_name(source)
    module, colon, _ = source.rpartition(":")
    return f"{module}{colon}{env.spec.id}"


def _make(source: Source, name: str, env_kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    try:
        if isinstance(source, str):
            # The checker's warnings are about how an environment is written, not how it is used.
            return gym.make(source, disable_env_checker=True, **env_kwargs)
        env = source(**env_kwargs)
    except gym.error.UnregisteredEnv as error:
        raise ConfigError(f"there is no environment {name!r}{_matches(name)}") from error
    except (gym.error.DependencyNotInstalled, gym.error.DeprecatedEnv) as error:
        raise EnvironmentUnsupported(f"{name} cannot be made: {error}") from error
    except LoopwmError:
        raise
    except (gym.error.Error, ImportError) as error:
        raise ConfigError(
            f"env={name!r} cannot be made: {error}; give a Gymnasium id such as Hopper-v5, or "
            "module:Name-v0 where an installed module registers it"
        ) from error
    except Exception as error:
        if not env_kwargs:
            raise
        # What the arguments led the environment into.
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{name} does not accept env_kwargs={env_kwargs}: {reason}") from error
    if not isinstance(env, gym.Env):
        raise EnvironmentUnsupported(f"{name} returned {type(env).__name__}, not a gymnasium.Env")
    return env


def _matches(name: str) -> str:
    known = {each.lower(): each for each in gym.registry}
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(known[each] for each in close)}?" if close else ""


def _keep(env: gym.Env[Any, Any], kept: tuple[int, ...]) -> gym.Env[Any, Any]:
    space, places = env.observation_space, np.array(kept)
    assert isinstance(space, Box)
    fewer = Box(space.low[places], space.high[places], dtype=space.dtype.type)
    return TransformObservation(env, lambda obs: obs[places], fewer)
