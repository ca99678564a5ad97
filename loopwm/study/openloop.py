"""Imagine many windows of real experience with the three verbs of a world model."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn

from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError

if TYPE_CHECKING:
    from loopwm.world.protocol import WorldModelLike


@dataclass(frozen=True)
class Imagined:
    """Hold what a model imagined for W windows of H steps.

    Attributes:
        obs: Observation after each step, environment units.
        reward: Reward of each step.
        terminated: Probability that the step is terminal.
        n_iters: Iterations of the loop in each step.
        settled: Whether the loop had settled.
        std: Spread of Gaussian heads, or None.
        disagreement: Spread of the members of an ensemble, or None.
    """

    obs: Float[ndarray, "W H O"]
    reward: Float[ndarray, "W H"]
    terminated: Float[ndarray, "W H"]
    n_iters: Int[ndarray, "W H"]
    settled: Bool[ndarray, "W H"]
    std: Float[ndarray, "W H O"] | None = None
    disagreement: Float[ndarray, "W H O"] | None = None


@dataclass(frozen=True)
class Imagination:
    """Say how a model imagines.

    Attributes:
        context: Real observations taken in before the first imagined step, at least 1.
        feedback: "observation" or "latent", or None for the model's own default.
        halt: Stop rule of the loop, or None for the model's own default.
        max_iters: Most iterations, or None for the model's own default.
        batch_size: Windows imagined at once.
    """

    context: int = 1
    feedback: str | None = None
    halt: Any = None
    max_iters: int | None = None
    batch_size: int = 1024

    def __post_init__(self) -> None:
        """Check the context.

        Raises:
            ConfigError: If it holds no observation.
        """
        if self.context < 1:
            raise ConfigError(f"context must be at least 1, got {self.context}")

    @property
    def rule(self) -> dict[str, Any]:
        """The keywords that `observe` is given: those that differ from the model's default."""
        given = {"halt": self.halt, "max_iters": self.max_iters}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def options(self) -> dict[str, Any]:
        """The keywords that `step` is given: those that differ from the model's default."""
        return self.rule if self.feedback is None else {"feedback": self.feedback, **self.rule}


def imagine_windows(
    model: "WorldModelLike",
    dataset: RolloutDataset,
    rows: Int[ndarray, " W"],
    horizon: int,
    how: Imagination,
) -> Imagined:
    """Imagine the `horizon` steps from each of `rows`, under the actions that were really taken.

    Args:
        model: Anything with the verbs start, observe and step.
        dataset: The real experience.
        rows: First row of each window; the window, and `how.context - 1` rows before it, must lie
            inside one episode.
        horizon: Steps of each window.
        how: What the model sees first and how it goes on.
    """
    device = device_of(model)
    parts = [
        _imagine(model, dataset, rows[first : first + how.batch_size], horizon, how, device)
        for first in range(0, len(rows), how.batch_size)
    ]
    joined = {}
    for each in fields(Imagined):
        columns = [getattr(part, each.name) for part in parts]
        joined[each.name] = None if columns[0] is None else np.concatenate(columns)
    return Imagined(**joined)


def device_of(model: object) -> torch.device:
    """Return the device of a model's parameters, the CPU where it has none."""
    if isinstance(model, nn.Module):
        for tensor in model.parameters():
            return tensor.device
        for tensor in model.buffers():
            return tensor.device
    return torch.device("cpu")


def _imagine(
    model: "WorldModelLike",
    dataset: RolloutDataset,
    rows: Int[ndarray, " W"],
    horizon: int,
    how: Imagination,
    device: torch.device,
) -> Imagined:
    with torch.no_grad():
        outs = list(_steps(model, dataset, rows, horizon, how, device))

    def stack(name: str) -> ndarray | None:
        if getattr(outs[0], name) is None:
            return None
        return np.stack([getattr(out, name).cpu().numpy() for out in outs], axis=1)

    return Imagined(
        obs=_required(stack("next_obs")),
        reward=_required(stack("reward")),
        terminated=_required(stack("terminated")),
        n_iters=_required(stack("n_iters")),
        settled=_required(stack("settled")),
        std=stack("std"),
        disagreement=stack("disagreement"),
    )


def _steps(
    model: "WorldModelLike",
    dataset: RolloutDataset,
    rows: Int[ndarray, " W"],
    horizon: int,
    how: Imagination,
    device: torch.device,
) -> Iterator[Any]:
    def obs(offset: int) -> Tensor:
        return torch.as_tensor(dataset.obs[rows + offset], dtype=torch.float32, device=device)

    def action(offset: int) -> Tensor:
        dtype = torch.int64 if dataset.discrete else torch.float32
        return torch.as_tensor(dataset.action[rows + offset], dtype=dtype, device=device)

    first = 1 - how.context
    state = model.start(obs(first))
    for offset in range(first, 0):
        state = model.observe(state, action(offset), obs(offset + 1), **how.rule)
    for offset in range(horizon):
        state, out = model.step(state, action(offset), **how.options)
        yield out


def _required(array: ndarray | None) -> ndarray:
    if array is None:
        raise TypeError("a prediction must state next_obs, reward, terminated, n_iters, settled")
    return array
