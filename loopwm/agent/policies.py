"""Train the policies whose rollouts the standard mixture is made of (behind the extra `agent`)."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loopwm.agent.sac import PRESETS, PolicyTraining, actor_of, make_task, soft_actor_critic
from loopwm.data.actor import STAGES, Actor, ActorInfo, Stage
from loopwm.data.engine import quiet_mujoco
from loopwm.data.environment import time_limit
from loopwm.data.unclipped import CLIPPED_IDS
from loopwm.errors import ConfigError
from loopwm.seed import key

_PACKAGES = ("gymnasium", "mujoco", "stable_baselines3", "torch")

# Shares of the way from the untrained to the best return that early and middle are to have.
_SHARES = (0.25, 0.6)


@dataclass(frozen=True)
class Snapshot:
    """Keep an actor as it was at one evaluation.

    Attributes:
        actor: The actor; its stage is not decided yet.
        mean_return: Mean return of its deterministic actions in this evaluation.
    """

    actor: Actor
    mean_return: float


def train_policies(
    env_id: str,
    seeds: Sequence[int] = (0, 1, 2, 3),
    steps: int = 80_000,
    out: Path | str = "actors",
    *,
    config: PolicyTraining | None = None,
    progress: bool | None = None,
) -> list[Path]:
    """Train a policy per seed and write its actor early, middle and late in its return.

    Hopper-v5 and Walker2d-v5 are observed with unclipped velocities. Stable-Baselines3 seeds the
    global random generators.

    Args:
        env_id: Gymnasium id of a task with a Box observation and a bounded Box action.
        seeds: Training seeds; see `loopwm.data.actor.split_of` for what each is used for.
        steps: Environment steps of each training.
        out: Directory; actors go to `<env id in lower case>/seed<k>-<stage>.safetensors` below it.
        config: How to train; by default that of `loopwm.agent.sac.PRESETS`, or for other tasks
            `PolicyTraining()`, which takes about six minutes of one core per seed.
        progress: Show a progress bar; by default where stderr is a terminal.

    Returns:
        The files written, three for each seed.

    Raises:
        MissingExtra: If Stable-Baselines3 is not installed.
        ConfigError: If there is no seed, one is negative, or `steps` is too small for the
            evaluations asked for.
        EnvironmentUnsupported: If the task's spaces are not supported.
        StoreError: If an actor cannot be written.
    """
    config = PRESETS.get(env_id, PolicyTraining()) if config is None else config
    if not seeds or min(seeds) < 0:
        raise ConfigError(f"seeds must be at least one number that is not negative, got {seeds}")
    if steps < config.evaluations * config.num_envs:
        raise ConfigError(
            f"steps must be at least evaluations * num_envs = "
            f"{config.evaluations * config.num_envs}, got {steps}"
        )
    paths = []
    with _progress(env_id, len(seeds) * steps, progress) as advance, _one_thread(), quiet_mujoco():
        for seed in seeds:
            snapshots = _train(env_id, seed, steps, config, advance)
            settings = {"algorithm": "SAC", "steps": steps, **dataclasses.asdict(config)}
            paths += _write(choose(snapshots), settings, config.final_episodes, Path(out))
    return paths


def choose(snapshots: Sequence[Snapshot]) -> dict[Stage, Snapshot]:
    """Choose the early, the middle and the late snapshot of one training by their return.

    Late is the best one; early and middle are those whose return is nearest to a quarter and to
    three fifths of the way from the first return to the best. Returns jump and fall back during
    training, so this is an order of strength, not always of time.

    Args:
        snapshots: At least three, in the order of training, the untrained actor first.

    Returns:
        Three different snapshots, early no better than middle, middle no better than late.
    """
    returns = np.array([each.mean_return for each in snapshots])
    late = int(np.argmax(returns))
    share = (returns - returns[0]) / max(returns[late] - returns[0], 1e-6)
    chosen = [late]
    for wanted in _SHARES:
        distance = np.abs(share - wanted)
        distance[chosen] = np.inf
        chosen.append(int(np.argmin(distance)))
    ranked = [*sorted(chosen[1:], key=lambda index: returns[index]), late]
    return {stage: snapshots[index] for stage, index in zip(STAGES, ranked, strict=True)}


def returns_of(actor: Actor, episodes: int, seed: int) -> np.ndarray:
    """Measure the returns of an actor's deterministic actions in its own task.

    Args:
        actor: The actor.
        episodes: Number of episodes.
        seed: Seed of the initial states.

    Returns:
        The undiscounted return of each episode [episodes].
    """
    env = make_task(actor.info.env_id)
    totals = np.zeros(episodes)
    for episode in range(episodes):
        start = int(key(seed, actor.info.env_id, "evaluate", episode).generate_state(1)[0])
        obs, _ = env.reset(seed=start)
        for _ in range(time_limit(env)):
            obs, reward, terminated, truncated, _ = env.step(actor(obs))
            totals[episode] += float(reward)
            if terminated or truncated:
                break
    env.close()
    return totals


def _train(
    env_id: str,
    seed: int,
    steps: int,
    config: PolicyTraining,
    advance: Callable[[int, str], None],
) -> list[Snapshot]:
    model = soft_actor_critic(env_id, seed, config)
    snapshots = [_snapshot(model, env_id, seed, config.episodes)]

    def report(*_: Any) -> bool:
        advance(config.num_envs, f"seed {seed}, return {snapshots[-1].mean_return:.0f}")
        return True

    for evaluation in range(1, config.evaluations + 1):
        until = steps * evaluation // config.evaluations
        model.learn(until - model.num_timesteps, callback=report, reset_num_timesteps=False)
        snapshots.append(_snapshot(model, env_id, seed, config.episodes))
    return snapshots


def _snapshot(model: Any, env_id: str, seed: int, episodes: int) -> Snapshot:
    info = ActorInfo(
        env_id=env_id,
        seed=seed,
        stage="early",
        step=model.num_timesteps,
        mean_return=0.0,
        return_std=0.0,
        episodes=0,
        unclipped=env_id in CLIPPED_IDS,
    )
    actor = actor_of(model, info)
    return Snapshot(actor, float(returns_of(actor, episodes, seed).mean()))


def _write(
    chosen: dict[Stage, Snapshot], settings: dict[str, Any], episodes: int, out: Path
) -> list[Path]:
    paths = []
    for stage, snapshot in chosen.items():
        actor, info = snapshot.actor, snapshot.actor.info
        # Other episodes than those it was chosen by, so that the best is not flattered.
        returns = returns_of(actor, episodes, info.seed + 1_000_000)
        info = dataclasses.replace(
            info,
            stage=stage,
            mean_return=round(float(returns.mean()), 1),
            return_std=round(float(returns.std()), 1),
            episodes=episodes,
            training=settings,
            versions={name: metadata.version(name) for name in _PACKAGES},
        )
        paths.append(out / info.filename)
        Actor(actor.weights, actor.low, actor.high, info).save(paths[-1])
    return paths


@contextmanager
def _progress(env_id: str, total: int, show: bool | None) -> Iterator[Callable[[int, str], None]]:
    console = Console(stderr=True)
    shown = console.is_terminal if show is None else show
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task(env_id, total=total)
        yield lambda steps, note: bar.update(task, advance=steps, description=f"{env_id}, {note}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: networks this small are slower on more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
