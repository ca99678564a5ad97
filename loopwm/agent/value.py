"""What an agent goes on to gain, learned from its own real steps: the value beyond a horizon."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.agent.config import TerminalValue
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.seed import torch_rng
from loopwm.world.latent import action_width
from loopwm.world.normaliser import Normaliser

# Standard deviations at which inputs are clipped, as those of models are.
_CLIP = 10.0


class ValueFunction(nn.Module):
    """Map observations in environment units to discounted rewards that are still to come.

    A planner looks for the places where it is wrong. So it says the least of what its members say,
    who differ where there was no data, and nothing that the rewards of its data cannot add up to.

    Args:
        config: Its members and their layers.
        data: The data that it is for; tells its units.
        discount: Weight of a reward relative to that of the step before, below 1.
        generator: Draws the weights.
    """

    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        config: TerminalValue,
        data: RolloutDataset,
        discount: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        meta = data.meta
        self.normaliser = Normaliser(
            Statistics.of(data), action_width(meta), data.discrete, meta.angles
        )
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise([data.obs_dim + len(meta.angles), *config.width, 1]):
            for layer, rows in ((self.weights, inputs), (self.biases, 1)):
                drawn = torch.rand(config.members, rows, outputs, generator=generator)
                layer.append(nn.Parameter((2 * drawn - 1) * inputs**-0.5))
        within = lambda_returns(data, np.zeros(len(data)), discount, 1.0)
        spread = float(within.std())
        # An episode that ends gains nothing more.
        least, most = min(0.0, float(data.reward.min())), max(0.0, float(data.reward.max()))
        for name, value in {
            "centre": float(within.mean()),
            "scale": spread if spread > 1e-6 * (1 + float(np.abs(within).max())) else 1.0,
            "low": least / (1 - discount),
            "high": most / (1 - discount),
        }.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, obs: Float[Tensor, "R O"]) -> Float[Tensor, " R"]:
        """Return the least that a member says of each observation."""
        return self.each(obs).amin(0)

    def each(self, obs: Float[Tensor, "R O"]) -> Float[Tensor, "M R"]:
        """Return what every member says of each observation."""
        said = self.standard(obs.expand(len(self.weights[0]), -1, -1))
        return (self.centre + self.scale * said).clamp(self.low, self.high)

    def standard(self, obs: Float[Tensor, "M R O"]) -> Float[Tensor, "M R"]:
        """Return what each member says of observations of its own, in the units of training."""
        hidden = self.normaliser.shown(self.normaliser.obs(obs.to(self.scale)), _CLIP)
        *inner, outer = zip(self.weights, self.biases, strict=True)
        for weight, bias in inner:
            hidden = F.silu(torch.baddbmm(bias, hidden, weight))
        return torch.baddbmm(outer[1], hidden, outer[0]).squeeze(-1)

    def arrays(self) -> dict[str, ndarray]:
        """Return everything that `restore_value` needs, by name."""
        return {name: each.numpy().copy() for name, each in self.state_dict().items()}


def fit_value(
    config: TerminalValue, data: RolloutDataset, discount: float, seed: int
) -> ValueFunction:
    """Train a value on what an agent did and gained.

    Args:
        config: How.
        data: All its real steps. Where an episode was cut, the value itself stands for the rest;
            where it terminated, there is none.
        discount: Weight of a reward relative to that of the step before, below 1.
        seed: Seed of weights and batches.
    """
    generator = torch_rng(seed, "value")
    value = ValueFunction(config, data, discount, generator)
    optimizer = torch.optim.Adam(value.parameters(), lr=config.lr, fused=True)
    obs, next_obs = (torch.as_tensor(each).float() for each in (data.obs, data.next_obs))
    every = math.ceil(config.updates / config.sweeps)
    target = obs.new_zeros(0)
    for update in range(config.updates):
        if update % every == 0:
            with torch.no_grad():
                after = value.each(next_obs).mean(0).double().numpy()
            returns = torch.as_tensor(lambda_returns(data, after, discount, config.trace))
            target = (returns.to(obs) - value.centre) / value.scale
        uniform = torch.rand(config.members, config.batch_size, generator=generator)
        rows = (len(obs) * uniform ** (1 / (1 + config.recency))).long().clamp_max(len(obs) - 1)
        loss = (value.standard(obs[rows]) - target[rows]).square().mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return value.requires_grad_(False)


def restore_value(
    config: TerminalValue, data: RolloutDataset, arrays: dict[str, Any]
) -> ValueFunction:
    """Return the value that was saved as arrays.

    Args:
        config: How it was trained.
        data: Data of the same environment.
        arrays: What `ValueFunction.arrays` returned.
    """
    value = ValueFunction(config, data, 0.0, torch.Generator())
    value.load_state_dict({name: torch.from_numpy(each) for name, each in arrays.items()})
    return value.requires_grad_(False)


def lambda_returns(
    data: RolloutDataset, after: Float[ndarray, " N"], discount: float, trace: float
) -> Float[ndarray, " N"]:
    """Return what followed each step (Sutton and Barto 2018, equation 12.18).

    Args:
        data: Whole episodes.
        after: Value of each step's next observation, which counts unless the step terminated.
        discount: Weight of a reward relative to that of the step before.
        trace: Weight of the next step's own return against `after`, but where a cut hides it.
    """
    last = np.diff(data.episode, append=data.num_episodes) != 0
    kept = np.where(data.terminated, 0.0, discount)
    # What does not depend on the next step's return, and the weight of that return.
    weight = np.where(last, 0.0, kept * trace)
    known = data.reward + (kept - weight) * after
    returns, following = np.empty(len(data)), 0.0
    for row in range(len(data) - 1, -1, -1):
        returns[row] = following = known[row] + weight[row] * following
    return returns
