"""Learn an environment of your own, and plan in imagination by trying random action sequences.

The environment is a ball on a rail that a fan pushes; the reward is known, so the model is given
the function instead of learning it.
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import loopwm as lw


class Fan(gym.Env[np.ndarray, np.ndarray]):
    """A ball at position x with speed v; wind pushes it, friction slows it. Keep it at 0."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Put the ball somewhere."""
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-2.0, 2.0, 2)
        self.steps = 0
        return self.state.astype(np.float32), {}

    def step(self, action: np.ndarray):
        """Blow for a tenth of a second."""
        x, v = self.state
        v += 0.1 * (float(action[0]) - 0.3 * v * abs(v) - 0.2 * np.sin(3 * x))
        self.state = np.array([x + 0.1 * v, v])
        self.steps += 1
        obs = self.state.astype(np.float32)
        return obs, float(-(obs[0] ** 2)), bool(abs(obs[0]) > 5), self.steps >= 100, {}


def reward(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
    """Give the reward that the environment gives."""
    return -next_obs[..., 0].square()


def best_first_action(
    model: lw.WorldModel, obs: np.ndarray, rng: np.random.Generator, candidates: int
) -> np.ndarray:
    """Imagine random action sequences of 20 steps; return the start of the best."""
    actions = np.repeat(rng.uniform(-1, 1, (candidates, 4, 1)), 5, axis=1).astype(np.float32)
    starts = np.repeat(obs[None], len(actions), axis=0)
    imagined = model.imagine(starts, actions)
    return actions[int(imagined.reward.sum(axis=1).argmax()), 0]


def main(smoke: bool) -> None:
    """Collect, train, then act at random and by planning."""
    steps, updates, episodes, candidates = (1_000, 30, 1, 4) if smoke else (20_000, 2_000, 5, 256)
    data = lw.collect(Fan, steps=steps, seed=0)
    model = lw.fit(data, lw.WorldConfig(width=32), lw.FitConfig(updates=updates))
    assert isinstance(model, lw.WorldModel)
    model.use(reward_fn=reward)

    env, rng = Fan(), np.random.default_rng(0)
    for name in ("random", "planned in imagination"):
        totals = []
        for episode in range(episodes):
            obs, _ = env.reset(seed=episode)
            total, over = 0.0, False
            while not over:
                if name == "random":
                    action = rng.uniform(-1, 1, 1)
                else:
                    action = best_first_action(model, obs, rng, candidates)
                obs, gained, terminated, truncated, _ = env.step(action)
                total, over = total + gained, terminated or truncated
            totals.append(total)
        print(f"{name:24} mean return {np.mean(totals):.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
