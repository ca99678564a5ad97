"""The ball chain as a Gymnasium environment."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from loopwm.errors import ConfigError
from loopwm_envs.chain import Chain
from loopwm_envs.transitions import sample_states

# Standard deviation of velocities after a reset, least and greatest, in mean gaps per step.
SPEEDS = (0.2, 2.0)


class BallChainEnv(gym.Env[np.ndarray, np.ndarray]):
    """Push the first ball of a chain to bring the last one to the middle.

    Balls collide elastically between two walls that reflect, so the state stays bounded; a
    reflection counts as a collision (see `Chain`, which is the whole physics). The last ball can
    be reached through the others only.

    - Action: Box [-1,1] of shape (1,), clipped into it; `max_impulse` times it is the momentum
      given to the first ball before the balls move for `frame_skip` times `dt`. Speeds are then
      cut at `max_speed`, which only a push or unequal masses can exceed.
    - Observation: positions from left to right, then velocities, float64 (2 n,). The middle of the
      line is 0.
    - Reward: minus the distance of the last ball from the middle after the step, over the length
      of the line, in [-0.5, 0].
    - Reset: uniform positions, normal velocities of a spread drawn anew (see `sample_states`),
      cut at `max_speed`.
    - Episodes never terminate, and are truncated by the registered time limit.
    - `info["difficulty/count"]` is the number of collisions in the step, and
      `info["difficulty/depth"]` its causal depth (see `Flight`).

    Args:
        balls: Number of balls n, at least 2.
        dt: Duration of a step, positive.
        masses: Mass of each ball from left to right, or None if all are 1.
        length: Distance between the walls, positive; by default a mean gap of 1.
        max_impulse: Greatest momentum that an action gives, positive.
        max_speed: Speed of a ball at the beginning of a step, at most; positive. Where masses
            differ, collisions can make a light ball faster within the step.
        frame_skip: How many times `dt` the balls move after each push, at least 1. Speeds after a
            reset do not depend on it, so that one step spans more collisions.

    Raises:
        ConfigError: If an argument is out of its range.
    """

    def __init__(
        self,
        balls: int = 6,
        dt: float = 1.0,
        masses: tuple[float, ...] | None = None,
        length: float | None = None,
        max_impulse: float = 0.5,
        max_speed: float = 5.0,
        frame_skip: int = 1,
    ) -> None:
        if frame_skip < 1:
            raise ConfigError(f"frame_skip must be at least 1, got {frame_skip}")
        length = float(balls) if length is None else length
        limits = {"length": length, "max_impulse": max_impulse, "max_speed": max_speed}
        for name, value in limits.items():
            if not 0 < value < np.inf:
                raise ConfigError(f"{name} must be positive and finite, got {value}")
        self.chain = Chain(balls, dt, masses, walls=(-length / 2, length / 2))
        self.length, self.max_impulse, self.max_speed = length, max_impulse, max_speed
        self.frame_skip = frame_skip
        self._interval = replace(self.chain, dt=frame_skip * dt)
        self._masses = np.ones(balls) if masses is None else np.array(masses, float)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = self._observation_space()
        self.position, self.velocity = np.zeros(balls), np.zeros(balls)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a new state; no options are known."""
        super().reset(seed=seed)
        position, velocity = sample_states(self.np_random, 1, self.chain, SPEEDS)
        self.position = position[0]
        self.velocity = velocity[0].clip(-self.max_speed, self.max_speed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Push the first ball, then let the chain move for `frame_skip` times `dt`.

        Args:
            action: Share of `max_impulse` [1], in [-1, 1].

        Raises:
            ConfigError: If the action is not finite.
        """
        push = float(np.clip(action, -1, 1)[0])
        if not np.isfinite(push):
            raise ConfigError(f"action must be finite, got {action}; check the policy")
        pushed = self.velocity.copy()
        pushed[0] += push * self.max_impulse / self._masses[0]
        pushed = pushed.clip(-self.max_speed, self.max_speed)
        flight = self._interval.advance(self.position[None], pushed[None])
        self.position, self.velocity = flight.position[0], flight.velocity[0]
        labels = {"count": flight.count, "depth": flight.depth}
        info = {f"difficulty/{name}": int(label[0]) for name, label in labels.items()}
        return self._observation(), self._reward(), False, False, info

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.position, self.velocity])

    def _reward(self) -> float:
        return -abs(float(self.position[-1])) / self.length

    def _observation_space(self) -> Box:
        # Equal masses exchange velocities. Otherwise one ball may get all the energy there is.
        alike = np.ptp(self._masses) == 0
        gain = 1.0 if alike else np.sqrt(self._masses.sum() / self._masses.min())
        place = np.full(self.chain.balls, self.length / 2)
        high = np.concatenate([place, np.full(self.chain.balls, gain * self.max_speed)])
        return Box(-high, high, dtype=np.float64)
