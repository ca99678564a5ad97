"""The seconds of a step are those that pass in the simulator, whatever wraps it."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import MaxAndSkipObservation, RescaleAction, TimeLimit

from loopwm.data.collect import collect
from loopwm.data.environment import describe, make
from loopwm_envs import TransitionDifficulty


class Repeat(gym.Wrapper):
    """Repeat each action, `more` times oftener in every step."""

    def __init__(self, env: gym.Env[Any, Any], times: int, more: int = 0) -> None:
        super().__init__(env)
        self.times, self.more = times, more

    def step(self, action: Any) -> Any:
        outcomes = [self.env.step(action) for _ in range(self.times)]
        self.times += self.more
        return outcomes[-1]


class Seen(gym.ObservationWrapper):
    """Observe the same."""

    def observation(self, observation: Any) -> Any:
        return observation


def dt(source: str | Callable[[], gym.Env[Any, Any]]) -> float | None:
    return describe(source, make(source), {}, False).dt


def pendulum() -> gym.Env[Any, Any]:
    return gym.make("Pendulum-v1")


def cheetah() -> gym.Env[Any, Any]:
    return gym.make("HalfCheetah-v5")


@pytest.mark.parametrize(
    ("source", "seconds"),
    [
        ("Pendulum-v1", 0.05),
        ("HalfCheetah-v5", 0.05),
        ("CartPole-v1", None),
        (lambda: MaxAndSkipObservation(pendulum(), skip=4), 0.2),
        (lambda: MaxAndSkipObservation(MaxAndSkipObservation(pendulum(), 2), 3), 0.3),
        (
            lambda: TimeLimit(RescaleAction(Seen(pendulum()), np.float32(-1), np.float32(1)), 50),
            0.05,
        ),
        # What a wrapper of no known package does is measured by the simulator's clock, or unknown.
        (lambda: Repeat(pendulum(), 4), None),
        (lambda: Repeat(cheetah(), 4), 0.2),
        (lambda: MaxAndSkipObservation(Repeat(cheetah(), 2), 3), 0.3),
        (lambda: Repeat(cheetah(), 1, more=1), None),
        (lambda: TransitionDifficulty(gym.make("Hopper-v5")), 0.008),
    ],
)
def test_seconds_of_a_step_count_the_steps_that_wrappers_make(
    source: Any, seconds: float | None
) -> None:
    assert dt(source) == (None if seconds is None else pytest.approx(seconds, abs=1e-12))


@pytest.mark.skipif(not hasattr(gym.wrappers, "RepeatAction"), reason="an earlier Gymnasium")
def test_actions_that_gymnasium_repeats_count_as_often() -> None:
    repeat: Any = vars(gym.wrappers)["RepeatAction"]
    assert dt(lambda: repeat(pendulum(), 5)) == pytest.approx(0.25, abs=1e-12)


def test_a_registered_environment_that_repeats_actions_says_how_long_its_steps_are() -> None:
    def entry(**_: Any) -> gym.Env[Any, Any]:
        return Repeat(cheetah(), 5)

    gym.register("Repeating-v0", entry, max_episode_steps=30)
    try:
        assert collect("Repeating-v0", 40).meta.dt == pytest.approx(0.25, abs=1e-12)
    finally:
        gym.registry.pop("Repeating-v0")


@pytest.mark.parametrize("wrong", [0, -0.1, np.nan, np.inf, "0.05", True, None])
def test_a_clock_that_cannot_be_one_is_not_recorded(wrong: Any) -> None:
    class Timeless(PendulumEnv):
        def __init__(self) -> None:
            super().__init__()
            self.dt = wrong

    assert dt(Timeless) is None


def test_an_environment_that_fails_in_its_first_step_is_described_all_the_same() -> None:
    class Failing(gym.Wrapper):
        def step(self, action: Any) -> Any:
            raise RuntimeError("the joint is stuck")

    assert dt(lambda: Failing(cheetah())) is None
    with pytest.raises(RuntimeError, match="stuck"):
        collect(lambda: Failing(cheetah()), 10)
