"""Train on some of the experience and test on other: what lies beyond what was learned from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError
from loopwm.study.compare.grid import HELD_OUT
from loopwm.study.datasets import velocity_dims

# Shares of the rows: the slower half is trained on, the fastest quarter lies beyond. The quarter
# between them is not used, so that the two do not touch.
SLOW, FAST = 0.5, 0.75


@dataclass(frozen=True)
class Shift:
    """Say what is kept from training and tested instead.

    Attributes:
        label: What tables call it.
        mixture: The experience that it needs: "standard", "excitation" or "models"; "" for any.
        apart: Parts that are kept from training; none where fast episodes are.
    """

    label: str
    mixture: str = ""
    apart: tuple[str, ...] = ()

    def applies(self, task: str, standard: Sequence[str]) -> bool:
        """Say whether a task has what the shift needs.

        Args:
            task: Gymnasium id.
            standard: The tasks whose policies ship.
        """
        if self.mixture == "standard":
            return task in standard
        if self.mixture == "models":
            spec = gym.registry.get(task)
            return spec is not None and "mujoco" in str(spec.entry_point)
        return True


SHIFTS = {
    "policies": Shift(
        "late policies, from excitation and policies early and middle in training",
        *("standard", ("late",)),
    ),
    "speeds": Shift("fast episodes, from slow ones"),
    "excitations": Shift(
        "excitation by sines, from uniform and wandering", "excitation", ("sines",)
    ),
    "models": Shift("combinations of gear and damping, from others", "models", HELD_OUT),
}


def cut(parts: Mapping[str, RolloutDataset], shift: Shift) -> dict[str, RolloutDataset]:
    """Keep what a shift keeps from training apart, for a test of its own.

    Args:
        parts: Experience of all kinds: "train", "valid" and "test".
        shift: What is kept apart.

    Returns:
        The same without it, and "shifted", which is it, of the test episodes: no choice is made by
        it.

    Raises:
        DataError: If one of them would be empty.
    """
    inside, beyond = _rules(parts["train"], shift)
    kept = {name: _episodes(data, inside, f"{shift.label}: {name}") for name, data in parts.items()}
    return kept | {"shifted": _episodes(parts["test"], beyond, f"{shift.label}: shifted test")}


_Rule = Callable[[RolloutDataset], Bool[ndarray, " E"]]


def _rules(train: RolloutDataset, shift: Shift) -> tuple[_Rule, _Rule]:
    """Return which episodes lie inside, and which beyond."""
    if shift.apart:
        return lambda data: ~_of_parts(data, shift.apart), lambda data: _of_parts(data, shift.apart)
    scale = _scale(train)
    slow, fast = _limits(train, scale)
    return (
        lambda data: episode_speeds(data, scale) <= slow,
        lambda data: episode_speeds(data, scale) > fast,
    )


def _of_parts(data: RolloutDataset, parts: Sequence[str]) -> Bool[ndarray, " E"]:
    named = [data.meta.parts.index(name) for name in parts if name in data.meta.parts]
    return np.isin(data.info["part"][data.bounds[:-1]], named)


def _episodes(data: RolloutDataset, rule: _Rule, name: str) -> RolloutDataset:
    chosen = np.flatnonzero(rule(data))
    if len(chosen) == 0:
        raise DataError(f"{name} has no episode; use more rows")
    return data.select_episodes(chosen)


def episode_speeds(data: RolloutDataset, scale: Float[ndarray, " O"]) -> Float[ndarray, " E"]:
    """Return how fast each episode is: the mean over its steps of the root mean square velocity.

    Args:
        data: Experience.
        scale: Unit of each dimension.

    Returns:
        A number for each episode; where no dimension is named a velocity, from the changes of all.
    """
    dims = velocity_dims(data)
    moved = data.obs[:, dims] if dims else data.next_obs - data.obs
    unit = scale[dims] if dims else scale
    rows = np.sqrt(np.square(moved / unit, dtype=np.float64).mean(axis=1))
    return np.add.reduceat(rows, data.bounds[:-1]) / np.diff(data.bounds)


def _scale(data: RolloutDataset) -> Float[ndarray, " O"]:
    """Return the spread of velocities, or of changes where none is named one."""
    values = data.obs if velocity_dims(data) else data.next_obs - data.obs
    std = values.std(axis=0).astype(np.float64)
    return np.where(std > 0, std, 1.0)


def _limits(data: RolloutDataset, scale: Float[ndarray, " O"]) -> tuple[float, float]:
    """Return the speeds below which the given shares of the rows lie, whole episodes counted."""
    speeds, lengths = episode_speeds(data, scale), np.diff(data.bounds)
    order = np.argsort(speeds)
    share = np.cumsum(lengths[order]) / len(data)
    places = np.searchsorted(share, (SLOW, FAST)).clip(max=len(order) - 1)
    slow, fast = speeds[order][places]
    return float(slow), float(fast)
