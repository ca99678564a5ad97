"""Enter a model of your own into a comparison with looped and unlooped models of equal size.

The model here predicts the change by a perceptron with skip connections. All that a comparison
asks of it are the verbs start, observe and step, and a width that makes it larger.
"""

import argparse
from typing import Any

import torch
from torch import nn

import loopwm as lw


class Skipping(nn.Module):
    """Predict change and reward from observation and action, in standard deviations."""

    def __init__(self, data: lw.RolloutDataset, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(data.obs.mean(0), dtype=torch.float32))
        self.register_buffer("std", torch.as_tensor(data.obs.std(0), dtype=torch.float32))
        change = (data.next_obs - data.obs).std(0)
        self.register_buffer("change", torch.as_tensor(change, dtype=torch.float32))
        self.enter = nn.Linear(data.obs_dim + data.action_dim, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.leave = nn.Linear(width, data.obs_dim + 1)

    def start(self, obs: Any) -> tuple[torch.Tensor, ...]:
        """Take the observation as the state."""
        return (torch.as_tensor(obs, dtype=torch.float32),)

    def observe(self, state: Any, action: Any, obs: Any) -> tuple[torch.Tensor, ...]:
        """Forget what was before: the observation says all."""
        return self.start(obs)

    def step(self, state: Any, action: Any) -> tuple[Any, lw.Prediction]:
        """Imagine one step; gradients flow through it in training."""
        obs = state[0]
        h = self.enter(torch.cat([(obs - self.mean) / self.std, torch.as_tensor(action)], dim=1))
        for block in self.blocks:
            h = h + torch.nn.functional.silu(block(h))
        out = self.leave(h)
        following, zero = obs + out[:, :-1] * self.change, torch.zeros(len(obs))
        prediction = lw.Prediction(following, out[:, -1], zero, zero.long(), zero, zero.bool())
        return (following,), prediction


def main(smoke: bool) -> None:
    """Compare it with the looped model, the same cell not looped, and MLPs."""
    steps, updates = (1_500, 10) if smoke else (30_000, 3_000)
    sizes, seeds = ((3_000, 6_000), (0,)) if smoke else ((4_000, 8_000, 16_000, 32_000), (0, 1, 2))
    data = lw.collect("InvertedPendulum-v5", steps=steps, seed=0)
    train, test = data.split(0.7, seed=0)
    report = lw.compare(
        train,
        test,
        {"mine": Skipping, "once": "once", "MLP": (lw.MLP(depth=2), lw.MLP(depth=4))},
        sizes=sizes,
        fit=lw.FitConfig(updates=updates),
        rates=(5e-3,) if smoke else (2.5e-3, 5e-3, 1e-2),
        seeds=seeds,
        horizons=(1, 3),
    )
    print(report)
    for arm, by_horizon in report.ratio.items():
        stands = "" if report.stands(arm) else ", which does not stand yet"
        print(f"{arm}: {by_horizon[1]} times the looped model's parameters at equal error{stands}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
