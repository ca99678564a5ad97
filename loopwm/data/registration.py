"""Our environments, registered with Gymnasium, which reads no plugins."""

import gymnasium as gym


def register() -> None:
    """Register the environments that are not registered yet; nothing of them is imported."""
    if "loopwm/Imagination-v0" not in gym.registry:
        gym.register(
            id="loopwm/Imagination-v0",
            entry_point="loopwm.agent.single:ImaginationEnv",
            vector_entry_point="loopwm.agent.imagination:ImaginationVectorEnv",
        )
    if "loopwm/BallChain-v0" not in gym.registry:
        gym.register(
            id="loopwm/BallChain-v0",
            entry_point="loopwm_envs.ball_chain:BallChainEnv",
            max_episode_steps=200,
        )
