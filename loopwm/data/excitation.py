"""Open-loop excitations: whole sequences of actions, drawn before the episode begins."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from loopwm.errors import ConfigError, EnvironmentUnsupported


@runtime_checkable
class OpenLoop(Protocol):
    """Choose the whole sequence of actions before the episode begins."""

    def actions(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> np.ndarray:
        """Draw the actions of an episode.

        Args:
            rng: The episode's own generator; the only source of randomness.
            action_space: A bounded Box of floats, or a Discrete space.
            horizon: Number of steps T.

        Returns:
            Actions [T,A] in the type of the Box and inside its bounds, or int64 [T]. A shorter
            horizon gives the beginning of what a longer one gives.

        Raises:
            EnvironmentUnsupported: If the space is another, or has no bounds.
        """
        ...


@dataclass(frozen=True)
class Uniform:
    """Draw every action anew, uniformly over the action space."""

    def actions(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> np.ndarray:
        """Draw the actions of an episode (see `OpenLoop`)."""
        if isinstance(action_space, gym.spaces.Discrete):
            return _nth(rng.random(horizon), action_space)
        box = bounded_box(action_space)
        return into_box(box, 2 * rng.random((horizon, *box.shape)) - 1)


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """Let the actions wander: noise that remembers where it was (an AR(1) process).

    In units of half the range of each dimension, `x' = (1 - theta) x + sigma * normal`, begun in
    its stationary distribution and clipped to the bounds. A Discrete action is instead redrawn
    with probability theta at each step and held otherwise.

    Attributes:
        theta: Pull towards the middle at each step, in (0, 1].
        sigma: Standard deviation of the noise of a step, positive.
    """

    theta: float = 0.15
    sigma: float = 0.3

    def __post_init__(self) -> None:
        """Refuse what has no stationary distribution."""
        check_positive(self, "theta", "sigma")
        if self.theta > 1:
            raise ConfigError(f"theta must lie in (0, 1], got {self.theta}")

    def actions(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> np.ndarray:
        """Draw the actions of an episode (see `OpenLoop`)."""
        if isinstance(action_space, gym.spaces.Discrete):
            drawn, changes = rng.random((horizon, 2)).T
            changed = np.where(changes < self.theta, np.arange(horizon), 0)
            return _nth(drawn[np.maximum.accumulate(changed)], action_space)
        box = bounded_box(action_space)
        path = rng.standard_normal((horizon, *box.shape))
        path[0] *= self.sigma / np.sqrt(self.theta * (2 - self.theta))
        path[1:] *= self.sigma
        for before, now in pairwise(path):
            now += (1 - self.theta) * before
        return into_box(box, path)


@dataclass(frozen=True)
class Sines:
    """Swing each action dimension by a sum of sines with random periods, phases and weights.

    Of a Discrete space, the action with the largest of such sums is taken.

    Attributes:
        terms: Number of sines in each sum.
        shortest: Shortest period in steps, at least 2.
        longest: Longest period in steps; periods are drawn log-uniformly between the two.
        rms: Root mean square of each sum before clipping, in units of half the range.
    """

    terms: int = 3
    shortest: float = 4.0
    longest: float = 100.0
    rms: float = 0.6

    def __post_init__(self) -> None:
        """Refuse sums that are empty, and periods that no sequence of steps can show."""
        check_positive(self, "terms", "rms")
        if not 2 <= self.shortest <= self.longest < np.inf:
            raise ConfigError(
                "periods must satisfy 2 <= shortest <= longest, got "
                f"shortest={self.shortest}, longest={self.longest}"
            )

    def actions(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> np.ndarray:
        """Draw the actions of an episode (see `OpenLoop`)."""
        if isinstance(action_space, gym.spaces.Discrete):
            largest = self._sums(rng, (int(action_space.n),), horizon).argmax(axis=1)
            return largest + int(action_space.start)
        box = bounded_box(action_space)
        return into_box(box, self._sums(rng, box.shape, horizon))

    def _sums(self, rng: np.random.Generator, shape: tuple[int, ...], horizon: int) -> np.ndarray:
        draws = (self.terms, *shape)
        period = self.shortest * (self.longest / self.shortest) ** rng.random(draws)
        phase = rng.random(draws)
        weight = rng.standard_normal(draws)
        # A sine has a mean square of one half.
        weight *= self.rms / np.sqrt((weight**2).sum(axis=0) / 2)
        time = np.arange(horizon).reshape(-1, *[1] * len(draws))
        return (weight * np.sin(2 * np.pi * (time / period + phase))).sum(axis=1)


@dataclass(frozen=True)
class Excitation:
    """Choose one kind of excitation for each episode, with equal chances.

    Attributes:
        kinds: What to choose from, at least one.
    """

    kinds: tuple[OpenLoop, ...] = field(
        default_factory=lambda: (Uniform(), OrnsteinUhlenbeck(), Sines())
    )

    def __post_init__(self) -> None:
        """Refuse a choice from nothing."""
        if not self.kinds:
            raise ConfigError("kinds must hold at least one excitation, got none")

    def actions(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> np.ndarray:
        """Draw the actions of an episode (see `OpenLoop`)."""
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        return kind.actions(rng, action_space, horizon)


def check_positive(config: Any, *names: str) -> None:
    """Refuse settings that are not positive and finite.

    Raises:
        ConfigError: If one is not, naming it and its value.
    """
    for name in names:
        value = getattr(config, name)
        if not 0 < value < np.inf:
            raise ConfigError(f"{name} must be positive and finite, got {value}")


def bounded_box(space: gym.Space[Any]) -> gym.spaces.Box:
    """Return the space if it is a Box of floats with bounds.

    Raises:
        EnvironmentUnsupported: If it is not.
    """
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise EnvironmentUnsupported(f"actions must be Discrete or a Box of floats, got {space}")
    if not (space.bounded_below.all() and space.bounded_above.all()):
        raise EnvironmentUnsupported(
            f"bounds are needed to choose actions, but the action space is {space}: clip or "
            "rescale it with a gymnasium wrapper, or pass a policy of your own"
        )
    return space


def into_box(box: gym.spaces.Box, unit: np.ndarray) -> np.ndarray:
    """Map [-1, 1] to the range of each dimension, clipped, in the type of the Box."""
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    # Short episodes wait for this: `np.clip` takes several times as long on few numbers.
    inside = (low + high) / 2 + (high - low) / 2 * np.minimum(np.maximum(unit, -1), 1)
    # Rounding to the type of the space may cross a bound.
    return np.minimum(np.maximum(inside.astype(box.dtype), box.low), box.high)


def _nth(share: np.ndarray, space: gym.spaces.Discrete) -> np.ndarray:
    return (share * int(space.n)).astype(np.int64) + int(space.start)
