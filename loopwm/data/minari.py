"""Exchange of datasets with Minari, bit for bit both ways."""

import copy
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from loopwm.data.engine import quiet_mujoco
from loopwm.data.environment import describe, make
from loopwm.data.flatten import flatten_rows
from loopwm.data.meta import DatasetMeta, package_versions
from loopwm.data.spaces import action_bounds, check_spaces
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError, require

if TYPE_CHECKING:
    import minari

# The entry of a Minari dataset's metadata that holds ours.
ENTRY = "loopwm"


def from_minari(source: "str | minari.MinariDataset") -> RolloutDataset:
    """Import a Minari dataset.

    Observations that are a Dict are flattened as Gymnasium's FlattenObservation does. Numbers in
    `infos` become columns, nested names joined by "/". Where the environment is registered here
    and observes the same, angles, time step and names come from it.

    Args:
        source: A Minari dataset, or the id of one on this machine.

    Returns:
        All episodes, in order; what `to_minari` exported comes back as it was.

    Raises:
        MissingExtra: If Minari is not installed.
        ConfigError: If there is no such dataset.
        EnvironmentUnsupported: If observations or actions are no rows of numbers.
        DataError: If the data are no flat rollouts of finite numbers.
    """
    dataset: Any = _load(source) if isinstance(source, str) else source
    space = dataset.observation_space
    check_spaces(space, dataset.action_space, dataset.spec.dataset_id)
    episodes = list(dataset.iterate_episodes())
    if not episodes:
        raise DataError(f"the Minari dataset {dataset.spec.dataset_id} has no episodes")
    obs = [_flat(space, each.observations, len(each)) for each in episodes]
    data = RolloutDataset.from_arrays(
        obs=np.concatenate([each[:-1] for each in obs]),
        next_obs=np.concatenate([each[1:] for each in obs]),
        action=np.concatenate([_actions(dataset.action_space, each.actions) for each in episodes]),
        reward=np.concatenate([each.rewards for each in episodes]),
        terminated=np.concatenate([each.terminations for each in episodes]),
        truncated=np.concatenate([each.truncations for each in episodes]),
        episode=np.repeat(np.arange(len(episodes)), [len(each) for each in episodes]),
        meta=_meta(dataset),
    )
    return replace(data, info=_info(episodes))


def to_minari(dataset: RolloutDataset, dataset_id: str, **options: Any) -> "minari.MinariDataset":
    """Export a dataset to Minari's own folder (`MINARI_DATASETS_PATH`).

    Args:
        dataset: What to export.
        dataset_id: A name such as "mine/hopper-v0".
        options: Further arguments of `minari.create_dataset_from_buffers`, such as `author`.

    Returns:
        The Minari dataset.

    Raises:
        MissingExtra: If Minari is not installed.
        ConfigError: If the name is malformed or taken.
    """
    minari: Any = require("minari", "data")
    buffers = require("minari.data_collector", "data")
    require("h5py", "data")
    meta, spec, bounds = dataset.meta, _env_spec(dataset.meta), dataset.bounds.tolist()
    described = {
        "algorithm_name": meta.policy or "unknown",
        "description": f"{dataset!r}, exported by loopwm",
        # Empty rather than missing, about which Minari would warn.
        "author": set(),
        "author_email": set(),
        "code_permalink": "",
    }
    try:
        with quiet_mujoco():
            exported = minari.create_dataset_from_buffers(
                dataset_id,
                [
                    _buffer(dataset, index, start, end, buffers)
                    for index, (start, end) in enumerate(pairwise(bounds))
                ],
                env=spec,
                eval_env=spec,
                observation_space=_obs_space(dataset),
                action_space=_action_space(dataset),
                **(described | options),
            )
    except ValueError as error:
        raise ConfigError(f"Minari refuses the dataset {dataset_id!r}: {error}") from error
    exported.storage.update_metadata({ENTRY: meta.to_json()})
    return exported


def _load(dataset_id: str) -> Any:
    minari: Any = require("minari", "data")
    require("h5py", "data")
    try:
        return minari.load_dataset(dataset_id)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(
            f"there is no Minari dataset {dataset_id!r} on this machine ({error}); "
            f"fetch it with: minari download {dataset_id}"
        ) from error


def _flat(space: gym.Space[Any], observations: Any, steps: int) -> np.ndarray:
    if isinstance(space, Dict):
        return flatten_rows(space, observations, steps + 1)
    values = np.asarray(observations)
    if len(values) != steps + 1:
        raise DataError(f"an episode of {steps} steps has {len(values)} observations")
    return values


