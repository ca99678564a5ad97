"""Episodes played step by step in Gymnasium, several environments side by side."""

import math
from collections.abc import Iterator, Mapping
from itertools import count as counter
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Discrete

from loopwm.data.episode import Episode, Task
from loopwm.data.guard import ACTION, OBSERVATION, Watch, step_fault
from loopwm.data.lanes import Lanes
from loopwm.data.policy import as_policy
from loopwm.errors import DataError


def play_stepping(
    task: Task, first: int, count: int | None, steps: int, num_envs: int
) -> Iterator[Episode]:
    """Play episodes of a task in order.

    Args:
        task: What to play.
        first: Number of the first episode.
        count: Number of episodes, or None for no limit.
        steps: Total steps wanted; the episode in which they are reached is the last one.
        num_envs: Environments to step side by side, at least 1.

    Yields:
        Episodes `first`, `first + 1`, ...; the last one may be cut short at `steps`.
    """
    episodes = math.ceil(steps / task.limit)
    # Lanes beyond the number of episodes would be stepped all the while, and for nothing.
    most = num_envs if count is None else min(num_envs, count)
    vector = Lanes(task.make, _even_lanes(episodes, most), task.info_keys)
    try:
        yield from _in_order(_Field(task, vector, first, count), steps)
    finally:
        vector.close()


def _even_lanes(episodes: int, num_envs: int) -> int:
    """Use as many environments as finish together, rather than leave some idle in the end."""
    rounds = math.ceil(episodes / num_envs)
    return math.ceil(episodes / rounds)


def _in_order(field: "_Field", steps: int) -> Iterator[Episode]:
    done: dict[int, Episode] = {}
    following = field.first
    while True:
        while following in done:
            episode = done.pop(following)
            yield episode
            steps -= len(episode)
            following += 1
            if steps <= 0:
                return
        here = next((run for run in field.runs if run and run.number == following), None)
        if here and len(here.reward) >= steps:
            yield here.episode(truncated=True).cut(steps)
            return
        if here is None and field.exhausted:
            return
        field.step(done)


class _Run:
    """An episode being played."""

    def __init__(self, number: int, task: Task, env: gym.Env[Any, Any], obs: np.ndarray) -> None:
        self.number = number
        self.space = env.action_space
        self.watch = Watch(env)
        policy = as_policy(task.policy)
        self.control = policy.begin(task.policy_rng(number), self.space, task.limit)
        self.obs = [obs.copy()]
        self.action: list[np.ndarray] = []
        self.reward: list[float] = []
        self.terminated = False
        self.info: dict[str, dict[int, float]] = {}

    def choose(self) -> np.ndarray:
        """Return the next action."""
        # A copy, in case the policy works in place.
        action = np.asarray(self.control(self.obs[-1].copy()))
        if isinstance(self.space, Discrete):
            _check_choice(action, self.space)
        if action.shape == self.space.shape:
            return action
        if action.size == 1 and not self.space.shape:
            return action.reshape(())
        raise DataError(
            f"the policy returned an action of shape {action.shape}; "
            f"the action space is {self.space}"
        )

    def take(self, action: Any, obs: np.ndarray, reward: Any, terminated: Any) -> None:
        self.action.append(action)
        self.obs.append(obs.copy())
        self.reward.append(reward)
        self.terminated = bool(terminated)

    def note(self, reported: Mapping[str, Any]) -> None:
        """Keep the numbers of the step that `take` is about to take."""
        for name, value in reported.items():
            self.info.setdefault(name, {})[len(self.reward)] = _number(name, value)

    def episode(self, truncated: bool, fault: str | None = None) -> Episode:
        length = len(self.reward)
        discrete = isinstance(self.space, Discrete)
        info = {name: np.full(length, np.nan) for name in self.info}
        for name, values in self.info.items():
            info[name][list(values)] = list(values.values())
        return Episode(
            obs=np.stack(self.obs),
            action=np.array(self.action, np.int64 if discrete else self.space.dtype),
            reward=np.array(self.reward, np.float64),
            terminated=self.terminated,
            truncated=truncated,
            fault=fault,
            info=info,
        )


