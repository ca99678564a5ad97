"""Experience of excitations alone, a part each: for tasks and intervals without policies."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from loopwm.data.collect import collect
from loopwm.data.concat import concat
from loopwm.data.environment import Source
from loopwm.data.excitation import OpenLoop, OrnsteinUhlenbeck, Sines, Uniform
from loopwm.data.standard import shares
from loopwm.data.store import RolloutDataset
from loopwm.data.unclipped import CLIPPED_IDS
from loopwm.errors import ConfigError
from loopwm.seed import key

KINDS: dict[str, OpenLoop] = {
    "uniform": Uniform(),
    "wandering": OrnsteinUhlenbeck(),
    "sines": Sines(),
}


def collect_excited(
    source: Source, rows: int, seed: int, env_kwargs: Mapping[str, Any]
) -> RolloutDataset:
    """Collect equal parts of every kind of excitation.

    Where the standard mixture has episodes that end in a fall and others that do not, so has this:
    excited Hoppers fall within a few steps, and long windows would be missing.

    Args:
        source: Gymnasium id, or a function that makes the environment.
        rows: Number of rows, at least a few for every kind and setting.
        seed: Non-negative integer.
        env_kwargs: Arguments for the environment.

    Returns:
        A dataset of exactly `rows` rows; `meta.parts` names the kinds.

    Raises:
        ConfigError: If there are fewer rows than kinds and settings.
    """
    clipped = source in CLIPPED_IDS
    ends = [{"terminate_when_unhealthy": each} for each in (True, False)] if clipped else [{}]
    pieces = [(kind, settings) for kind in KINDS for settings in ends]
    if rows < len(pieces):
        raise ConfigError(
            f"{rows} rows are too few for {len(pieces)} kinds and settings of excitation"
        )
    datasets = []
    for index, ((kind, settings), count) in enumerate(
        zip(pieces, shares(rows, len(pieces)), strict=True)
    ):
        own = int(key(seed, "excited", index).generate_state(1)[0])
        found = collect(
            source,
            count,
            own,
            KINDS[kind],
            env_kwargs={**env_kwargs, **settings},
            unclipped=clipped,
            progress=False,
        )
        able = np.full(len(found), settings.get("terminate_when_unhealthy", True))
        datasets.append(replace(found, info={**found.info, "can_terminate": able}))
    mixture = concat(datasets, [kind for kind, _ in pieces])
    return replace(mixture, meta=replace(mixture.meta, seed=seed, policy="excitations alone"))
