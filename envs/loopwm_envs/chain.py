"""Balls on a line that collide elastically: an exact simulation, many chains at once.

Between two collisions every ball moves freely, so a chain goes from collision to collision without
a time step and without error beyond rounding. All chains of a batch take their next collision
together; a chain with none left drops out.
"""

import math
from dataclasses import dataclass

import numpy as np

from loopwm.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Flight:
    """Hold where a batch of chains arrives, and what happened on the way.

    Attributes:
        position: Positions [B,n] in ascending order.
        velocity: Velocities [B,n].
        count: Number of collisions [B].
        depth: Causal depth [B]: collisions in the longest sequence in which each one involves a
            ball of the one before. Depth 1 is many collisions that know nothing of one another.
    """

    position: np.ndarray
    velocity: np.ndarray
    count: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Chain:
    """Describe balls without extent on a line, and simulate them.

    Any unit of length will do; speeds are in that unit per unit of `dt`. A wall reflects like a
    resting ball of infinite mass, and a reflection counts as a collision, in number and in depth.

    Attributes:
        balls: Number of balls n, at least 2.
        dt: Duration of a step, positive.
        masses: Positive mass of each ball from left to right, or None for equal masses, which
            exchange their velocities. Where three balls meet in one point and masses differ, the
            laws of mechanics leave the outcome open; the leftmost pair collides first.
        walls: Positions of the left and the right wall, infinite where there is none.

    Raises:
        ConfigError: If a value is outside its range.
    """

    balls: int = 6
    dt: float = 1.0
    masses: tuple[float, ...] | None = None
    walls: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        """Refuse what is no chain."""
        if self.balls < 2:
            raise ConfigError(f"balls must be at least 2, got {self.balls}")
        if not 0 < self.dt < math.inf:
            raise ConfigError(f"dt must be positive and finite, got {self.dt}")
        if self.masses is not None and len(self.masses) != self.balls:
            raise ConfigError(
                f"masses must hold one mass for each of the {self.balls} balls, got {self.masses}"
            )
        if not all(0 < mass < math.inf for mass in self.masses or ()):
            raise ConfigError(f"masses must be positive and finite, got {self.masses}")
        if not self.walls[0] < self.walls[1]:
            raise ConfigError(f"walls must be (left, right) with left < right, got {self.walls}")

    def advance(self, position: np.ndarray, velocity: np.ndarray) -> Flight:
        """Let each chain of a batch move for `dt`.

        Each row is computed as if it were alone. A collision at the very end of the step belongs
        to it, and not to the next one.

        Args:
            position: Positions [B,n] in ascending order, between the walls.
            velocity: Velocities [B,n].

        Raises:
            ConfigError: If the shapes differ from [B,n], or a chain is impossible.
        """
        self._check(position, velocity)
        x, v = self._with_walls(position, velocity)
        rows, left = np.arange(len(x)), np.full(len(x), float(self.dt))
        count, depth = np.zeros(len(x), np.int64), np.zeros(x.shape, np.int64)
        ratio = self._mass_ratio()
        while rows.size:
            first, wait = _next_collision(x[rows], v[rows])
            collides = wait <= left[rows]
            rows, first, wait = rows[collides], first[collides], wait[collides]
            x[rows] += v[rows] * wait[:, None]
            left[rows] -= wait
            one, other = (rows, first), (rows, first + 1)
            kick = ratio[first] * (v[one] - v[other])
            v[one], v[other] = v[other] + kick, v[one] + kick
            depth[one] = depth[other] = 1 + np.maximum(depth[one], depth[other])
            count[rows] += 1
        x += v * left[:, None]
        # Rounding may put a ball behind its neighbour or a wall by the last digit.
        ordered = np.maximum.accumulate(x[:, 1:-1], axis=1).clip(*self.walls)
        return Flight(ordered, v[:, 1:-1].copy(), count, depth.max(axis=1))

    def _mass_ratio(self) -> np.ndarray:
        """Return (m - m') / (m + m') of neighbours from left to right, walls included [n+1]."""
        mass = np.ones(self.balls) if self.masses is None else np.array(self.masses, float)
        between = (mass[:-1] - mass[1:]) / (mass[:-1] + mass[1:])
        return np.concatenate([[1.0], between, [-1.0]])

    def _with_walls(
        self, position: np.ndarray, velocity: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        x = np.empty((len(position), self.balls + 2))
        x[:, 0], x[:, 1:-1], x[:, -1] = self.walls[0], position, self.walls[1]
        v = np.zeros_like(x)
        v[:, 1:-1] = velocity
        return x, v

    def _check(self, position: np.ndarray, velocity: np.ndarray) -> None:
        for name, value in {"position": position, "velocity": velocity}.items():
            if value.ndim != 2 or value.shape[1] != self.balls or len(value) != len(position):
                raise ConfigError(
                    f"{name} must have the shape (chains, {self.balls}) and as many rows as "
                    f"position, got {value.shape}; a single chain is a batch of one row"
                )
            if not np.isfinite(value).all():
                raise ConfigError(f"{name} must be finite, got {value[~np.isfinite(value)][0]}")
        if (np.diff(position) < 0).any():
            row = int((np.diff(position) < 0).any(axis=1).argmax())
            raise ConfigError(
                f"position must ascend from ball to ball, got {position[row]} in row {row}; sort it"
            )
        if position.size and not self.walls[0] <= position.min() <= position.max() <= self.walls[1]:
            raise ConfigError(
                f"position must lie between the walls {self.walls}, got values from "
                f"{position.min()} to {position.max()}"
            )


def _next_collision(x: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the left partner of the next collision and the time until it, of each row [B]."""
    closing = v[:, :-1] - v[:, 1:]
    # Where rounding has put a ball behind its neighbour, they met a moment ago: a negative time,
    # and as good as any other, since free flight runs back as exactly as it runs on.
    gap = np.diff(x)
    wait = np.full(gap.shape, np.inf)
    # A gap that closes too slowly for a number gives infinity, which is never, as it should be.
    with np.errstate(over="ignore"):
        np.divide(gap, closing, out=wait, where=closing > 0)
    first = wait.argmin(axis=1)
    return first, wait[np.arange(len(first)), first]
