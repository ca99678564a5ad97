"""Collecting real experience in any Gymnasium environment with a flat observation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loopwm.core.settings import whole
from loopwm.data.ending import known_ending
from loopwm.data.engine import quiet_mujoco
from loopwm.data.environment import Source, describe, make, time_limit
from loopwm.data.episode import Episode, Task
from loopwm.data.fast import can_play_fast, play_fast
from loopwm.data.meta import DatasetMeta
from loopwm.data.parallel import play_in_processes
from loopwm.data.policy import Excitation, PolicyLike, as_policy
from loopwm.data.stepping import play_stepping
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, NumericalError

# So many episodes in a row without a single step to store mean that there is nothing to collect.
HOPELESS = 100


def collect(  # noqa: PLR0913 - the front door; all but the first two have defaults
    env_id: Source,
    steps: int,
    seed: int = 0,
    policy: PolicyLike | None = None,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    unclipped: bool = False,
    num_envs: int = 8,
    info_keys: Sequence[str] = (),
    workers: int = 1,
    progress: bool | None = None,
) -> RolloutDataset:
    """Collect real transitions; the same seed gives the same rows, however they are collected.

    Episode i of a collection depends on the environment, the policy, the seed and i alone, and the
    dataset is episodes 0, 1, 2, ... in order. Open-loop excitation of the tasks in
    `loopwm.data.fast.FAST_TASKS` runs without stepping Gymnasium, with equal results.

    Episodes of an environment that sets no time limit of its own are cut, as truncated, after
    `loopwm.data.environment.DEFAULT_TIME_LIMIT` steps; a function that makes it inside Gymnasium's
    `TimeLimit` sets another limit.

    Args:
        env_id: A Gymnasium id, or a function that makes an environment with a flat observation.
        steps: Number of rows wanted, at least 1; the last episode is cut there.
        seed: Non-negative integer.
        policy: What chooses the actions (see `loopwm.data.policy`): an excitation, a policy of
            Stable-Baselines3, or any function from observation to action. Default: `Excitation()`.
        env_kwargs: Arguments for the environment.
        unclipped: Observe velocities as simulated, where Hopper-v5 and Walker2d-v5 clip them.
        num_envs: Environments stepped side by side, at least 1.
        info_keys: Numbers in the environment's `info` to keep as columns, beside all whose name
            begins with "difficulty/".
        workers: Processes that collect, at least 1. With more than one, a script needs the usual
            `if __name__ == "__main__"`, and a function that makes environments must be importable.
        progress: Show a progress bar; by default where stderr is a terminal.

    Returns:
        A dataset of exactly `steps` rows. Episodes in which the simulation diverged, or an action,
        a reward or an observation was not finite, end before that step, and are counted by reason
        in `meta.dropped`.

    Raises:
        ConfigError: If an argument is out of range, or the environment is unknown.
        EnvironmentUnsupported: If the spaces of the environment are not supported.
        NumericalError: If episode after episode fails in its first step.
    """
    counts = {"steps": steps, "num_envs": num_envs, "workers": workers}
    steps, num_envs, workers = (at_least_one(name, value) for name, value in counts.items())
    seed = whole("seed", seed)
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}")
    if isinstance(info_keys, str):
        raise ConfigError(f"info_keys must be a sequence of names, such as ({info_keys!r},)")
    policy = Excitation() if policy is None else policy
    as_policy(policy)
    sample = make(env_id, env_kwargs, unclipped)
    meta = describe(env_id, sample, env_kwargs or {}, unclipped)
    meta = replace(meta, seed=seed, policy=policy_name(policy))
    limit = time_limit(sample)
    task = Task(env_id, meta.env_kwargs, unclipped, seed, policy, limit, tuple(info_keys))
    with quiet_mujoco():
        episodes = _play(task, sample, steps, num_envs, workers)
        if progress or (progress is None and Console(stderr=True).is_terminal):
            episodes = _shown(episodes, steps, meta.env_id)
        return known_ending(assemble(episodes, steps, meta, task.info_keys), sample)


def policy_name(policy: PolicyLike) -> str:
    """Return what a dataset calls the policy that chose its actions."""
    if hasattr(policy, "__dataclass_fields__"):
        return repr(policy)
    return getattr(policy, "__qualname__", type(policy).__qualname__)


def _play(
    task: Task, sample: gym.Env[Any, Any], steps: int, num_envs: int, workers: int
) -> Iterator[Episode]:
    fast = can_play_fast(task, sample)
    sample.close()
    if workers > 1:
        return play_in_processes(task, steps, num_envs, workers, fast)
    if fast:
        return play_fast(task, 0, None, steps)
    return play_stepping(task, 0, None, steps, num_envs)


def _shown(episodes: Iterable[Episode], steps: int, name: str) -> Iterator[Episode]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        line = bar.add_task(f"collecting {name}", total=steps)
        for episode in episodes:
            bar.advance(line, len(episode))
            yield episode


def assemble(
    episodes: Iterable[Episode], steps: int, meta: DatasetMeta, info_keys: Sequence[str] = ()
) -> RolloutDataset:
    """Put episodes into one dataset.

    Args:
        episodes: Episodes in order, with `steps` steps at least.
        steps: Number of rows wanted.
        meta: What is known of the origin; the counts of cut episodes are added.
        info_keys: Columns that must be there.

    Returns:
        A dataset of exactly `steps` rows.

    Raises:
        ConfigError: If a column was never reported.
        NumericalError: If episode after episode has no step to store.
    """
    kept, dropped = _keep(episodes, steps, meta)
    lengths = [len(episode) for episode in kept]
    last = np.cumsum(lengths) - 1
    flags = {name: np.zeros(steps, bool) for name in ("terminated", "truncated")}
    for name, flag in flags.items():
        flag[last] = [getattr(episode, name) for episode in kept]
    return RolloutDataset(
        obs=np.concatenate([episode.obs[:-1] for episode in kept]),
        next_obs=np.concatenate([episode.obs[1:] for episode in kept]),
        action=np.concatenate([episode.action for episode in kept]),
        reward=np.concatenate([episode.reward for episode in kept]),
        episode=np.repeat(np.arange(len(kept)), lengths),
        info=_info(kept, info_keys),
        meta=replace(meta, dropped=dropped),
        **flags,
    )


def _keep(
    episodes: Iterable[Episode], steps: int, meta: DatasetMeta
) -> tuple[list[Episode], dict[str, int]]:
    """Return the episodes that make up `steps` rows, and how many were cut for which reason."""
    kept: list[Episode] = []
    dropped: dict[str, int] = {}
    missing, fruitless = steps, 0
    for episode in episodes:
        if episode.fault and len(episode) < missing:
            dropped[episode.fault] = dropped.get(episode.fault, 0) + 1
        fruitless = 0 if len(episode) else fruitless + 1
        if fruitless == HOPELESS:
            raise NumericalError(
                f"{HOPELESS} episodes of {meta.env_id} in a row failed in their first step "
                f"({dropped}); check the environment and the policy {meta.policy}"
            )
        if len(episode):
            kept.append(episode.cut(missing))
            missing -= len(kept[-1])
        if missing <= 0:
            break
    return kept, dropped


def _info(kept: Sequence[Episode], info_keys: Sequence[str]) -> dict[str, np.ndarray]:
    names = sorted({name for episode in kept for name in episode.info})
    unknown = [name for name in info_keys if name not in names]
    if unknown:
        raise ConfigError(
            f"info_keys {unknown} never appeared as numbers in the environment's info"
        )
    return {
        name: np.concatenate(
            [episode.info.get(name, np.full(len(episode), np.nan)) for episode in kept]
        )
        for name in names
    }


def at_least_one(name: str, value: Any) -> int:
    """Return a count as a whole number of Python's, or refuse it.

    Raises:
        ConfigError: If it is no whole number from 1 up.
    """
    if (count := whole(name, value)) < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}")
    return count