class _Field:
    """Environments side by side, each with the episode that is played in it."""

    def __init__(self, task: Task, vector: Lanes, first: int, count: int | None) -> None:
        self.task, self.vector, self.first = task, vector, first
        self.idle = _idle_action(vector.single_action_space)
        self.numbers = iter(counter(first) if count is None else range(first, first + count))
        self.runs: list[_Run | None] = [None] * vector.num_envs
        self.over = np.ones(vector.num_envs, bool)
        self.obs = np.zeros((vector.num_envs, 0))
        self.exhausted = False

    def step(self, done: dict[int, Episode]) -> None:
        """Make one step in every environment, moving episodes that end into `done`."""
        self._reset(done)
        actions = self._actions(done)
        self.obs, rewards, terminated, truncated, _ = self.vector.step(actions)
        self.over = terminated | truncated
        seen, rewarded = np.isfinite(self.obs).all(axis=1), np.isfinite(rewards)
        for lane, run in enumerate(self.runs):
            if run is None:
                continue
            fault = step_fault(run.watch, bool(seen[lane]), bool(rewarded[lane]))
            if fault is None:
                run.note(self.vector.reported[lane])
                run.take(actions[lane], self.obs[lane], rewards[lane], terminated[lane])
            full = len(run.reward) == self.task.limit
            if fault or self.over[lane] or full:
                stopped = bool(fault or truncated[lane] or full or not terminated[lane])
                done[run.number] = run.episode(stopped, fault)
                self.runs[lane] = None

    def _reset(self, done: dict[int, Episode]) -> None:
        free = [lane for lane, run in enumerate(self.runs) if run is None]
        fresh = {lane: number for lane, number in zip(free, self.numbers, strict=False)}
        self.exhausted = len(fresh) < len(free)
        # An environment with nothing left to play still has to be steppable.
        mask = self.over.copy()
        mask[list(fresh)] = True
        if not mask.any():
            return
        seeds: list[int | None] = [
            self.task.reset_seed(fresh.get(lane, 0)) if mask[lane] else None
            for lane in range(len(self.runs))
        ]
        self.obs, _ = self.vector.reset(seed=seeds, options={"reset_mask": mask})
        for lane, number in fresh.items():
            env = self.vector.envs[lane]
            run = _Run(number, self.task, env, self.obs[lane])
            if np.isfinite(self.obs[lane]).all():
                self.runs[lane] = run
            else:
                # Over before it began; the lane waits for the next reset.
                done[number] = run.episode(truncated=True, fault=OBSERVATION)

    def _actions(self, done: dict[int, Episode]) -> np.ndarray:
        actions = np.stack([run.choose() if run else self.idle for run in self.runs])
        fine = np.isfinite(actions).reshape(len(actions), -1).all(axis=1)
        for lane in np.flatnonzero(~fine):
            run, self.runs[lane] = self.runs[lane], None
            actions[lane] = self.idle
            if run:
                done[run.number] = run.episode(truncated=True, fault=ACTION)
        return actions.astype(self.idle.dtype, copy=False)


def _idle_action(space: Any) -> np.ndarray:
    """Return an action for an environment in which nothing is played."""
    if isinstance(space, Discrete):
        return np.zeros((), np.int64)
    return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)


def _check_choice(action: np.ndarray, space: Discrete) -> None:
    # What is not finite ends the episode instead, as it does where actions are continuous.
    finite = np.isfinite(action)
    if (finite & (action % 1 != 0)).any():
        raise DataError(
            f"the policy returned {action}, and actions of {space} are whole numbers: "
            "return the index of an action, such as that of the largest logit"
        )
    if (finite & ((action < 0) | (action >= space.n))).any():
        raise DataError(
            f"the policy returned {action}, and actions of {space} lie in 0..{space.n - 1}"
        )


def _number(name: str, value: Any) -> float:
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "biuf":
        raise DataError(f"info[{name!r}] must be a number to become a column, got {value!r}")
    return float(number)
