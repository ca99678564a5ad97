"""Environments stepped side by side, each of which keeps its own numbers of `info`."""

from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv

DIFFICULTY = "difficulty/"


class Lanes(SyncVectorEnv[Any, Any]):
    """Step environments side by side, and keep of their `info` what becomes a column.

    Gymnasium puts what the lanes report into one array of the type and the shape that the first
    of them has: an integer there cuts the fractions off all others, and what does not fit is an
    error, be it asked for or not.

    Args:
        make: Makes the environment of a lane.
        count: Number of lanes, at least 1.
        info_keys: Names in `info` to keep, beside those that begin with `DIFFICULTY`.

    Attributes:
        reported: What each lane reported in its latest step or reset.
    """

    def __init__(
        self, make: Callable[[], gym.Env[Any, Any]], count: int, info_keys: Iterable[str]
    ) -> None:
        self._wanted = frozenset(info_keys)
        self.reported: list[dict[str, Any]] = [{} for _ in range(count)]
        super().__init__([make] * count, copy=False, autoreset_mode=AutoresetMode.DISABLED)

    def _add_info(
        self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int
    ) -> dict[str, Any]:
        self.reported[env_num] = {
            name: value
            for name, value in env_info.items()
            if name in self._wanted or str(name).startswith(DIFFICULTY)
        }
        return vector_infos
