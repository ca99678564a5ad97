"""Transitions of ball chains, drawn in bulk and by causal depth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from loopwm.errors import ConfigError
from loopwm_envs.chain import Chain

# From chains that hardly meet to chains in which every ball passes through all others, so that
# causal depths from 0 to 8 all occur among six balls. In mean gaps per step.
SPEEDS = (0.2, 10.0)

# Chains simulated together, and chains in a row without a wanted depth before giving up.
BATCH = 16_384
HOPELESS = 200_000


@dataclass(frozen=True, eq=False)
class Transitions:
    """Hold transitions of chains, each row by itself.

    Attributes:
        position: Positions before the step [N,n].
        velocity: Velocities before the step [N,n].
        next_position: Positions after the step [N,n].
        next_velocity: Velocities after the step [N,n].
        count: Number of collisions in the step [N].
        depth: Causal depth of the step [N] (see `Flight`).
    """

    position: np.ndarray
    velocity: np.ndarray
    next_position: np.ndarray
    next_velocity: np.ndarray
    count: np.ndarray
    depth: np.ndarray

    def __len__(self) -> int:
        """Return the number of transitions N."""
        return len(self.count)

    def rows(self, index: np.ndarray) -> "Transitions":
        """Return the transitions at an array of indices, or where a mask [N] is true."""
        return Transitions(**{each.name: getattr(self, each.name)[index] for each in fields(self)})

    @property
    def state(self) -> np.ndarray:
        """Positions, then velocities, before the step [N,2n]; as `BallChainEnv` observes them."""
        return np.concatenate([self.position, self.velocity], axis=1)

    @property
    def next_state(self) -> np.ndarray:
        """Positions, then velocities, after the step [N,2n]."""
        return np.concatenate([self.next_position, self.next_velocity], axis=1)


def simulate(chain: Chain, position: np.ndarray, velocity: np.ndarray) -> Transitions:
    """Return the transitions from given states.

    Args:
        chain: The physics.
        position: Positions [N,n] in ascending order, between the walls.
        velocity: Velocities [N,n].

    Raises:
        ConfigError: If a state is impossible.
    """
    flight = chain.advance(position, velocity)
    return Transitions(
        position=np.array(position, float),
        velocity=np.array(velocity, float),
        next_position=flight.position,
        next_velocity=flight.velocity,
        count=flight.count,
        depth=flight.depth,
    )


def sample_states(
    rng: np.random.Generator, num: int, chain: Chain, speeds: tuple[float, float] = SPEEDS
) -> tuple[np.ndarray, np.ndarray]:
    """Draw states: an ideal gas, as dense in all chains and as hot as a temperature drawn for each.

    Positions are uniform between the walls, or with a mean gap of 1 about 0 where there are none.
    Velocities are normal, their standard deviation log-uniform from chain to chain.

    Args:
        rng: The only source of randomness.
        num: Number of chains, not negative.
        chain: The physics.
        speeds: Least and greatest standard deviation of velocities, in mean gaps per step.

    Returns:
        Positions and velocities, each [num,n].

    Raises:
        ConfigError: If an argument is out of range.
    """
    if num < 0:
        raise ConfigError(f"num must not be negative, got {num}")
    if not 0 < speeds[0] <= speeds[1] < np.inf:
        raise ConfigError(f"speeds must be (least, greatest), positive and finite, got {speeds}")
    left, right = _range(chain)
    position = np.sort(rng.uniform(left, right, (num, chain.balls)), axis=1)
    spread = np.exp(rng.uniform(np.log(speeds[0]), np.log(speeds[1]), (num, 1)))
    unit = (right - left) / chain.balls / chain.dt
    return position, rng.normal(size=position.shape) * spread * unit


def sample_transitions(
    rng: np.random.Generator,
    num: int,
    chain: Chain = Chain(),
    max_depth: int | None = None,
    speeds: tuple[float, float] = SPEEDS,
) -> Transitions:
    """Draw independent transitions, for training.

    Args:
        rng: The only source of randomness.
        num: Number of transitions, not negative.
        chain: The physics.
        max_depth: Causal depth beyond which a transition is not kept, or None to keep all.
        speeds: See `sample_states`.

    Returns:
        Exactly `num` transitions.

    Raises:
        ConfigError: If an argument is out of range, or no chain is as shallow as wanted.
    """
    if max_depth is None:
        return simulate(chain, *sample_states(rng, num, chain, speeds))
    return _fill(rng, chain, speeds, {f"at most {max_depth}": lambda d: d <= max_depth}, num)


def sample_balanced(
    rng: np.random.Generator,
    per_depth: int,
    chain: Chain = Chain(),
    depths: Sequence[int] = range(9),
    speeds: tuple[float, float] = SPEEDS,
) -> Transitions:
    """Draw independent transitions, as many of each causal depth, for testing.

    Args:
        rng: The only source of randomness.
        per_depth: Number of transitions of each depth, not negative.
        chain: The physics.
        depths: The causal depths wanted.
        speeds: See `sample_states`.

    Returns:
        Exactly `per_depth` transitions of each depth, in the order of `depths`.

    Raises:
        ConfigError: If an argument is out of range, or a depth does not occur.
    """
    wanted = {str(depth): lambda d, depth=depth: d == depth for depth in depths}
    return _fill(rng, chain, speeds, wanted, per_depth)


def _fill(
    rng: np.random.Generator,
    chain: Chain,
    speeds: tuple[float, float],
    wanted: dict[str, Callable[[np.ndarray], np.ndarray]],
    each: int,
) -> Transitions:
    """Draw until there are `each` transitions of every wanted kind of depth."""
    kept: dict[str, list[Transitions]] = {name: [] for name in wanted}
    missing, barren = dict.fromkeys(wanted, each), 0
    while any(missing.values()):
        batch = simulate(chain, *sample_states(rng, BATCH, chain, speeds))
        barren += BATCH
        for name, fits in wanted.items():
            found = batch.rows(np.flatnonzero(fits(batch.depth))[: missing[name]])
            kept[name].append(found)
            missing[name] -= len(found)
            barren = 0 if len(found) else barren
        if barren >= HOPELESS:
            absent = " and ".join(name for name, lack in missing.items() if lack)
            raise ConfigError(
                f"none of {barren} chains with speeds={speeds} had a causal depth of {absent}; "
                "ask for another depth, other speeds or more balls"
            )
    return _concatenate([part for name in wanted for part in kept[name]], chain)


def _concatenate(parts: list[Transitions], chain: Chain) -> Transitions:
    none = np.empty((0, chain.balls))
    parts = [simulate(chain, none, none), *parts]
    return Transitions(
        **{
            each.name: np.concatenate([getattr(part, each.name) for part in parts])
            for each in fields(Transitions)
        }
    )


def _range(chain: Chain) -> tuple[float, float]:
    """Return the range of positions to draw from."""
    left, right = chain.walls
    if np.isfinite(left) and np.isfinite(right):
        return left, right
    if np.isfinite(left):
        return left, left + chain.balls
    if np.isfinite(right):
        return right - chain.balls, right
    return -chain.balls / 2, chain.balls / 2
