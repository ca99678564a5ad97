"""Trained policies as files: small actors that run on numpy alone, and the ones that ship."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from loopwm.errors import ConfigError, DataError, StoreError
from loopwm.files import write_file
from loopwm.files.single import read_regular

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Stage = Literal["early", "middle", "late"]
STAGES: tuple[Stage, ...] = ("early", "middle", "late")
SHIPPED = Path(__file__).parent / "actors"

_HEADER = "loopwm.actor"
_SCHEMA = 1
_MAX_BYTES = 2**24


@dataclass(frozen=True)
class ActorInfo:
    """Describe where an actor comes from and what it achieves.

    Attributes:
        env_id: Gymnasium id of the task it was trained on.
        seed: Training seed.
        stage: Which point of its training's return it is from.
        step: Environment steps of training behind it.
        mean_return: Mean return of its deterministic actions, measured after it was chosen.
        return_std: Standard deviation of those returns over episodes.
        episodes: Number of episodes behind the mean.
        unclipped: Whether it observes velocities as simulated rather than clipped.
        training: The settings of its training.
        versions: Version of each package that took part.
    """

    env_id: str
    seed: int
    stage: Stage
    step: int
    mean_return: float
    return_std: float
    episodes: int
    unclipped: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def split(self) -> Split:
        """Say whether data of this policy is for training or for testing."""
        return split_of(self.seed)

    @property
    def filename(self) -> str:
        """Name its file below the directory of actors."""
        return f"{self.env_id.lower()}/seed{self.seed}-{self.stage}.safetensors"


class Actor:
    """Act by a trained network: ReLU layers, then the mean squashed by tanh into the bounds.

    Each observation is computed alone, so that an action depends, bit for bit, on nothing but
    the observation in front of it.

    Args:
        weights: Pairs of weight [out, in] and bias [out], first layer first.
        low: Lower bound of each action dimension.
        high: Upper bound of each action dimension.
        info: Its origin.

    Raises:
        StoreError: If the shapes do not fit each other or a number is not finite.
    """

    def __init__(
        self,
        weights: list[tuple[np.ndarray, np.ndarray]],
        low: np.ndarray,
        high: np.ndarray,
        info: ActorInfo,
    ) -> None:
        self.weights = [(_float32(w), _float32(b)) for w, b in weights]
        self.low, self.high, self.info = _float32(low), _float32(high), info
        _check_shapes(self.weights, self.low, self.high)
        self._centre, self._half = (self.low + self.high) / 2, (self.high - self.low) / 2

    @property
    def obs_dim(self) -> int:
        """Return the number of observation dimensions."""
        return self.weights[0][0].shape[1]

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Return the deterministic action for one observation.

        Args:
            obs: Observation [O].

        Returns:
            Action [A], float32, inside the bounds.

        Raises:
            DataError: If the observation has another shape than the network takes.
        """
        if np.shape(obs) != (self.obs_dim,):
            raise DataError(
                f"the actor for {self.info.env_id} takes observations of shape "
                f"({self.obs_dim},), got {np.shape(obs)}"
            )
        hidden = np.asarray(obs, np.float32)
        *layers, (weight, bias) = self.weights
        for inner_weight, inner_bias in layers:
            hidden = np.maximum(inner_weight @ hidden + inner_bias, 0.0)
        action = self._centre + self._half * np.tanh(weight @ hidden + bias)
        # Rounding may cross a bound.
        return np.minimum(np.maximum(action, self.low), self.high)

    def begin(
        self, rng: np.random.Generator, action_space: gym.Space[Any], horizon: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Start an episode (see `loopwm.data.policy.Policy`).

        Raises:
            DataError: If the environment's actions have other bounds than the actor's.
        """
        del rng, horizon
        box = action_space if isinstance(action_space, gym.spaces.Box) else None
        if box is None or not all(
            np.array_equal(_float32(theirs), ours)
            for theirs, ours in ((box.low, self.low), (box.high, self.high))
        ):
            raise DataError(
                f"the actor for {self.info.env_id} gives actions between {self.low} and "
                f"{self.high}, but the environment takes {action_space}"
            )
        if box.dtype == np.float32:
            return self
        # A bound may lie elsewhere in 64 bits.
        return lambda obs: np.clip(self(obs), box.low, box.high)

    def __repr__(self) -> str:
        """Name the task, the seed and the stage."""
        return f"Actor({self.info.env_id}, seed={self.info.seed}, {self.info.stage})"

    def save(self, path: Path | str) -> None:
        """Write the actor to one safetensors file, whole or not at all.

        Raises:
            StoreError: If the file system fails.
        """
        tensors = {"low": self.low, "high": self.high}
        for index, (weight, bias) in enumerate(self.weights):
            tensors |= {f"{index}.weight": weight, f"{index}.bias": bias}
        header = {
            "schema": _SCHEMA,
            "sha256": _digest(tensors),
            "info": dataclasses.asdict(self.info),
        }
        write_file(path, save(tensors, {_HEADER: json.dumps(header, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path | str) -> "Actor":
        """Read what `save` wrote.

        Raises:
            StoreError: If the file is missing, damaged or of an unknown format.
        """
        path = Path(path)
        raw = read_regular(path, _MAX_BYTES)
        info, checksum = _read_header(raw, path)
        try:
            tensors = load(raw)
        except (SafetensorError, ValueError, KeyError) as error:
            raise _damaged(path, str(error)) from error
        if _digest(tensors) != checksum:
            raise _damaged(path, "the numbers do not match their checksum")
        layers = (len(tensors) - 2) // 2
        names = [f"{index}.{part}" for index in range(layers) for part in ("weight", "bias")]
        if layers < 1 or tensors.keys() != {"low", "high", *names}:
            raise _damaged(path, f"it holds unknown or too few tensors: {sorted(tensors)}")
        weights = [(tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(layers)]
        try:
            return cls(weights, tensors["low"], tensors["high"], info)
        except StoreError as error:
            raise _damaged(path, str(error)) from error


def split_of(seed: int) -> Split:
    """Say which split the policies of a training seed belong to.

    Of every four seeds, 0 and 1 are for training, 2 for validation and 3 for testing: what is
    chosen on policies like those of training may fail on others, so choices are made on policies
    that made no training data, and tested on policies that had no part in the choice.
    """
    return ("train", "train", "valid", "test")[seed % 4]


def shipped_actors(
    env_id: str, split: str = "train", *, root: Path | str | None = None
) -> list[Actor]:
    """Load the trained actors of a task, in the order of training seed and stage.

    Args:
        env_id: Gymnasium id of the task.
        split: `train`, `valid` or `test`: which training seeds (see `split_of`).
        root: Directory of actors; those that ship with the package by default.

    Returns:
        At least one actor of each stage.

    Raises:
        ConfigError: If the split is unknown.
        DataError: If there are none for this task and split; the message says how to train them.
        StoreError: If a file is damaged.
    """
    if split not in SPLITS:
        raise ConfigError(f"split must be one of {SPLITS}, got {split!r}")
    root = SHIPPED if root is None else Path(root)
    files = sorted((root / env_id.lower()).glob("seed*-*.safetensors"))
    actors = [actor for actor in map(Actor.load, files) if actor.info.split == split]
    absent = [stage for stage in STAGES if all(a.info.stage != stage for a in actors)]
    if absent:
        tasks = tasks_with_actors(root)
        raise DataError(
            f"there are no {', '.join(absent)} actors for {env_id!r} ({split} split) in {root}, "
            f"which holds actors for: {', '.join(tasks) or 'no task'}; "
            f"train them with: loopwm policies train {env_id} --out DIRECTORY"
        )
    return sorted(actors, key=lambda actor: (actor.info.seed, STAGES.index(actor.info.stage)))


def tasks_with_actors(root: Path | str | None = None) -> list[str]:
    """Return the tasks that have trained actors, in lower case.

    Args:
        root: Directory of actors; those that ship with the package by default.
    """
    places = (SHIPPED if root is None else Path(root)).glob("*/seed*.safetensors")
    return sorted({path.parent.name for path in places})


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)


def _check_shapes(
    weights: list[tuple[np.ndarray, np.ndarray]], low: np.ndarray, high: np.ndarray
) -> None:
    width = weights[0][0].shape[-1] if weights else 0
    for index, (weight, bias) in enumerate(weights):
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise StoreError(
                f"layer {index} of an actor has weight {weight.shape} and bias {bias.shape}, "
                f"which do not fit {width} inputs"
            )
        width = weight.shape[0]
    if low.shape != (width,) or high.shape != (width,):
        raise StoreError(f"an actor of {width} actions has bounds {low.shape} and {high.shape}")
    if not all(np.isfinite(array).all() for array in (low, high, *sum(weights, ()))):
        raise StoreError("an actor holds numbers that are not finite")


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read_header(raw: bytes, path: Path) -> tuple[ActorInfo, str]:
    try:
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"][_HEADER])
        if header["schema"] != _SCHEMA:
            raise StoreError(
                f"{path} has schema {header['schema']}, this version reads {_SCHEMA}; "
                "install a newer loopwm"
            )
        info = ActorInfo(**header["info"])
        if info.stage not in STAGES:
            raise ValueError(f"unknown stage {info.stage!r}")
        return info, header["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"its header is not that of an actor ({error!r})") from error


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(f"{path} is not a usable actor: {why}; restore it or train it again")
