"""How well an agent does in the real environment: returns over episodes and training seeds."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from loopwm.agent.action import fitted
from loopwm.agent.agent import Agent
from loopwm.agent.memory import Remembering
from loopwm.agent.planner import SequencePlanner
from loopwm.data.engine import quiet_mujoco
from loopwm.data.environment import Source, make, source_name, time_limit
from loopwm.data.episode import Episode
from loopwm.data.guard import Watch, step_fault
from loopwm.data.policy import as_policy
from loopwm.errors import ConfigError, NumericalError
from loopwm.seed import key, numpy_rng
from loopwm.stats import bootstrap, iqm

# Of the observations of all episodes [B, O] and a mask of those that go on [B]: an action for each
# of these.
Chooser = Callable[[ndarray, ndarray], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class AgentReport:
    """Hold the returns of an agent, or of the same kind of agent from several training seeds.

    Attributes:
        env_id: The environment.
        seed: Seed of the episodes.
        returns: Sum of rewards of each episode; one row for each agent where several were given.
        lengths: Steps of each episode, of the same shape.
        faults: Number of episodes that a spoilt step ended, by the reason.
    """

    env_id: str
    seed: int
    returns: Float[ndarray, "*S E"]
    lengths: Int[ndarray, "*S E"]
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Return the mean return."""
        return float(self.returns.mean())

    @property
    def iqm(self) -> float:
        """Return the interquartile mean over all episodes of all agents (arXiv 2108.13264)."""
        return iqm(self.returns.reshape(-1))

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the mean's 95% interval, by the percentile bootstrap.

        Resampled are the independent units: agents where there are several, else episodes. Of few
        units it is too narrow (see `loopwm.stats`).
        """
        several = self.returns.ndim > 1 and len(self.returns) > 1
        units = self.returns.mean(axis=1) if several else self.returns.reshape(-1)
        ends = bootstrap(units)
        return float(ends.low), float(ends.high)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "env_id": self.env_id,
            "seed": self.seed,
            "mean": self.mean,
            "iqm": self.iqm,
            "interval": list(self.interval),
            "returns": self.returns.tolist(),
            "lengths": self.lengths.tolist(),
            "faults": self.faults,
        }


def evaluate_agent(
    agent: Any,
    env_id: Source,
    episodes: int = 10,
    seed: int = 0,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    unclipped: bool = False,
) -> AgentReport:
    """Play episodes in the real environment; the same seed gives the same beginnings to all agents.

    A planner of this package is played as it was before its first plan, and left as it is: the same
    call gives the same returns.

    Args:
        agent: What acts: a planner (`plan`), anything with `act(obs)`, a policy of
            Stable-Baselines3 (`predict`, deterministic), a policy or a function from observation
            to action (see `loopwm.data.policy`); or several of one kind, from several seeds.
        env_id: A Gymnasium id, or a function that makes an environment.
        episodes: Episodes of each agent, at least 1, played side by side.
        seed: Non-negative integer; episode i begins as the seed and i say.
        env_kwargs: Arguments for the environment.
        unclipped: Observe velocities as simulated, where Hopper-v5 and Walker2d-v5 clip them.

    Returns:
        Returns and lengths [episodes], or [agents, episodes] for several agents, with mean,
        interquartile mean and interval. A step in which the simulation diverged, or after which a
        number is not finite, ends its episode and counts for nothing; `faults` says how many.

    Raises:
        ConfigError: If an argument is out of range or the agent can not act.
        DataError: If an action is not finite or lies outside of the action space.
        NumericalError: If an episode fails in its first step, and so has no return.
    """
    several = isinstance(agent, list | tuple)
    if several and not agent:
        raise ConfigError("agent must be at least one agent, got an empty sequence")
    played = [
        play(each, env_id, episodes, seed, env_kwargs=env_kwargs, unclipped=unclipped)
        for each in (agent if several else [agent])
    ]
    returns = np.array([[each.reward.sum() for each in row] for row in played])
    lengths = np.array([[len(each) for each in row] for row in played], np.int64)
    faults = Counter(each.fault for row in played for each in row if each.fault)
    if not lengths.all():
        raise NumericalError(
            f"an episode of {source_name(env_id)} failed in its first step and has no return "
            f"({dict(faults)}); check the environment and the agent"
        )
    if not several:
        returns, lengths = returns[0], lengths[0]
    return AgentReport(source_name(env_id), seed, returns, lengths, dict(faults))


def play(
    agent: Any,
    env: Source,
    episodes: int,
    seed: int,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    unclipped: bool = False,
) -> list[Episode]:
    """Play episodes side by side, and return them whole (see `evaluate_agent`).

    Args:
        agent: What acts.
        env: A Gymnasium id, or a function that makes an environment.
        episodes: Number of episodes, at least 1.
        seed: Seed of the episodes.
        env_kwargs: Arguments for the environment.
        unclipped: Observe velocities as simulated.

    Raises:
        ConfigError: If an argument is out of range or the agent can not act.
        DataError: If an action is not finite or lies outside of the action space.
    """
    if episodes < 1 or seed < 0:
        raise ConfigError(
            f"episodes must be at least 1 and seed not negative, got {episodes} and {seed}"
        )
    with quiet_mujoco():
        made = [make(env, env_kwargs, unclipped) for _ in range(episodes)]
        if len({id(each.unwrapped) for each in made}) < episodes:
            raise ConfigError(
                f"{source_name(env)} returned the same environment twice, in which episodes side "
                "by side would disturb each other: return a new one at each call"
            )
        choose = _chooser(agent, made[0], seed, episodes)
        rows = [_Row(each, evaluation_seed(seed, index)) for index, each in enumerate(made)]
        while (live := np.array([not row.over for row in rows])).any():
            actions = choose(np.stack([row.obs[-1] for row in rows]), live)
            for row, action in zip(compress(rows, live), actions, strict=True):
                row.step(action)
    return [row.close() for row in rows]


def evaluation_seed(seed: int, episode: int) -> int:
    """Return the seed with which the environment of an evaluated episode is reset."""
    return int(key(seed, "evaluate", episode).generate_state(1, np.uint32)[0])


class _Row:
    """One episode, played in an environment of its own."""

    def __init__(self, env: gym.Env[Any, Any], seed: int) -> None:
        self.env, self.limit = env, time_limit(env)
        obs, _ = env.reset(seed=seed)
        self.watch = Watch(env)
        self.obs, self.action, self.reward = [np.array(obs)], [], []
        self.terminated, self.over, self.fault = False, False, None

    def step(self, action: Any) -> None:
        action = fitted(action, self.env.action_space)
        # A copy, which the environment may change in place.
        obs, reward, terminated, truncated, _ = self.env.step(action.copy())
        self.fault = step_fault(self.watch, bool(np.isfinite(obs).all()), math.isfinite(reward))
        if self.fault is None:
            self.obs.append(np.array(obs))
            self.action.append(np.array(action))
            self.reward.append(float(reward))
            self.terminated = bool(terminated)
        full = len(self.reward) >= self.limit
        self.over = bool(self.fault or terminated or truncated or full)

    def close(self) -> Episode:
        self.env.close()
        space = self.env.action_space
        discrete = isinstance(space, gym.spaces.Discrete)
        action = np.array(self.action, np.int64 if discrete else space.dtype)
        return Episode(
            obs=np.stack(self.obs),
            action=action.reshape(len(self.reward), *(space.shape or ())),
            reward=np.array(self.reward, np.float64),
            terminated=self.terminated,
            truncated=not self.terminated,
            fault=self.fault,
        )


def _chooser(agent: Any, env: gym.Env[Any, Any], seed: int, episodes: int) -> Chooser:
    """Return what gives an action to each of the episodes that go on."""
    planner = agent.policy if isinstance(agent, Agent) else agent
    if isinstance(planner, SequencePlanner | Remembering):
        return _searching(planner.anew(), episodes)
    if callable(getattr(agent, "plan", None)) and not isinstance(agent, type):
        if callable(getattr(agent, "reset", None)):
            agent.reset()
        # Planners of others know rows by their places: what is over is shown still.
        return lambda obs, live: list(compress(agent.plan(obs), live))
    act = getattr(agent, "act", None)
    policy = as_policy(act if callable(act) and not isinstance(agent, type) else agent)
    controllers = [
        policy.begin(numpy_rng(seed, "act", index), env.action_space, time_limit(env))
        for index in range(episodes)
    ]
    return lambda obs, live: [controllers[row](obs[row]) for row in np.flatnonzero(live)]


def _searching(planner: SequencePlanner | Remembering, episodes: int) -> Chooser:
    """Plan what goes on and nothing else, each row from where its own search stood."""
    planned = np.ones(episodes, bool)

    def choose(obs: ndarray, live: ndarray) -> Iterable[Any]:
        nonlocal planned
        if not live[planned].all():
            planner.narrow(live[planned])
        planned = live
        return planner.plan(obs[live])

    return choose
