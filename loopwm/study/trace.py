"""Look inside the loop: what is decoded after each iteration."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.study.openloop import device_of
from loopwm.world.dynamics import Run
from loopwm.world.ensemble import Ensemble

if TYPE_CHECKING:
    from loopwm.world.model import WorldModel
    from loopwm.world.protocol import State


def with_loop(model: "WorldModel | Ensemble") -> "WorldModel":
    """Return a model whose loop can be looked into.

    Raises:
        ConfigError: If it has none, or several.
    """
    members = getattr(model, "members", None)
    if members is not None:
        raise ConfigError(
            f"the model is an ensemble of {len(members)}, each with a loop of its own; "
            "pass one of its members"
        )
    found = cast("WorldModel", model)
    found.core  # noqa: B018 - raises for a model without a loop
    return found


def has_loop(model: object) -> bool:
    """Say whether a model refines by a loop; a user's own, of which it is not known, counts as one.

    Args:
        model: A model or an ensemble.
    """
    one: Any = model.members[0] if isinstance(model, Ensemble) else model
    return hasattr(one.dynamics, "core") if hasattr(one, "dynamics") else True


@torch.no_grad()
def trace(
    model: "WorldModel", state: "State", action: Tensor, depth: int
) -> Float[Tensor, "T B D"]:
    """Return the features after 1, 2, ..., `depth` iterations of one environment step.

    Each is that of a run of its own: what is traced is what inference does.

    Args:
        model: A looped model.
        state: State of the rows before the step.
        action: Actions in environment units.
        depth: Most iterations, at least 1.
    """
    scaled = model.normaliser.action(action)
    return torch.stack([model.advance(state, scaled, Run(t)).feature for t in range(1, depth + 1)])


def squared_errors(
    model: "WorldModel",
    data: RolloutDataset,
    rows: Int[ndarray, " W"],
    obs: Float[ndarray, "*T W O"],
    horizon: int = 1,
) -> Float[ndarray, "*T W"]:
    """Return each window's squared error after `horizon` steps, mean over dimensions.

    Args:
        model: Its training data give the unit, standard deviations of the observation.
        data: What really happened.
        rows: First row of each window.
        obs: What was imagined after the steps, in environment units.
        horizon: Steps of the windows.
    """
    error = (obs - data.next_obs[rows + horizon - 1]) / model.stats.obs_std
    return np.square(error, dtype=np.float64).mean(axis=-1)


def real_states(
    model: "WorldModel", data: RolloutDataset, rows: Int[ndarray, " W"], context: int
) -> tuple["State", Tensor]:
    """Return the states after `context` real observations, the last at `rows`, and the actions.

    Args:
        model: The model.
        data: Real experience.
        rows: Row of the last observation taken in; the `context - 1` rows before it must belong to
            the same episode.
        context: Real observations, at least 1.
    """
    device = device_of(model)

    def tensor(column: ndarray) -> Tensor:
        dtype = torch.float32 if column.dtype.kind == "f" else torch.int64
        return torch.as_tensor(np.ascontiguousarray(column), dtype=dtype, device=device)

    first = rows - context + 1
    with torch.no_grad():
        state = model.start(tensor(data.obs[first]))
        for row in range(context - 1):
            at = first + row
            state = model.observe(state, tensor(data.action[at]), tensor(data.obs[at + 1]))
    return state, tensor(data.action[rows])
