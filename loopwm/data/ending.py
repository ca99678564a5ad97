"""Where a dataset can tell anything about how episodes end."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from jaxtyping import Bool
from numpy import ndarray

if TYPE_CHECKING:
    from loopwm.data.store import RolloutDataset


def can_terminate(dataset: "RolloutDataset") -> Bool[ndarray, " N"]:
    """Say in which rows a terminal step could have happened, by how the environment was made.

    That an episode went on where the environment ends none says nothing about where it would end.
    """
    if "can_terminate" in dataset.info:
        return dataset.info["can_terminate"].astype(bool)
    variants = max(1, len(dataset.meta.variants))
    able = [
        bool(dataset.meta.settings(each).get("terminate_when_unhealthy", True))
        for each in range(variants)
    ]
    if not (dataset.meta.variants and "variant" in dataset.info):
        return np.full(len(dataset), able[0])
    return np.asarray(able)[dataset.info["variant"].astype(np.int64)]


def known_ending(dataset: "RolloutDataset", env: gym.Env[Any, Any]) -> "RolloutDataset":
    """Note what only the environment itself says of its episodes: that it does not end them.

    A function that makes environments leaves no settings in the description of the data.

    Args:
        dataset: Rows of the environment.
        env: The environment.
    """
    ends = getattr(env.unwrapped, "_terminate_when_unhealthy", True)
    if ends or not can_terminate(dataset).any():
        return dataset
    never = np.zeros(len(dataset), bool)
    return replace(dataset, info={**dataset.info, "can_terminate": never})
