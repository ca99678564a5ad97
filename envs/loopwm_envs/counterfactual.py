"""Pairs of transitions that differ in one ball's place and in collisions that do not happen."""

from dataclasses import dataclass

import numpy as np

from loopwm.errors import ConfigError
from loopwm_envs.chain import Chain
from loopwm_envs.transitions import Transitions, simulate

# Each ball is tried at this many places between where it is and its neighbour.
PLACES = 16


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """Hold changed transitions, each beside the one that it was made from.

    Attributes:
        transitions: The changed transitions [M].
        row: The row [M] of the original.
        ball: The ball [M] that was moved.
        shift: How far it was moved [M], to the right if positive.
        vanished: Number of collisions [M] that the original has and the changed one has not.
    """

    transitions: Transitions
    row: np.ndarray
    ball: np.ndarray
    shift: np.ndarray
    vanished: np.ndarray

    def rows(self, index: np.ndarray) -> "Counterfactual":
        """Return the pairs at an array of indices, or where a mask [M] is true."""
        others = {name: getattr(self, name)[index] for name in ("row", "ball", "shift", "vanished")}
        return Counterfactual(self.transitions.rows(index), **others)


def without_collision(given: Transitions, chain: Chain, vanish: int = 1) -> Counterfactual:
    """Move one ball of each chain so that collisions vanish, all else equal.

    Of the moves tried that keep the order of the balls, all velocities and all other positions,
    and that do not deepen the chain, the shortest is taken. An outer ball on an open line may move
    outwards until none can reach it. Deterministic.

    Args:
        given: Transitions [N].
        chain: The physics that made them.
        vanish: How many collisions must vanish at least, at least 1. With 1, what vanishes is
            often a collision in the last moment of the step, which changes the next state little.

    Returns:
        The changed transitions; rows where no move will do are left out.

    Raises:
        ConfigError: If `vanish` is less than 1.
    """
    if vanish < 1:
        raise ConfigError(f"vanish must be at least 1, got {vanish}")
    ball, shift = np.full(len(given), -1), np.full(len(given), np.inf)
    edges = _edges(given, chain)
    for each in range(chain.balls):
        for neighbour in (edges[:, each], edges[:, each + 2]):
            room = neighbour - given.position[:, each]
            for place in range(1, PLACES):
                move = room * (place / PLACES)
                rows = np.flatnonzero((np.abs(move) < np.abs(shift)) & (given.count >= vanish))
                rows = rows[_succeeds(given, chain, vanish, rows, each, move)]
                ball[rows], shift[rows] = each, move[rows]
    row = np.flatnonzero(ball >= 0)
    position = _moved(given.position[row], ball[row], shift[row])
    changed = simulate(chain, position, given.velocity[row])
    return Counterfactual(
        changed, row, ball[row], shift[row], vanished=given.count[row] - changed.count
    )


def _succeeds(
    given: Transitions, chain: Chain, vanish: int, rows: np.ndarray, ball: int, move: np.ndarray
) -> np.ndarray:
    """Tell for which of the rows moving a ball makes enough collisions vanish."""
    position = _moved(given.position[rows], np.full(len(rows), ball), move[rows])
    flight = chain.advance(position, given.velocity[rows])
    fewer = flight.count <= given.count[rows] - vanish
    return fewer & (flight.depth <= given.depth[rows])


def _moved(position: np.ndarray, ball: np.ndarray, shift: np.ndarray) -> np.ndarray:
    position = position.copy()
    position[np.arange(len(position)), ball] += shift
    return position


def _edges(given: Transitions, chain: Chain) -> np.ndarray:
    """Return the positions with the farthest places worth trying on either side [N,n+2]."""
    reach = np.ptp(given.velocity, axis=1, keepdims=True) * chain.dt
    left, right = given.position[:, :1] - reach, given.position[:, -1:] + reach
    return np.concatenate([left, given.position, right], axis=1).clip(*chain.walls)
