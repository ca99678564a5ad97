"""The training loss row by row and step by step, through the public verbs, up to each row's end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import loopwm as lw


def sequence_loss(
    model: Any,
    batch: Any,
    depths: Sequence[int],
    taps: Sequence[int] | None = None,
    hidden: np.ndarray | None = None,
) -> float:
    """The loss of windows whose steps hide their observation where `hidden` [B, K] says so.

    As many real observations as the objective's context are shown before steps are imagined. The
    error is that of predictions that nothing holds to the data's range; what is fed back is held.
    """
    weights, stats, margin = model.config.objective, model.stats, model.margin
    errors: list[float] = []
    sizes: list[float] = []
    early: list[float] = []
    rewards: list[float] = []
    endings: list[float] = []
    spreads: list[float] = []
    drifts: list[float] = []
    for row, depth in enumerate(depths):
        steps = int(batch.valid[row].sum())
        state = model.start(batch.obs[row, :1])
        if taps is not None:
            halt = lw.Fixed(taps[row])
            model.margin = None
            tapped = model.predict(batch.obs[row, :1], batch.action[row, :1], halt=halt)
            model.margin = margin
            early.append(counted(unit_error(tapped.next_obs[0], batch.obs[row, 1], stats), weights))
        if weights.settle and model.depth.typical > 1:
            # What is carried on is the loop's state: after the row's depth, and once more.
            ends = [
                model.step(state, batch.action[row, :1], halt=lw.Fixed(depth + more))[0][3]
                for more in (0, 1)
            ]
            drifts.append(float((ends[1] - ends[0]).norm() / ends[0].norm()) ** 2)
        for k in range(steps):
            feedback = "latent" if hidden is not None and hidden[row, k] else "observation"
            action, real = batch.action[row, k : k + 1], batch.obs[row, k + 1]
            before, halt = state, lw.Fixed(depth)
            state, fed = model.step(before, action, halt=halt, feedback=feedback)
            model.margin = None
            _, out = model.step(before, action, halt=halt, feedback=feedback)
            model.margin = margin
            if k + 1 < weights.context:
                state = model.observe(before, action, real[None], halt=halt)
            errors.append(counted(unit_error(out.next_obs[0], real, stats), weights))
            sizes.append(1 / max(1, k + 2 - weights.context) ** weights.decay)
            miss = (float(out.reward[0]) - float(batch.reward[row, k])) / float(stats.reward_std)
            rewards.append(miss**2)
            p = float(fed.terminated[0])
            if bool(batch.can_end[row, k]):
                endings.append(-np.log(p if bool(batch.terminated[row, k]) else 1 - p))
            if k == 0 and out.std is not None:
                spreads.append(likelihood(out.next_obs[0], real, out.std[0], stats))
    total = np.average(errors, weights=sizes) + weights.reward * np.mean(rewards)
    total += weights.termination * np.mean(endings) if endings else 0.0
    total += weights.intermediate * np.mean(early) if early else 0.0
    total += weights.settle * np.mean(drifts) if drifts else 0.0
    total += 0.1 * np.mean(spreads) if spreads else 0.0
    return float(total)


def unit_error(imagined: torch.Tensor, real: torch.Tensor, stats: Any) -> float:
    """Mean squared error in standard deviations of the one-step change."""
    z = (imagined - real).detach().numpy() / stats.change_std
    return float(np.mean(z**2))


def counted(squared: float, weights: Any) -> float:
    """What an error counts: its square, or where `robust` says so the size that is beyond it."""
    if weights.robust == 0:
        return squared
    return float(np.hypot(np.sqrt(squared), weights.robust)) - weights.robust


def likelihood(imagined: torch.Tensor, real: torch.Tensor, std: torch.Tensor, stats: Any) -> float:
    """Gaussian negative log likelihood up to a constant, in the same unit."""
    spread = std.detach().numpy() / stats.change_std
    z = (imagined - real).detach().numpy() / stats.change_std / spread
    return float(np.mean(0.5 * z**2 + np.log(spread)))
