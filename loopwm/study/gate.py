"""Fit a stop rule to a trained model, which stays as it is."""

from typing import TYPE_CHECKING

import torch

from loopwm.core.gate import Gate, features
from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError
from loopwm.study.trace import real_states, trace, with_loop
from loopwm.study.windows import Sampling, window_rows

if TYPE_CHECKING:
    from loopwm.world.ensemble import Ensemble
    from loopwm.world.model import WorldModel

_CONTEXT = 3


def fit_gate(
    model: "WorldModel | Ensemble",
    data: RolloutDataset,
    *,
    tol: float = 0.02,
    max_iters: int | None = None,
    ridge: float = 1e-4,
    sampling: Sampling = Sampling(),
) -> Gate:
    """Solve for the gate's weights by ridge regression on what the loop still changed.

    Args:
        model: A looped model; it is not changed.
        data: Real experience.
        tol: Tolerance of the returned gate; `lw.calibrate(model, data, rule=gate)` chooses one.
        max_iters: Iterations after which the loop counts as ended; by default twice the model's
            typical depth.
        ridge: Penalty on standardised coefficients, relative to the number of examples.
        sampling: Which windows are looked at.

    Raises:
        ConfigError: If the model has no loop of its own.
        DataError: If no episode is long enough.
    """
    model = with_loop(model)
    depth = 2 * model.depth.typical if max_iters is None else max_iters
    inputs, targets = [], []
    for context in range(1, _CONTEXT + 1):
        rows = window_rows(data, 1, context - 1, sampling)
        if not len(rows) and inputs:
            # Every episode is shorter than that: there is no later step to fit.
            break
        if not len(rows):
            raise DataError("the data has no steps")
        h = trace(model, *real_states(model, data, rows, context), depth)
        signal = torch.cat([model.heads.change(h), h], dim=-1)
        left = (signal[-1] - signal[1:-1])[..., : model.obs_dim].square().mean(-1)
        inputs.append(features(signal[1:-1], signal[:-2], model.obs_dim).flatten(0, 1))
        targets.append(left.clamp_min(1e-12).log().flatten() / 2)
    weight = _ridge(torch.cat(inputs).double(), torch.cat(targets).double(), ridge)
    return Gate(weight.float(), model.obs_dim, tol)


def _ridge(x: torch.Tensor, y: torch.Tensor, penalty: float) -> torch.Tensor:
    mean, std = x.mean(0), x.std(0).clamp_min(1e-9)
    mean[0], std[0] = 0, 1
    scaled = (x - mean) / std
    strength = penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    strength[0, 0] = 0
    weight = torch.linalg.solve(scaled.T @ scaled + strength, scaled.T @ y) / std
    weight[0] -= mean @ weight
    return weight
