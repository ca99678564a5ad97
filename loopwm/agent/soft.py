"""A soft actor-critic of Stable-Baselines3 without an environment, and its state as arrays."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch.nn import functional

from loopwm.agent.config import SoftActorCritic
from loopwm.errors import require

_PARTS = ("actor", "critic")


def soft_actor_critic_for(
    config: SoftActorCritic, obs_dim: int, action_space: gym.spaces.Box
) -> Any:
    """Make an untrained model that is given its batches; it steps no environment itself.

    Args:
        config: How to learn.
        obs_dim: Number of observation dimensions.
        action_space: The space of its actions.

    Returns:
        A `stable_baselines3.SAC` on the CPU, with weights from torch's global generator.

    Raises:
        MissingExtra: If Stable-Baselines3 is not installed.
    """
    require("stable_baselines3", "agent")
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import Logger

    entropy = config.target_entropy
    model = SAC(
        _policy_class(config.layer_norm),
        _Spaces(obs_dim, action_space),
        learning_rate=config.lr,
        buffer_size=1,
        batch_size=config.batch_size,
        tau=config.target_rate,
        gamma=config.discount,
        ent_coef=f"auto_{config.entropy_weight}",
        target_entropy="auto" if entropy is None else entropy,
        policy_kwargs={"net_arch": {"pi": list(config.actor), "qf": list(config.critic)}},
        device="cpu",
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


class _NormalisedReLU(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:]).relu()


def _policy_class(layer_norm: bool) -> Any:
    from stable_baselines3.sac.policies import SACPolicy

    class NormalisedCritics(SACPolicy):
        """Networks of SAC whose critics normalise; the actor stays what `Actor` can compute."""

        def make_critic(self, features_extractor: Any = None) -> Any:
            self.critic_kwargs["activation_fn"] = _NormalisedReLU
            return super().make_critic(features_extractor)

    return NormalisedCritics if layer_norm else SACPolicy


def save_tensors(model: Any) -> dict[str, np.ndarray]:
    """Return weights, targets, entropy weight and optimiser states of a model, by name."""
    tensors = {f"weights/{name}": each for name, each in model.policy.state_dict().items()}
    tensors["entropy/weight"] = model.log_ent_coef.detach()
    for name, optimizer in _optimizers(model).items():
        for index, entry in optimizer.state_dict()["state"].items():
            for kind, value in entry.items():
                tensors[f"{name}/{index}/{kind}"] = value
    return {name: each.numpy().copy() for name, each in tensors.items()}


def load_tensors(model: Any, tensors: dict[str, np.ndarray]) -> None:
    """Continue from what `save_tensors` returned."""
    values = {name: torch.from_numpy(each).clone() for name, each in tensors.items()}
    weights = {
        name.removeprefix("weights/"): each
        for name, each in values.items()
        if name.startswith("weights/")
    }
    model.policy.load_state_dict(weights)
    with torch.no_grad():
        model.log_ent_coef.copy_(values["entropy/weight"])
    for name, optimizer in _optimizers(model).items():
        state: dict[int, dict[str, torch.Tensor]] = {}
        for full, value in values.items():
            if full.startswith(f"{name}/"):
                _, index, kind = full.rsplit("/", 2)
                state.setdefault(int(index), {})[kind] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def _optimizers(model: Any) -> dict[str, torch.optim.Optimizer]:
    found = {f"optimizer-{part}": getattr(model, part).optimizer for part in _PARTS}
    return found | {"optimizer-entropy": model.ent_coef_optimizer}


class _Spaces(gym.Env[np.ndarray, np.ndarray]):
    """Tell Stable-Baselines3 the spaces; it is never stepped."""

    def __init__(self, obs_dim: int, action_space: gym.spaces.Box) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = action_space
