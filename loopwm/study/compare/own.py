"""Train a module of the user's own by the verbs alone, as our models are trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.batch import SequenceBatch
from loopwm.data.normalise import Statistics
from loopwm.data.replay import Windows
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.train.config import FitConfig
from loopwm.train.fit import device_of, run
from loopwm.world.backflow import limited
from loopwm.world.objective import counted
from loopwm.world.terms import Objective

_VALIDATION_WINDOWS = 2048


@dataclass(frozen=True, eq=False)
class Units:
    """Hold the units of the loss.

    Attributes:
        change: Standard deviation of the one-step change of each dimension.
        reward: Standard deviation of the reward.
    """

    change: Float[Tensor, " O"]
    reward: float

    @classmethod
    def of(cls, data: RolloutDataset, device: torch.device) -> "Units":
        """Return the units that the training data gives."""
        stats = Statistics.of(data)
        change = torch.as_tensor(stats.change_std, dtype=torch.float32, device=device)
        return cls(change, float(stats.reward_std))


def check_verbs(module: Any, name: str) -> nn.Module:
    """Return what a factory made, if it can be trained and evaluated.

    Raises:
        ConfigError: If it is no module, has no parameters, or lacks one of the verbs.
    """
    lacking = [
        verb for verb in ("start", "observe", "step") if not callable(getattr(module, verb, None))
    ]
    if not isinstance(module, nn.Module) or lacking:
        raise ConfigError(
            f"the arm {name!r} must be a torch.nn.Module with start, observe and step "
            f"(lw.WorldModelLike), got {type(module).__name__}"
            + (f" without {', '.join(lacking)}" if lacking else "")
        )
    if not any(True for _ in module.parameters()):
        raise ConfigError(f"the arm {name!r} has no parameters: there is nothing to train")
    return module


def verbs_loss(
    model: Any, batch: SequenceBatch, units: Units, weights: Objective
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of our own models (`loopwm.world.objective`), computed by the verbs.

    Args:
        model: Anything with the verbs whose predictions keep their gradient.
        batch: Windows of real experience, in environment units.
        units: Units of observations and rewards.
        weights: Weights of the parts; those that concern iterations play no part.

    Returns:
        The scalar loss, and the error as a metric.
    """
    state, errors, rewards, ends = model.start(batch.obs[:, 0]), [], [], []
    for k in range(batch.action.shape[1]):
        before, action = state, batch.action[:, k]
        state, out = model.step(before, action)
        errors.append(((out.next_obs - batch.obs[:, k + 1]) / units.change).square().mean(-1))
        rewards.append(((out.reward - batch.reward[:, k]) / units.reward).square())
        ends.append(
            F.binary_cross_entropy(
                out.terminated.clamp(1e-7, 1 - 1e-7),
                batch.terminated[:, k].to(out.terminated.dtype),
                reduction="none",
            )
        )
        if k + 1 < weights.context:
            state = model.observe(before, action, batch.obs[:, k + 1])
        state = limited(state, weights.row_clip)
    valid = batch.valid.to(errors[0].dtype)
    ahead = torch.arange(valid.shape[1], device=valid.device) + 2 - weights.context
    weight = valid * ahead.clamp_min(1).to(valid.dtype) ** -weights.decay
    squared = torch.stack(errors, dim=1)
    loss = (counted(squared, weights) * weight).sum() / weight.sum().clamp_min(1e-9)
    count = valid.sum().clamp_min(1)
    loss = loss + weights.reward * (torch.stack(rewards, dim=1) * valid).sum() / count
    # Where the environment was kept from ending, nothing is learned of when it would have.
    asked = (batch.valid & batch.can_end).to(valid.dtype)
    ending = (torch.stack(ends, dim=1) * asked).sum() / asked.sum().clamp_min(1)
    loss = loss + weights.termination * ending
    return loss, {"error": ((squared * valid).sum() / count).detach().sqrt()}


def fit_own(
    module: nn.Module,
    data: RolloutDataset,
    config: FitConfig,
    weights: Objective,
    *,
    valid: RolloutDataset,
    run_dir: Path | None = None,
) -> list[dict[str, Any]]:
    """Train a module in place on the windows that `lw.fit` would draw from the same seed.

    Args:
        module: What to train.
        data: Training data.
        config: How to train.
        weights: Weights of the loss.
        valid: Held-out data for validation.
        run_dir: Directory of checkpoints; None writes nothing.

    Returns:
        The training metrics.
    """
    device, given = device_of(config), weights.context - 1
    length = given + config.horizon
    windows, held = Windows(data, length, device), Windows(valid, length, device)
    units = Units.of(data, device)
    # In float64: float32 rounds large row numbers.
    count = min(_VALIDATION_WINDOWS, len(held))
    rows = torch.linspace(0, len(held) - 1, count, dtype=torch.float64)
    fixed = held.at(rows.long().to(device))

    def loss(
        model: nn.Module, batch: SequenceBatch, update: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        steps = given + config.horizon_at(update)
        value, metrics = verbs_loss(model, batch.steps(steps), units, weights)
        return value, {**metrics}

    history = run(
        module,
        loss,
        lambda generator, size: windows.sample(size, generator),
        config,
        run_dir=run_dir,
        validate=lambda model: float(verbs_loss(model, fixed, units, weights)[1]["error"]),
    )
    module.requires_grad_(False).eval()
    return list(history.records)
