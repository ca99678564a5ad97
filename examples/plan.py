"""Plan in a learned model, and ask how well the model tells good plans from bad ones.

An inverted pendulum is balanced by each planner in turn, in the real environment.
"""

import argparse
import time

import gymnasium as gym
import numpy as np

import loopwm as lw
from loopwm.agent.shooting import Shooting
from loopwm.study.candidates import Trial, simulated_candidates

TASK = "InvertedPendulum-v5"


def upright(obs, action, next_obs):
    """Reward a pole that stands still: what to want is told, how things move is learned."""
    return (
        1 - 10 * next_obs[..., 1] ** 2 - 0.1 * next_obs[..., 0] ** 2 - 0.01 * next_obs[..., 3] ** 2
    )


def balance(policy, steps: int) -> tuple[int, float]:
    """Return for how many steps the pole stood, and the mean time of an action in milliseconds."""
    env = gym.make(TASK)
    obs, _ = env.reset(seed=0)
    stood, clock = 0, time.perf_counter()
    while stood < steps:
        obs, _, terminated, _, _ = env.step(policy(obs))
        stood += 1
        if terminated:
            break
    return stood, 1e3 * (time.perf_counter() - clock) / stood


def main(smoke: bool) -> None:
    """Train, judge, and plan."""
    steps, updates, most = (2_000, 20, 3) if smoke else (20_000, 2_000, 60)
    train, test = lw.collect(TASK, steps, seed=0).split(0.9, seed=0)
    model = lw.fit(train, lw.WorldConfig(width=32), lw.FitConfig(updates=updates))
    assert isinstance(model, lw.WorldModel)
    trial = Trial(states=2, candidates=16, horizon=4) if smoke else Trial(horizon=4)
    print(lw.evaluate_planning(model, simulated_candidates(test, trial)))

    model.use(reward_fn=upright, termination_fn=lambda obs, action, new: abs(new[..., 1]) > 0.2)
    for kind in (lw.CEM, lw.ICEM, lw.MPPI, Shooting):
        planner = kind(model, iterations=1 if smoke else 3, horizon=12, halt=lw.Fixed(4))
        stood, spent = balance(planner.plan, most)
        print(
            f"{kind.__name__:9} the pole stood for {stood} of {most} steps, {spent:.0f} ms a plan"
        )
    stood, _ = balance(lambda obs: np.zeros(1, np.float32), most)
    print(f"nothing   the pole stood for {stood} of {most} steps")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
