"""What tells training runs apart, so that a stopped one goes on only as it began."""

import zlib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from loopwm.data.ending import can_terminate
from loopwm.data.store import RolloutDataset
from loopwm.world.build import encode
from loopwm.world.config import ModelConfig
from loopwm.world.model import WorldModel


def identity(
    config: ModelConfig,
    data: RolloutDataset,
    valid: RolloutDataset | None,
    init: WorldModel | None,
) -> dict[str, Any]:
    """Return as JSON values what a continuation must share, beside how it is trained.

    Args:
        config: What is trained.
        data: Training data.
        valid: Held-out data, or None.
        init: The model that training goes on from, or None.
    """
    return {
        "model": encode(config),
        "data": _data(data),
        "valid": None if valid is None else _data(valid),
        "init": init_identity(init),
    }


def init_identity(init: WorldModel | None) -> int | None:
    """Return a checksum of the model that training goes on from, if there is one."""
    return None if init is None else _weights(init)


def _data(data: RolloutDataset) -> dict[str, Any]:
    """Return what tells datasets apart: their numbers, how steps ended, what the columns mean."""
    meta = data.meta
    return {
        "rows": len(data),
        "checksum": _checksum((data.obs, data.next_obs, data.action, data.reward)),
        "labels": _checksum((data.terminated, data.truncated, data.episode, can_terminate(data))),
        "action_low": _bounds(meta.action_low),
        "action_high": _bounds(meta.action_high),
        "num_actions": None if meta.num_actions is None else int(meta.num_actions),
        "angles": [int(index) for index in meta.angles],
    }


def _bounds(bounds: tuple[float, ...] | None) -> str | None:
    # As text, because a bound may be infinite, which JSON has no number for.
    return None if bounds is None else str([float(bound) for bound in bounds])


def _weights(model: WorldModel) -> int:
    """Return a checksum of a model's weights and statistics, and of the margin it was set to."""
    # numpy has no bfloat16.
    state = (v.float() if v.dtype == torch.bfloat16 else v for v in model.state_dict().values())
    weights = (value.detach().cpu().numpy() for value in state)
    each = (getattr(model.stats, each.name) for each in fields(model.stats))
    margin = np.array(np.nan if model.margin is None else model.margin)
    return _checksum((*weights, *(value for value in each if value is not None), margin))


def _checksum(columns: Iterable[np.ndarray]) -> int:
    checks = [zlib.crc32(np.ascontiguousarray(column).data) for column in columns]
    return zlib.crc32(np.array(checks, np.int64).tobytes())
