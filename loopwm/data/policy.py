"""Who chooses the actions: excitations, policies, and what adapts anything else to them.

An episode's actions are drawn from the episode's own generator alone, so that they are the same,
bit for bit, whatever else is collected beside it.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, TypeAlias, runtime_checkable

import gymnasium as gym
import numpy as np

from loopwm.data.excitation import (
    Excitation,
    OpenLoop,
    OrnsteinUhlenbeck,
    Sines,
    Uniform,
    bounded_box,
    check_positive,
)
from loopwm.errors import ConfigError, DataError, EnvironmentUnsupported

__all__ = [
    "Controller",
    "Excitation",
    "OpenLoop",
    "OrnsteinUhlenbeck",
    "Policy",
    "PolicyLike",
    "Predictor",
    "Sines",
    "Uniform",
    "WithNoise",
    "as_policy",
]

Controller: TypeAlias = Callable[[np.ndarray], Any]

# Steps of an open-loop episode that are drawn before it is known how long the episode will be.
BEGINNING = 32


@runtime_checkable
class Policy(Protocol):
    """Choose each action after seeing the observation."""

    def begin(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> Controller:
        """Start an episode.

        Args:
            rng: The episode's own generator; the only source of randomness.
            action_space: The space that the actions must lie in.
            horizon: The most steps the episode can have.

        Returns:
            A function from the observation [O] to the action [A], or to an integer. It is called
            once for each step of this one episode.
        """
        ...


@runtime_checkable
class Predictor(Protocol):
    """Be a policy of Stable-Baselines3."""

    def predict(self, observation: Any, *, deterministic: bool) -> tuple[Any, Any]:
        """Return an action and a recurrent state, which is not used here."""
        ...


PolicyLike: TypeAlias = Policy | OpenLoop | Predictor | Controller


def as_policy(policy: object) -> Policy:
    """Adapt whatever can choose actions to the protocol `Policy`.

    Args:
        policy: A `Policy`; an `OpenLoop` excitation; an object with the `predict` of
            Stable-Baselines3, used deterministically; or a function from one observation [O] to
            one action, which must depend on that observation alone.

    Returns:
        A policy; the argument itself where it is one.

    Raises:
        ConfigError: If it is none of these.
    """
    if isinstance(policy, type):
        raise ConfigError(
            f"policy must be an object, got the class {policy.__name__}: pass {policy.__name__}()"
        )
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, OpenLoop):
        return _Playback(policy)
    if isinstance(policy, Predictor):
        return _Predict(policy)
    if callable(policy):
        return _Reactive(policy)
    raise ConfigError(
        f"policy must have begin(), actions() or predict(), or be a function of the observation, "
        f"got {policy!r}; excitations are objects, such as loopwm.data.excitation.Uniform()"
    )


@dataclass(frozen=True)
class WithNoise:
    """Add Gaussian noise to the actions of another policy, clipped to the bounds.

    Attributes:
        policy: The policy that gets the noise (see `as_policy`).
        std: Standard deviation as a share of half the range of each action dimension, positive.
    """

    policy: PolicyLike
    std: float = 0.15

    def __post_init__(self) -> None:
        """Refuse what is no policy or no standard deviation."""
        as_policy(self.policy)
        check_positive(self, "std")

    def begin(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> Controller:
        """Start an episode (see `Policy`).

        Raises:
            EnvironmentUnsupported: If the actions are not a bounded Box of floats.
        """
        if isinstance(action_space, gym.spaces.Discrete):
            raise EnvironmentUnsupported(
                f"Gaussian noise needs continuous actions, got {action_space}; "
                "collect without WithNoise"
            )
        box = bounded_box(action_space)
        scale = self.std * (box.high.astype(np.float64) - box.low) / 2
        noise = np.random.Generator(np.random.PCG64(int(rng.integers(2**63))))
        control = as_policy(self.policy).begin(rng, action_space, horizon)

        def noisy(obs: np.ndarray) -> np.ndarray:
            disturbed = control(obs) + scale * noise.standard_normal(box.shape)
            return np.minimum(np.maximum(disturbed.astype(box.dtype), box.low), box.high)

        return noisy


def drawn(
    excitation: OpenLoop, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
) -> np.ndarray:
    """Draw the actions of an episode.

    Args:
        excitation: What draws them.
        rng: Where it draws from.
        action_space: The space of the actions.
        horizon: Number of steps.

    Raises:
        DataError: If they are not as many, or not as wide, as was asked for.
    """
    actions = np.asarray(excitation.actions(rng, action_space, horizon))
    wanted = (horizon, *(action_space.shape or ()))
    if actions.shape != wanted:
        raise DataError(
            f"{excitation!r} returned actions of shape {actions.shape} where {wanted} was asked "
            "for: one for each step of the horizon"
        )
    return actions


@dataclass(frozen=True)
class _Playback:
    excitation: OpenLoop

    def begin(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> Controller:
        # Many episodes end long before their limit; to draw a step can cost as much as to make it.
        fresh = deepcopy(rng)
        first = drawn(self.excitation, rng, action_space, min(horizon, BEGINNING))
        steps = chain(first.copy(), self._rest(fresh, action_space, horizon, first))
        return lambda _: next(steps)

    def _rest(
        self, fresh: np.random.Generator, space: gym.Space[Any], horizon: int, earlier: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Draw anew from the start, each time twice as long, for as long as steps are taken."""
        while len(earlier) < horizon:
            longer = drawn(self.excitation, deepcopy(fresh), space, min(horizon, 2 * len(earlier)))
            if not np.array_equal(longer[: len(earlier)], earlier, equal_nan=True):
                raise ConfigError(
                    f"{self.excitation!r} draws other actions for {len(longer)} steps than for "
                    f"{len(earlier)}; a shorter horizon must give the beginning of a longer one"
                )
            # A copy, in case whoever gets an action changes it.
            yield from longer[len(earlier) :].copy()
            earlier = longer


@dataclass(frozen=True)
class _Predict:
    predictor: Any

    def begin(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> Controller:
        del rng, action_space, horizon
        return lambda obs: self.predictor.predict(obs, deterministic=True)[0]


@dataclass(frozen=True)
class _Reactive:
    control: Controller

    def begin(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> Controller:
        del rng, action_space, horizon
        return self.control
