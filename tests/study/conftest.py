"""A world known exactly: linear in observation and action, so every error can be worked out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from loopwm.data.meta import DatasetMeta
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.study.reference import Linear
from loopwm.world.build import build
from loopwm.world.config import ModelConfig, WorldConfig
from loopwm.world.model import WorldModel

LENGTHS = (40, 7, 25, 60, 1, 33, 12, 48)
PARTS = ("first", "second")


@dataclass(frozen=True)
class LinearWorld:
    """Hold experience of a linear system, and the weights of the model that is exact."""

    train: RolloutDataset
    test: RolloutDataset
    weight: np.ndarray

    def model(self, bias: float | np.ndarray = 0.0) -> Linear:
        """Return the exact model, or one that adds `bias` to every predicted change."""
        weight = self.weight.copy()
        weight[-1, :-2] += bias
        return Linear(torch.as_tensor(weight), Statistics.of(self.train))


def make_world(drift: float, seed: int = 0) -> LinearWorld:
    """Make a world of 3 dimensions and 2 actions; without drift, errors add up exactly."""
    rng = np.random.default_rng(seed)
    weight = np.zeros((6, 5))
    weight[:3, :3] = drift * (rng.normal(size=(3, 3)) - 1.5 * np.eye(3))
    weight[3:5, :3] = 0.3 * rng.normal(size=(2, 3))
    weight[:5, 3] = rng.normal(size=5)
    return LinearWorld(_roll(weight, rng), _roll(weight, rng), weight)


def _roll(weight: np.ndarray, rng: np.random.Generator) -> RolloutDataset:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("obs", "next_obs", "action")}
    for length in LENGTHS:
        obs = rng.normal(size=3)
        for action in rng.normal(size=(length, 2)):
            following = obs + np.concatenate([obs, action]) @ weight[:5, :3]
            for name, value in (("obs", obs), ("next_obs", following), ("action", action)):
                columns[name].append(value)
            obs = following
    arrays = {name: np.array(rows) for name, rows in columns.items()}
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    last = np.append(np.diff(episode) > 0, True)
    inputs = np.concatenate([arrays["obs"], arrays["action"]], axis=1)
    return RolloutDataset(
        **arrays,
        reward=inputs @ weight[:5, 3],
        terminated=last & (episode % 2 == 0),
        truncated=last & (episode % 2 == 1),
        episode=episode,
        info={"part": (episode % 2).astype(np.int8)},
        meta=DatasetMeta(
            env_id="linear", action_low=(-5.0, -5.0), action_high=(5.0, 5.0), dt=0.05, parts=PARTS
        ),
    )


@pytest.fixture(scope="session")
def world() -> LinearWorld:
    """Give the world with drift."""
    return make_world(0.05)


@pytest.fixture(scope="session")
def still_world() -> LinearWorld:
    """Give the world without drift, where only actions move the state."""
    return make_world(0.0)


@pytest.fixture(scope="session")
def untrained(world: LinearWorld) -> Callable[..., WorldModel]:
    """Give a looped model with random weights; by default what it predicts is not carried on."""

    def make(config: ModelConfig = WorldConfig(width=16, carry=False)) -> WorldModel:
        model = build(config, world.train.meta, Statistics.of(world.train), 0)
        # Decoded changes of about one standard deviation, so that stopping early costs something.
        head: Any = model.heads.change
        torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(1))
        return model.requires_grad_(False).eval()

    return make


@pytest.fixture(scope="session")
def lived_by(world: LinearWorld) -> Callable[[WorldModel], RolloutDataset]:
    """Give experience of the very world that a model imagines, with some noise."""

    def live(model: WorldModel) -> RolloutDataset:
        rng = np.random.default_rng(0)
        bounds = world.test.bounds
        obs, following = np.zeros_like(world.test.obs), np.zeros_like(world.test.obs)
        for start, end in pairwise(bounds):
            first = world.test.obs[start]
            seen = model.imagine(first, world.test.action[start:end]).obs
            following[start:end] = seen + 0.1 * rng.normal(size=seen.shape)
            obs[start:end] = np.concatenate([first[None], following[start : end - 1]])
        return replace(world.test, obs=obs, next_obs=following)

    return live
