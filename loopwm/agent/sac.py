"""Soft actor-critic by Stable-Baselines3, and the small actor that comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from loopwm.data.actor import Actor, ActorInfo
from loopwm.data.environment import make
from loopwm.data.unclipped import CLIPPED_IDS
from loopwm.errors import ConfigError, EnvironmentUnsupported, require


@dataclass(frozen=True)
class PolicyTraining:
    """Set how a policy is trained by soft actor-critic (arXiv 1812.05905).

    Small networks and one update for two steps: a run is to take minutes of one core, and the
    policies are a source of varied data, not the best that could be had.

    Attributes:
        num_envs: Environments that are stepped together.
        updates_per_step: Gradient updates per environment step.
        batch_size: Transitions per update.
        learning_rate: Step size of all three optimisers.
        entropy_weight: First weight of the entropy, adapted from there. At the usual 1 it would
            take thousands of updates to come down to what these tasks end at.
        target_rate: Share of the critics that their targets take over at each update.
        learning_starts: Environment steps of random actions at the beginning.
        actor: Widths of the actor's hidden layers.
        critic: Widths of the critics' hidden layers.
        evaluations: How often the policy is evaluated and kept as a candidate.
        episodes: Episodes of each evaluation on the way.
        final_episodes: Fresh episodes on which a chosen actor's return is measured.
    """

    num_envs: int = 8
    updates_per_step: float = 0.5
    batch_size: int = 128
    learning_rate: float = 1e-3
    entropy_weight: float = 0.1
    target_rate: float = 0.01
    learning_starts: int = 2_000
    actor: tuple[int, ...] = (64, 64)
    critic: tuple[int, ...] = (128, 128)
    evaluations: int = 24
    episodes: int = 5
    final_episodes: int = 20

    def __post_init__(self) -> None:
        """Refuse settings that cannot be trained with."""
        if self.evaluations < 3:
            raise ConfigError(
                f"evaluations must be at least 3, one for each stage, got {self.evaluations}"
            )
        if self.updates < 1 or self.updates != self.num_envs * self.updates_per_step:
            raise ConfigError(
                "num_envs * updates_per_step must be a positive whole number, got "
                f"{self.num_envs} * {self.updates_per_step}"
            )

    @property
    def updates(self) -> int:
        """Return the number of updates after each step of all environments."""
        return round(self.num_envs * self.updates_per_step)


# What the shipped policies were trained with.
PRESETS: Mapping[str, PolicyTraining] = {
    "Hopper-v5": PolicyTraining(),
    # Learns from fewer updates than a task whose episodes end in a fall.
    "HalfCheetah-v5": PolicyTraining(updates_per_step=0.25),
}


def soft_actor_critic(env_id: str, seed: int, config: PolicyTraining) -> Any:
    """Make an untrained model for a task (arXiv 1812.05905).

    Args:
        env_id: Gymnasium id of the task.
        seed: Seed of the networks, the exploration and the environments. Stable-Baselines3 sets
            the global random generators to it.
        config: How to train.

    Returns:
        A `stable_baselines3.SAC` on the CPU.

    Raises:
        EnvironmentUnsupported: If the task's spaces are not supported.
        MissingExtra: If Stable-Baselines3 is not installed.
    """
    require("stable_baselines3", "agent")
    from stable_baselines3 import SAC
    from stable_baselines3.common.vec_env import DummyVecEnv

    return SAC(
        "MlpPolicy",
        DummyVecEnv([lambda: make_task(env_id)] * config.num_envs),
        learning_rate=config.learning_rate,
        ent_coef=f"auto_{config.entropy_weight}",
        tau=config.target_rate,
        learning_starts=config.learning_starts,
        batch_size=config.batch_size,
        gradient_steps=config.updates,
        policy_kwargs={"net_arch": {"pi": list(config.actor), "qf": list(config.critic)}},
        seed=seed,
        device="cpu",
    )


def actor_of(model: Any, info: ActorInfo) -> Actor:
    """Take the deterministic actor out of a Stable-Baselines3 SAC model.

    Args:
        model: A SAC model with an `MlpPolicy` of ReLU layers.
        info: What to say about it.

    Returns:
        An actor that computes the same actions, to rounding.
    """
    parameters = model.policy.actor.state_dict()
    layers = sorted(
        {int(name.split(".")[1]) for name in parameters if name.startswith("latent_pi.")}
    )
    names = [f"latent_pi.{index}" for index in layers] + ["mu"]
    weights = [
        (parameters[f"{name}.weight"].numpy().copy(), parameters[f"{name}.bias"].numpy().copy())
        for name in names
    ]
    return Actor(weights, model.action_space.low, model.action_space.high, info)


def make_task(env_id: str) -> gym.Env[Any, Any]:
    """Make a task as its policies observe it: velocities unclipped where that is an option.

    Raises:
        ConfigError: If the id is unknown.
        EnvironmentUnsupported: If the actions are not a bounded Box, or the observation not flat.
    """
    env = make(env_id, unclipped=env_id in CLIPPED_IDS)
    action = env.action_space
    if not (isinstance(action, gym.spaces.Box) and action.is_bounded()):
        raise EnvironmentUnsupported(
            f"soft actor-critic needs bounded continuous actions, but {env_id} has {action}"
        )
    return env
