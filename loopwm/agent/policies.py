"""Train the policies whose rollouts the standard mixture is made of (behind the extra `agent`)."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from loopwm.data.actor import STAGES, Actor, ActorInfo, Stage
from loopwm.data.unclipped import CLIPPED_IDS, UnclippedState
from loopwm.errors import ConfigError, EnvironmentUnsupported, require
from loopwm.seed import key

# Shares of the way from the untrained to the best return at which the stages are taken.
_SHARES = {"early": 0.25, "middle": 0.6}


@dataclass(frozen=True)
class PolicyTraining:
    """Set how a policy is trained by soft actor-critic (arXiv 1812.05905).

    Small networks and one update for two steps: a run is to take minutes of one core, and the
    policies are a source of varied data, not the best that could be had.

    Attributes:
        num_envs: Environments that are stepped together.
        updates_per_step: Gradient updates per environment step.
        batch_size: Transitions per update.
        learning_rate: Step size of all three optimisers.
        learning_starts: Environment steps of random actions at the beginning.
        actor: Widths of the actor's hidden layers.
        critic: Widths of the critics' hidden layers.
        evaluations: How often the policy is evaluated and kept as a candidate.
        episodes: Episodes of each evaluation on the way.
        final_episodes: Fresh episodes on which a chosen actor's return is measured.
    """

    num_envs: int = 8
    updates_per_step: float = 0.5
    batch_size: int = 128
    learning_rate: float = 1e-3
    learning_starts: int = 2_000
    actor: tuple[int, ...] = (64, 64)
    critic: tuple[int, ...] = (128, 128)
    evaluations: int = 24
    episodes: int = 5
    final_episodes: int = 20

    def __post_init__(self) -> None:
        """Refuse settings that cannot be trained with."""
        if self.evaluations < 3:
            raise ConfigError(
                f"evaluations must be at least 3, one for each stage, got {self.evaluations}"
            )
        if self.num_envs * self.updates_per_step < 1:
            raise ConfigError(
                "num_envs * updates_per_step must be at least 1, got "
                f"{self.num_envs} * {self.updates_per_step}"
            )


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
        config: How to train; the defaults take about six minutes of one core per seed.
        progress: Whether to show a progress bar; by default, if the output is a terminal.

    Returns:
        The files written, three for each seed.

    Raises:
        MissingExtra: If Stable-Baselines3 is not installed.
        ConfigError: If `steps` is too small for the evaluations asked for.
        EnvironmentUnsupported: If the task's spaces are not supported.
    """
    config = PolicyTraining() if config is None else config
    if steps < config.evaluations * config.num_envs:
        raise ConfigError(
            f"steps must be at least evaluations * num_envs = "
            f"{config.evaluations * config.num_envs}, got {steps}"
        )
    require("stable_baselines3", "agent")
    _check_spaces(env_id)
    show = sys.stderr.isatty() if progress is None else progress
    paths = []
    with _progress(env_id, len(seeds) * steps, show) as advance, _one_thread():
        for seed in seeds:
            snapshots = _train(env_id, seed, steps, config, advance)
            paths += _write(choose(snapshots), env_id, seed, config, Path(out))
    return paths


def choose(snapshots: Sequence[Snapshot]) -> dict[Stage, Snapshot]:
    """Choose the early, the middle and the late snapshot of one training by their return.

    Late is the best one; early and middle are those before it whose return is nearest to a
    quarter and to three fifths of the way from the first return to the best.

    Args:
        snapshots: At least three, in the order of training, the untrained actor first.

    Returns:
        Three different snapshots, early no better than middle, middle no better than late.
    """
    returns = np.array([each.mean_return for each in snapshots])
    late = 2 + int(np.argmax(returns[2:]))
    span = max(returns[late] - returns[0], 1e-6)
    share = (returns[:late] - returns[0]) / span
    early = int(np.argmin(np.abs(share - _SHARES["early"])))
    distance = np.abs(share - _SHARES["middle"])
    distance[early] = np.inf
    early, middle = sorted((early, int(np.argmin(distance))), key=lambda i: returns[i])
    return {
        stage: snapshots[index] for stage, index in zip(STAGES, (early, middle, late), strict=True)
    }