def _actions(space: gym.Space[Any], actions: Any) -> np.ndarray:
    values = np.asarray(actions)
    return values.reshape(len(values)).astype(np.int64) if isinstance(space, Discrete) else values


def _info(episodes: list[Any]) -> dict[str, np.ndarray]:
    """Return the numbers that every episode reports at each step."""
    columns = [_numbers(each.infos or {}, len(each)) for each in episodes]
    names = [name for name in columns[0] if all(name in each for each in columns)]
    return {name: np.concatenate([each[name] for each in columns]) for name in names}


def _numbers(infos: Mapping[str, Any], steps: int, prefix: str = "") -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, value in infos.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, steps, f"{prefix}{name}/")
            continue
        values = np.asarray(value)
        # Minari's own collector has an entry more than steps, the first of which is of the reset.
        if values.ndim and len(values) in (steps, steps + 1) and values.dtype.kind in "biuf":
            found[f"{prefix}{name}"] = values[len(values) - steps :]
    return found


def _meta(dataset: Any) -> DatasetMeta:
    stored = dataset.storage.metadata
    if ENTRY in stored:
        return DatasetMeta.from_json(stored[ENTRY])
    spec = dataset.env_spec
    return DatasetMeta(
        env_id=spec.id if spec else "",
        env_kwargs=dict(spec.kwargs) if spec else {},
        policy=f"{dataset.spec.dataset_id} ({stored.get('algorithm_name', 'unknown policy')})",
        versions=package_versions() | {"minari": dataset.spec.minari_version},
        **action_bounds(dataset.action_space),
        **({} if spec is None else _observed(spec, dataset.observation_space)),
    )


def _observed(spec: Any, space: gym.Space[Any]) -> dict[str, Any]:
    """Return what only the environment tells of its observations, nothing where it is not here."""
    # A wrapper may put anything anywhere; and no code is run that the file names, but only what
    # is registered.
    if spec.id not in gym.registry or spec.additional_wrappers:
        return {}
    env_kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    try:
        env = make(spec.id, env_kwargs)
    except Exception:
        # Others may have had another version of it, or what it needs.
        return {}
    with closing(env):
        if not _same_layout(env.unwrapped.observation_space, space):
            return {}
        told = describe(spec.id, env, env_kwargs, unclipped=False)
    return {"angles": told.angles, "dt": told.dt, "obs_names": told.obs_names}


def _same_layout(one: gym.Space[Any], two: gym.Space[Any]) -> bool:
    """Say whether two spaces have the same parts in the same order, whatever their bounds."""
    if isinstance(one, Dict) and isinstance(two, Dict):
        return list(one) == list(two) and all(_same_layout(one[name], two[name]) for name in one)
    return type(one) is type(two) and one.shape == two.shape


def _env_spec(meta: DatasetMeta) -> Any:
    # An id may name the module that registers it, which the registry leaves out.
    env_id = meta.env_id.rpartition(":")[2]
    if env_id not in gym.registry:
        return None
    spec = copy.deepcopy(gym.spec(env_id))
    settings = meta.settings()
    spec.max_episode_steps = settings.pop("max_episode_steps", spec.max_episode_steps)
    spec.kwargs.update(settings)
    return spec


def _buffer(dataset: RolloutDataset, index: int, start: int, end: int, buffers: Any) -> Any:
    rows = slice(start, end)
    return buffers.EpisodeBuffer(
        id=index,
        observations=np.concatenate([dataset.obs[rows], dataset.next_obs[end - 1 : end]]),
        actions=dataset.action[rows],
        rewards=dataset.reward[rows],
        terminations=dataset.terminated[rows],
        truncations=dataset.truncated[rows],
        infos={name: column[rows] for name, column in dataset.info.items()},
    )


def _obs_space(dataset: RolloutDataset) -> Box:
    kind = dataset.obs.dtype
    limits = np.iinfo(kind) if kind.kind in "iu" else None
    low, high = (limits.min, limits.max) if limits else (-np.inf, np.inf)
    return Box(low, high, (dataset.obs_dim,), kind.type)


def _action_space(dataset: RolloutDataset) -> gym.Space[Any]:
    if dataset.discrete:
        return Discrete(dataset.action_dim)
    kind, shape = dataset.action.dtype.type, (dataset.action_dim,)
    low = -np.inf if dataset.meta.action_low is None else np.array(dataset.meta.action_low, kind)
    high = np.inf if dataset.meta.action_high is None else np.array(dataset.meta.action_high, kind)
    return Box(low, high, shape, kind)
