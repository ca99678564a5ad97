"""Processes that collect end when nobody waits for them any more, and leave nothing behind."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from loopwm.data.collect import collect
from loopwm.data.episode import Task
from loopwm.data.parallel import play_in_processes
from loopwm.data.policy import Uniform
from loopwm.data.stepping import play_stepping

# Seconds; far longer than a test takes, and far shorter than the limit on tests.
LONG = 100.0


class Slow(gym.Env[np.ndarray, np.ndarray]):
    """Take for ever, but in episode 0, and keep a file for as long as the environment is open."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, folder: str, first: int, fault: str) -> None:
        self.folder, self.first, self.fault = Path(folder), first, fault
        self.mine = self.folder / f"{os.getpid()}"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seed = seed
        return np.zeros(1), {}

    def step(self, action: np.ndarray) -> Any:
        self.mine.touch()
        if self.seed != self.first:
            time.sleep(LONG)
        while not both(self.folder):
            time.sleep(0.01)
        if self.fault == "error":
            raise RuntimeError("the joint is stuck")
        if self.fault == "wait":
            time.sleep(LONG)
        return np.zeros(1), 0.0, True, False, {}

    def close(self) -> None:
        self.mine.unlink(missing_ok=True)


def both(folder: Path) -> bool:
    return len(list(folder.iterdir())) == 2


def slow(folder: Path, fault: str) -> dict[str, Any]:
    """Return the arguments of environments of which the one that plays episode 0 has a fault."""
    first = Task(Slow, {}, False, 0, Uniform(), 1000).reset_seed(0)
    return {"folder": str(folder), "first": first, "fault": fault}


def assert_nothing_left(folder: Path, begun: float) -> None:
    assert time.monotonic() - begun < LONG / 2
    assert multiprocessing.active_children() == []
    assert list(folder.iterdir()) == []


def test_an_error_in_one_process_ends_the_others_at_once(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="the joint is stuck"):
        collect(Slow, 4000, 0, Uniform(), env_kwargs=slow(tmp_path, "error"), workers=2)
    assert_nothing_left(tmp_path, begun)


def test_ctrl_c_ends_all_processes_at_once(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not both(tmp_path):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    begun = time.monotonic()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        collect(Slow, 4000, 0, Uniform(), env_kwargs=slow(tmp_path, "wait"), workers=2)
    assert_nothing_left(tmp_path, begun)


def test_episodes_that_nobody_takes_are_not_played_to_their_end(tmp_path: Path) -> None:
    begun = time.monotonic()
    task = Task(Slow, slow(tmp_path, "none"), False, 0, Uniform(), 1000)
    episodes: Any = play_in_processes(task, 4000, 1, 2, False)
    assert len(next(episodes)) == 1
    episodes.close()
    assert_nothing_left(tmp_path, begun)


def test_no_more_environments_are_made_than_there_are_episodes_to_play() -> None:
    made: list[int] = []

    def factory() -> gym.Env[Any, Any]:
        made.append(1)
        return gym.make("Pendulum-v1", max_episode_steps=5)

    task = Task(factory, {}, False, 0, lambda obs: obs[:1], 5)
    assert len(list(play_stepping(task, 0, 2, 1000, 8))) == 2
    assert len(made) == 2
