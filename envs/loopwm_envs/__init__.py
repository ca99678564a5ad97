"""Simulators with known difficulty, as Gymnasium environments named `loopwm/...`.

Importing this package or using loopwm registers them. Gymnasium 1.x reads no plugin entry points,
so without either name the package in the id: `gymnasium.make("loopwm_envs:loopwm/BallChain-v0")`.
"""

from loopwm.data.registration import register
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

register()
