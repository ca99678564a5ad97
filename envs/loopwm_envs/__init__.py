"""Simulators with known difficulty, as Gymnasium environments named `loopwm/...`.

Importing this package or using loopwm registers them. Gymnasium 1.x reads no plugin entry points,
so without either name the package in the id: `gymnasium.make("loopwm_envs:loopwm/BallChain-v0")`.
"""

import gymnasium as gym

from loopwm_envs.ball_chain import BallChainEnv
from loopwm_envs.chain import Chain, Flight
from loopwm_envs.counterfactual import Counterfactual, without_collision
from loopwm_envs.difficulty import TransitionDifficulty
from loopwm_envs.transitions import (
    Transitions,
    sample_balanced,
    sample_states,
    sample_transitions,
    simulate,
)

__all__ = [
    "BallChainEnv",
    "Chain",
    "Counterfactual",
    "Flight",
    "TransitionDifficulty",
    "Transitions",
    "sample_balanced",
    "sample_states",
    "sample_transitions",
    "simulate",
    "without_collision",
]

if "loopwm/BallChain-v0" not in gym.registry:  # loopwm may have been used before
    gym.register(
        id="loopwm/BallChain-v0",
        entry_point="loopwm_envs.ball_chain:BallChainEnv",
        max_episode_steps=200,
    )
