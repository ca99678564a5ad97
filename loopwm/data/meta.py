"""What a dataset says about itself: where its rows come from and what their columns mean."""

import functools
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from typing import Any

from loopwm.errors import ConfigError, StoreError

_PACKAGES = ("loopwm", "gymnasium", "mujoco", "numpy")


@dataclass(frozen=True)
class DatasetMeta:
    """Describe the origin and the columns of a dataset.

    Attributes:
        env_id: Gymnasium id, or the name of the factory that made the environment.
        env_kwargs: Arguments of the environment that all episodes share.
        variants: Arguments that differ between episodes; the column `variant` indexes them.
        unclipped: Whether velocities are stored as simulated rather than clipped to +-10.
        seed: The seed of the collection, or None where it is not known or there are several.
        policy: What chose the actions.
        versions: Version of each package that took part.
        dropped: Number of episodes cut short, by reason.
        action_low: Lower bound of each action dimension, or None for discrete actions.
        action_high: Upper bound of each action dimension, or None for discrete actions.
        num_actions: Number of discrete actions, or None for continuous ones.
        bounds_derived: Whether bounds, or the number of actions, are what occurs in the data, for
            want of those of the environment, which may be wider.
        obs_names: A name for each observation dimension, or None.
        obs_kept: Indices of the stored dimensions in the environment's own observation, or None
            when all are stored.
        angles: Observation dimensions that are angles in radians without limit: a full turn leads
            back to the same state, though not to the same number.
        dt: Seconds of simulated time per step, or None where the environment has no clock.
        parts: Names of the parts of a mixture; the column `part` indexes them.
    """

    env_id: str = ""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    variants: tuple[dict[str, Any], ...] = ()
    unclipped: bool = False
    seed: int | None = None
    policy: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    action_low: tuple[float, ...] | None = None
    action_high: tuple[float, ...] | None = None
    num_actions: int | None = None
    bounds_derived: bool = False
    obs_names: tuple[str, ...] | None = None
    obs_kept: tuple[int, ...] | None = None
    angles: tuple[int, ...] = ()
    dt: float | None = None
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Bring arguments, bounds and angles into the form in which they are stored."""
        object.__setattr__(self, "env_kwargs", plain(self.env_kwargs, "env_kwargs"))
        object.__setattr__(
            self, "variants", tuple(plain(each, "variants") for each in self.variants)
        )
        for name, kind in (("action_low", float), ("action_high", float), ("angles", int)):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, tuple(kind(each) for each in values))
        for name in ("seed", "num_actions", "dt"):
            object.__setattr__(self, name, plain(getattr(self, name), name))

    def settings(self, variant: int = 0) -> dict[str, Any]:
        """Return the arguments of the environment that made the episodes of one variant."""
        return self.env_kwargs | (self.variants[variant] if self.variants else {})

    def variants_with(self, settings: Mapping[str, Any]) -> list[int]:
        """List the variants whose environment was made with some arguments.

        Raises:
            ConfigError: If one is nothing that a dataset can record.
        """
        wanted = plain(settings, "settings")
        return [
            index
            for index in range(max(1, len(self.variants)))
            # Not as sets: a range is stored as a list, which a set cannot hold.
            if wanted == {k: v for k, v in self.settings(index).items() if k in wanted}
        ]

    def keep_obs(self, kept: Sequence[int]) -> "DatasetMeta":
        """Return the description of the same rows with some of the observation dimensions."""
        before, names = self.obs_kept, self.obs_names
        return replace(
            self,
            obs_kept=tuple(index if before is None else before[index] for index in kept),
            obs_names=None if names is None else tuple(names[index] for index in kept),
            angles=tuple(place for place, index in enumerate(kept) if index in self.angles),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values, infinite numbers as `{"float": "inf"}`."""
        document = asdict(self)
        if not self.bounds_derived:
            # Earlier versions, which do not know the field, go on reading what is collected.
            del document["bounds_derived"]
        return _encode(document)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "DatasetMeta":
        """Read what `to_json` wrote.

        Raises:
            StoreError: If a field is missing or unknown.
        """
        known = {each.name for each in fields(cls)}
        document = {"bounds_derived": False, **document}
        if document.keys() != known:
            wrong = sorted(document.keys() ^ known)
            raise StoreError(f"the description of the dataset has wrong or missing fields: {wrong}")
        values = _decode(document)
        for name in (
            *("variants", "action_low", "action_high"),
            *("obs_names", "obs_kept", "angles", "parts"),
        ):
            values[name] = None if values[name] is None else tuple(values[name])
        return cls(**values)


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape collected data."""
    return {"python": platform.python_version()} | {
        name: version for name in _PACKAGES if (version := _version(name))
    }


def plain(value: Any, name: str) -> Any:
    """Return `value` made of JSON types alone.

    Args:
        value: Nested dicts, lists and tuples of numbers, strings, booleans and None.
        name: What to call it in an error.

    Raises:
        ConfigError: If it holds anything else.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, dict):
        return {str(key): plain(each, f"{name}[{key!r}]") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, name) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        f"{name} is a {type(value).__name__}, which a dataset cannot record; "
        "pass a function that makes the environment instead of its id"
    )


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encode(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"float"} and isinstance(value["float"], str):
            return float(value["float"])
        return {key: _decode(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_decode(each) for each in value]
    return value
