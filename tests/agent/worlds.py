"""Tiny real environments whose best returns are known."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class PointEnv(gym.Env):
    """x' = x + a / 4, rewarded by -|x'|; ten steps from a place in [-1, 1]."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    length = 10

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.x, self.steps = self.np_random.uniform(-1, 1, 1).astype(np.float32), 0
        return self.x.copy(), {}

    def step(self, action: Any):
        self.x = (self.x + np.asarray(action, np.float32) / 4).astype(np.float32)
        self.steps += 1
        return self.x.copy(), -float(abs(self.x[0])), False, self.steps >= self.length, {}


class NarrowEnv(PointEnv):
    """Like PointEnv, with bounds in 64 bits that 32 bits cannot hold, and no mercy beyond them."""

    action_space = Box(-0.1, 0.1, (1,), np.float64)

    def step(self, action: Any):
        assert self.action_space.contains(action), action
        return super().step(10 * action)


class Levers(gym.Env):
    """Three levers, of which the second pays 1; the first ends the episode. Five steps."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any):
        self.steps += 1
        obs = np.array([self.steps, int(action)], np.float32)
        return obs, float(action == 1), bool(action == 0), self.steps >= 5, {}


def best_return(x: float) -> float:
    """Return what PointEnv pays at best: every step brings x closer by a quarter, until it is 0."""
    return -sum(max(0.0, abs(x) - k / 4) for k in range(1, PointEnv.length + 1))
