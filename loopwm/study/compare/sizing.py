"""Make a shape as large as asked, and count what it costs."""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from loopwm.core import count
from loopwm.data.normalise import Statistics
from loopwm.data.replay import Windows
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.seed import torch_rng
from loopwm.study.compare.own import Units, check_verbs, verbs_loss
from loopwm.study.compare.terms import Shape, Terms
from loopwm.train.config import FitConfig
from loopwm.train.optim import build_optimizers
from loopwm.world.build import build
from loopwm.world.config import ModelConfig
from loopwm.world.objective import sequence_loss
from loopwm.world.terms import Objective

_WIDEST = 4096
_TIMED = 30
# Many rows at once rather than many draws: what takes time is to count, not to compute.
_COUNTED_ROWS = 256


def make(
    shape: Shape, width: int, data: RolloutDataset, seed: int = 0, name: str = ""
) -> nn.Module:
    """Build an untrained model of a shape.

    Args:
        shape: Configuration whose width is set, or a factory of the user's.
        width: Width.
        data: Training data, for units and dimensions.
        seed: Seed of the weights.
        name: What messages call it.
    """
    if isinstance(shape, ModelConfig):
        return build(replace(shape, width=width), data.meta, Statistics.of(data), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return check_verbs(shape(data, width), name)


def width_for(shape: Shape, parameters: int, data: RolloutDataset, name: str = "") -> int:
    """Find the width whose number of parameters is nearest to a number, by their ratio.

    Args:
        shape: What is sized; its parameters must not fall with the width.
        parameters: Parameters aimed at.
        data: Training data, for the dimensions.
        name: What messages call it.

    Raises:
        ConfigError: If no width comes within a factor of two.
    """
    # Two episodes tell the dimensions as well as all do.
    few = data.select_episodes(np.arange(min(2, data.num_episodes)))
    sizes: dict[int, int] = {}

    def size(width: int) -> int:
        if width not in sizes:
            sizes[width] = count.parameters(make(shape, width, few, 0, name))
        return sizes[width]

    low, high = 1, 1
    while size(high) < parameters and high < _WIDEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < parameters else (low, middle)
    best = min((low, high), key=lambda width: abs(math.log(size(width) / parameters)))
    if abs(math.log(size(best) / parameters)) > math.log(2):
        raise ConfigError(
            f"the arm {name!r} cannot have about {parameters:,} parameters: with width={best} it "
            f"has {size(best):,}; choose other sizes"
        )
    return best


def training_flops(
    model: nn.Module, data: RolloutDataset, terms: Terms, own: Objective | None = None
) -> float:
    """Count the floating-point operations of matrix products in a whole training run.

    Losses and their gradients are run and counted at every horizon of the curriculum; random depths
    are averaged over some hundred rows. What the optimiser multiplies is counted too: Muon's share
    is a few per cent of a looped model's update, and may be half of a perceptron's.

    Args:
        model: A built model; its weights are not changed.
        data: Training data.
        terms: How it is trained.
        own: What a module of the user's own is trained on (`loss_of_own`); by default the usual.
    """
    fit, given = terms.fit, terms.context - 1
    total = 0.0
    step = _loss_of(model, data, terms, own)
    windows = Windows(data, given + fit.horizon)
    per_row: dict[int, float] = {}
    for update in range(fit.updates):
        horizon = fit.horizon_at(update)
        if horizon not in per_row:
            per_row[horizon] = _counted(model, step, windows, given + horizon)
        total += per_row[horizon] * fit.batch_size
    return total + fit.updates * _optimiser_flops(model, fit)


def _optimiser_flops(model: nn.Module, fit: FitConfig) -> int:
    """Count what one step of the optimisers takes, whatever the batch."""
    copy = deepcopy(model).requires_grad_(True)
    for ours, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        vars(ours).update(vars(theirs))  # what keeps a parameter from an optimiser is not copied
        ours.grad = torch.ones_like(ours)
    optimisers = build_optimizers(list(copy.parameters()), fit)
    return sum(count.matmul_flops(each.step) for each in optimisers)


def seconds_per_update(model: nn.Module, data: RolloutDataset, terms: Terms) -> float:
    """Time one update at the full horizon in CPU seconds of this machine, the best of three.

    Args:
        model: A built model; its weights are not changed.
        data: Training data.
        terms: How it is trained.
    """
    step = _loss_of(model, data, terms)
    windows = Windows(data, terms.context - 1 + terms.fit.horizon)
    generator, taken = torch_rng(0, "time"), []
    batch = windows.sample(terms.fit.batch_size, generator)
    for _ in range(3):
        started = time.process_time()
        _backward(model, step, batch, generator)
        taken.append(time.process_time() - started)
    return min(taken)


def latency(model: Any, data: RolloutDataset) -> float:
    """Time one imagined transition of a single row, in milliseconds: the median of some."""
    obs, action = torch.as_tensor(data.obs[:1]).float(), torch.as_tensor(data.action[:1])
    action = action.float() if action.is_floating_point() else action
    taken = []
    with torch.no_grad():
        state = model.start(obs)
        for _ in range(_TIMED):
            started = time.perf_counter()
            model.step(state, action)
            taken.append(time.perf_counter() - started)
    return 1e3 * float(np.median(taken))


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


_Step = Callable[[Any, torch.Generator], torch.Tensor]


def _loss_of(model: Any, data: RolloutDataset, terms: Terms, own: Objective | None = None) -> _Step:
    if isinstance(getattr(model, "config", None), ModelConfig):
        return lambda batch, generator: sequence_loss(model, batch, generator)[0]
    weights = own or Objective(context=terms.context)
    loss = partial(verbs_loss, units=Units.of(data, torch.device("cpu")), weights=weights)
    return lambda batch, generator: loss(model, batch)[0]


def _counted(model: nn.Module, step: _Step, windows: Windows, length: int) -> float:
    """Return the operations of one row's share in an update over windows of this length."""
    generator = torch_rng(0, "flops")
    batch = windows.sample(_COUNTED_ROWS, generator).steps(length)
    total = count.matmul_flops(lambda: _backward(model, step, batch, generator))
    return total / _COUNTED_ROWS


def _backward(model: nn.Module, step: _Step, batch: Any, generator: torch.Generator) -> None:
    kept = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    training = model.training
    model.train().requires_grad_(True).zero_grad()
    # As training does it: what counts the operations cannot follow `torch.autograd.grad` into
    # modules that are given a weight, as weights under a constraint are.
    step(batch, generator).backward()
    for parameter, wanted, gradient in kept:
        parameter.grad = gradient
        parameter.requires_grad_(wanted)
    model.train(training)
