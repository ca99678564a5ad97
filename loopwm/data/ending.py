"""Where a dataset can tell anything about how episodes end."""

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from loopwm.data.store import RolloutDataset


def can_terminate(dataset: RolloutDataset) -> Bool[ndarray, " N"]:
    """Say in which rows a terminal step could have happened, by how the environment was made.

    That an episode went on where the environment ends none says nothing about where it would end.
    """
    if "can_terminate" in dataset.info:
        return dataset.info["can_terminate"].astype(bool)
    variants = max(1, len(dataset.meta.variants))
    able = [
        dataset.meta.settings(each).get("terminate_when_unhealthy", True) is not False
        for each in range(variants)
    ]
    variant = dataset.info.get("variant", np.zeros(len(dataset), np.int64))
    return np.asarray(able)[variant.astype(np.int64)]