def returns_of(actor: Actor, episodes: int, seed: int) -> np.ndarray:
    """Measure the returns of an actor's deterministic actions in its own task.

    Args:
        actor: The actor.
        episodes: Number of episodes.
        seed: Seed of the initial states.

    Returns:
        The undiscounted return of each episode [episodes].
    """
    env = _make(actor.info.env_id)
    totals = np.zeros(episodes)
    for episode in range(episodes):
        start = int(key(seed, actor.info.env_id, "evaluate", episode).generate_state(1)[0])
        obs, _ = env.reset(seed=start)
        over = False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(actor(obs))
            totals[episode] += float(reward)
            over = terminated or truncated
    env.close()
    return totals


def _train(
    env_id: str,
    seed: int,
    steps: int,
    config: PolicyTraining,
    advance: Callable[[int], None],
) -> list[Snapshot]:
    model = _soft_actor_critic(env_id, seed, config)
    snapshots = [_snapshot(model, env_id, seed, config)]

    def report(local: dict[str, Any], _: dict[str, Any]) -> bool:
        advance(local["env"].num_envs)
        return True

    for evaluation in range(1, config.evaluations + 1):
        until = steps * evaluation // config.evaluations
        model.learn(until - model.num_timesteps, callback=report, reset_num_timesteps=False)
        snapshots.append(_snapshot(model, env_id, seed, config))
    return snapshots


def _soft_actor_critic(env_id: str, seed: int, config: PolicyTraining) -> Any:
    from stable_baselines3 import SAC
    from stable_baselines3.common.vec_env import DummyVecEnv

    return SAC(
        "MlpPolicy",
        DummyVecEnv([lambda: _make(env_id)] * config.num_envs),
        learning_rate=config.learning_rate,
        learning_starts=config.learning_starts,
        batch_size=config.batch_size,
        gradient_steps=round(config.num_envs * config.updates_per_step),
        policy_kwargs={"net_arch": {"pi": list(config.actor), "qf": list(config.critic)}},
        seed=seed,
        device="cpu",
    )


def actor_of(model: Any, info: ActorInfo) -> Actor:
    """Take the deterministic actor out of a Stable-Baselines3 SAC model.

    Args:
        model: A SAC model with an `MlpPolicy` of ReLU layers.
        info: What to say about it.

    Returns:
        An actor that computes the same actions, to rounding.
    """
    parameters = model.policy.actor.state_dict()
    layers = sorted(
        {int(name.split(".")[1]) for name in parameters if name.startswith("latent_pi.")}
    )
    names = [f"latent_pi.{index}" for index in layers] + ["mu"]
    weights = [
        (parameters[f"{name}.weight"].numpy().copy(), parameters[f"{name}.bias"].numpy().copy())
        for name in names
    ]
    return Actor(weights, model.action_space.low, model.action_space.high, info)


def _snapshot(model: Any, env_id: str, seed: int, config: PolicyTraining) -> Snapshot:
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
    return Snapshot(actor, float(returns_of(actor, config.episodes, seed).mean()))


def _write(
    chosen: dict[Stage, Snapshot], env_id: str, seed: int, config: PolicyTraining, out: Path
) -> list[Path]:
    paths = []
    for stage, snapshot in chosen.items():
        # Other episodes than those it was chosen by, so that the best is not flattered.
        returns = returns_of(snapshot.actor, config.final_episodes, seed + 1_000_000)
        info = dataclasses.replace(
            snapshot.actor.info,
            stage=stage,
            mean_return=round(float(returns.mean()), 1),
            return_std=round(float(returns.std()), 1),
            episodes=config.final_episodes,
            training={"algorithm": "SAC", **dataclasses.asdict(config)},
            versions={
                name: metadata.version(name)
                for name in ("gymnasium", "mujoco", "stable_baselines3", "torch")
            },
        )
        actor = Actor(snapshot.actor.weights, snapshot.actor.low, snapshot.actor.high, info)
        paths.append(out / info.filename)
        actor.save(paths[-1])
    return paths


def _make(env_id: str) -> gym.Env[Any, Any]:
    env = gym.make(env_id)
    return UnclippedState(env) if env_id in CLIPPED_IDS else env


def _check_spaces(env_id: str) -> None:
    env = _make(env_id)
    observation, action = env.observation_space, env.action_space
    env.close()
    flat = isinstance(observation, gym.spaces.Box) and len(observation.shape) == 1
    bounded = isinstance(action, gym.spaces.Box) and action.is_bounded() and len(action.shape) == 1
    if not (flat and bounded):
        raise EnvironmentUnsupported(
            f"policies are trained on flat Box observations and bounded Box actions, but {env_id} "
            f"has {observation} and {action}"
        )


@contextmanager
def _progress(env_id: str, total: int, show: bool) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task(f"SAC on {env_id}", total=total)
        yield lambda steps: bar.advance(task, steps)


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
