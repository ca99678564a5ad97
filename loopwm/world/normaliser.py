"""Standardise what enters a model and restore what leaves it; the statistics travel with it."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.data.normalise import Statistics

_ARRAYS = ("obs_mean", "obs_std", "change_mean", "change_std", "reward_mean", "reward_std")


class Normaliser(nn.Module):
    """Map environment units to standard deviations and back.

    Args:
        statistics: Statistics of the training data.
        action_dim: Width of the action once encoded: A, or the number of discrete actions.
        discrete: Whether actions are indices.
        angles: Observation dimensions that are angles without limit.
    """

    obs_mean: Tensor
    obs_std: Tensor
    change_mean: Tensor
    change_std: Tensor
    reward_mean: Tensor
    reward_std: Tensor
    action_mid: Tensor
    action_half: Tensor
    change_scale: Tensor
    change_shift: Tensor
    obs_low: Tensor
    obs_high: Tensor
    obs_width: Tensor
    angles: Tensor
    straight: Tensor

    def __init__(
        self,
        statistics: Statistics,
        action_dim: int,
        discrete: bool,
        angles: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.statistics = statistics
        self.discrete = discrete
        self.action_dim = action_dim
        for name in _ARRAYS:
            self.register_buffer(name, torch.as_tensor(getattr(statistics, name)).float().clone())
        low, high = statistics.action_low, statistics.action_high
        if low is None or high is None:
            low, high = -np.ones(action_dim, np.float32), np.ones(action_dim, np.float32)
        self.register_buffer("action_mid", torch.as_tensor((high + low) / 2))
        half = torch.as_tensor((high - low) / 2)
        # A dimension with one value only is no scale: it stays in its own unit.
        self.register_buffer("action_half", torch.where(half > 0, half, 1))
        # One step's change, predicted in its own standard deviations, moves the standardised
        # observation by change_scale * prediction + change_shift.
        self.register_buffer("change_scale", self.change_std / self.obs_std)
        self.register_buffer("change_shift", self.change_mean / self.obs_std)
        # The range, standardised. It is the data's and not the weights': training that goes on
        # from a model on further data widens it.
        for name in ("obs_low", "obs_high"):
            value = torch.as_tensor(getattr(statistics, name)).float()
            self.register_buffer(name, self.obs(value), persistent=False)
        # A turn more or less is the same place, so an angle has no range to be held to. The width
        # is finite all the same: none of it is to be no margin, not NaN.
        turning = torch.zeros(len(statistics.obs_mean), dtype=torch.bool)
        turning[list(angles)] = True
        width = (self.obs_high - self.obs_low).clamp_min(1)
        self.register_buffer("obs_width", width, persistent=False)
        self.obs_low[turning], self.obs_high[turning] = -torch.inf, torch.inf
        self.register_buffer("angles", turning.nonzero().flatten(), persistent=False)
        self.register_buffer("straight", (~turning).nonzero().flatten(), persistent=False)

    def obs(self, obs: Float[Tensor, "*B O"]) -> Float[Tensor, "*B O"]:
        """Standardise observations."""
        return (obs - self.obs_mean) / self.obs_std

    def restore_obs(self, obs: Float[Tensor, "*B O"]) -> Float[Tensor, "*B O"]:
        """Return standardised observations to environment units."""
        return obs * self.obs_std + self.obs_mean

    def shown(self, obs: Float[Tensor, "*B O"], clip: float) -> Float[Tensor, "*B X"]:
        """Return what a model sees of standardised observations.

        Args:
            obs: Standardised observations.
            clip: Largest magnitude seen.

        Returns:
            The clipped observations; where some are angles without limit, those left out, and
            their sines and cosines at the end.
        """
        if not len(self.angles):
            return obs.clamp(-clip, clip)
        angle = obs[..., self.angles] * self.obs_std[self.angles] + self.obs_mean[self.angles]
        straight = obs[..., self.straight].clamp(-clip, clip)
        return torch.cat([straight, angle.sin(), angle.cos()], dim=-1)

    def within(
        self, obs: Float[Tensor, "*B O"], before: Float[Tensor, "*B O"], margin: float
    ) -> Float[Tensor, "*B O"]:
        """Hold standardised observations, but for angles, to the range of the training data.

        Args:
            obs: Where a step leads.
            before: Where it began; what began outside the range may stay there, or come back.
            margin: How far beyond the range, as a share of its width in each dimension; a width
                below one standard deviation counts as that.
        """
        reach = margin * self.obs_width
        low = torch.minimum(self.obs_low - reach, before)
        return torch.clamp(obs, low, torch.maximum(self.obs_high + reach, before))

    def action(self, action: Tensor) -> Float[Tensor, "*B A"]:
        """Scale actions to [-1, 1], or encode indices as one-hot vectors."""
        if self.discrete:
            return F.one_hot(action.long(), self.action_dim).to(self.obs_mean.dtype)
        return (action - self.action_mid) / self.action_half

    def restore_action(self, action: Float[Tensor, "*B A"]) -> Tensor:
        """Return encoded actions to environment units, or to indices."""
        if self.discrete:
            return action.argmax(-1)
        return action * self.action_half + self.action_mid

    def reward(self, reward: Tensor) -> Tensor:
        """Standardise rewards."""
        return (reward - self.reward_mean) / self.reward_std

    def restore_reward(self, reward: Tensor) -> Tensor:
        """Return standardised rewards to environment units."""
        return reward * self.reward_std + self.reward_mean
