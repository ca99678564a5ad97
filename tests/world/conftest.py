"""A small linear world, a model of every kind with random weights, and the oracles."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import loopwm as lw
from loopwm.core.config import Attend, PostNorm
from loopwm.data.meta import DatasetMeta
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.world.build import build

OBS, ACTIONS = 3, 2
_ORACLES = Path(__file__).parents[1] / "oracles"


def load_oracle(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"oracle_{name}", _ORACLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def plain_world() -> ModuleType:
    """Give world models one row at a time in numpy."""
    return load_oracle("world")


@pytest.fixture(scope="session")
def window_loss() -> ModuleType:
    """Give the training loss row by row."""
    return load_oracle("window_loss")


def linear_world(
    seed: int = 0, episodes: int = 8, length: int = 30, discrete: bool = False
) -> RolloutDataset:
    """Roll out x' = x + A x + B a in units of very different size; every third episode ends."""
    rng = np.random.default_rng(seed)
    drift = np.array([[-0.05, 0.2, 0.0], [-0.2, -0.05, 0.0], [0.0, 0.1, -0.3]])
    push = np.array([[0.3, 0.0], [0.0, 0.4], [0.5, -0.5]])
    turns = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    units = np.array([1.0, 100.0, 0.01])
    columns: dict[str, list[Any]] = {name: [] for name in ("obs", "next_obs", "action", "reward")}
    for _ in range(episodes):
        x = rng.normal(size=3)
        for _ in range(length):
            choice = int(rng.integers(4))
            force = turns[choice] if discrete else rng.uniform(-1, 1, 2)
            following = x + drift @ x + push @ force
            columns["obs"].append(units * x + 5)
            columns["next_obs"].append(units * following + 5)
            columns["action"].append(choice if discrete else 2 * force + 1)
            columns["reward"].append(3 * x[0] - force[1] + 7)
            x = following
    episode = np.repeat(np.arange(episodes), length)
    last = np.append(np.diff(episode) > 0, True)
    spaces: dict[str, Any] = {"action_low": (-1.0, -1.0), "action_high": (3.0, 3.0)}
    if discrete:
        spaces = {"num_actions": 4}
    return RolloutDataset.from_arrays(
        **{name: np.array(values) for name, values in columns.items()},
        terminated=last & (episode % 3 == 0),
        episode=episode,
        meta=DatasetMeta(env_id="linear", dt=0.05, **spaces),
    )


@pytest.fixture(scope="session")
def data() -> RolloutDataset:
    """Give the linear world under continuous actions."""
    return linear_world()


@pytest.fixture(scope="session")
def unseen() -> RolloutDataset:
    """Give other episodes of the linear world."""
    return linear_world(seed=1)


@pytest.fixture(scope="session")
def discrete_data() -> RolloutDataset:
    """Give the linear world under four discrete actions."""
    return linear_world(discrete=True)


@pytest.fixture(scope="session")
def turning_data(data: RolloutDataset) -> RolloutDataset:
    """Give the linear world with two of its dimensions taken for angles without limit."""
    return replace(data, meta=replace(data.meta, angles=(0, 2)))


class Squash(nn.Module):
    """An encoder that the library does not know."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x))


class Deep(nn.Sequential):
    """A head that the library does not know."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))


KINDS: dict[str, Any] = {
    "looped": lw.WorldConfig(width=8),
    "looped, no carry": lw.WorldConfig(width=8, carry=False),
    "looped, cold": lw.WorldConfig(width=8, warm=False),
    "looped, injected once": lw.WorldConfig(width=8, reinject=False),
    "looped, frames": lw.WorldConfig(width=8, frames=4),
    "looped, renewal": lw.WorldConfig(width=8, cell=lw.Bounded(gain=1.0)),
    "looped, contractive": lw.WorldConfig(width=8, cell=lw.Contractive(rate=0.9, gated=True)),
    "looped, post-norm": lw.WorldConfig(width=8, cell=PostNorm(Attend(2, 1e4), multiple=4)),
    "looped, Gaussian": lw.WorldConfig(width=8, head=lw.Gaussian()),
    "looped once": lw.WorldConfig(width=8, depth=lw.depth.Fixed(1)),
    "looped, latent": lw.WorldConfig(width=8, feedback="latent"),
    "looped, own modules": lw.WorldConfig(width=8, encoder=Squash, heads={"change": Deep}),
    "untied": lw.Untied(blocks=3, width=8),
    "untied, post-norm": lw.Untied(blocks=3, width=8, cell=PostNorm(None, multiple=4)),
    "untied, no carry": lw.Untied(blocks=3, width=8, carry=False),
    "MLP": lw.MLP(width=8, depth=2),
    "MLP, frames": lw.MLP(width=8, depth=2, frames=4),
    "GRU": lw.GRU(width=8),
    "GRU, Gaussian": lw.GRU(width=8, head=lw.Gaussian()),
    "RSSM": lw.RSSM(width=8, latent=4),
    "RSSM, classes": lw.RSSM(width=8, latent=3, classes=4),
}
# Those whose verbs differ; the others differ in what is computed, which other tests cover.
EACH = [kind for kind in KINDS if kind not in ("looped once", "GRU, Gaussian")]
DISCRETE = ("looped", "MLP, frames", "GRU", "RSSM")


def make_model(config: Any, data: RolloutDataset, seed: int = 0, noise: float = 0.1) -> Any:
    """Build a float64 model with random weights, none of them at a telling initial value."""
    model = build(config, data.meta, Statistics.of(data), seed).double().eval()
    generator = torch.Generator().manual_seed(seed + 1)
    for p in model.parameters():
        p.data += noise * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def make() -> Callable[..., Any]:
    """Give the maker of models with random weights."""
    return make_model


@pytest.fixture(scope="session")
def kinds() -> dict[str, Any]:
    """Give a configuration of every kind by name."""
    return KINDS


class Given:
    """A model, and inputs for it in environment units: B rows, H steps."""

    def __init__(self, name: str, model: Any, data: RolloutDataset, rows: int = 4) -> None:
        self.name, self.model, self.data = name, model, data
        starts = np.arange(rows) * 7
        self.obs = data.obs[starts]
        self.actions = data.action[starts[:, None] + np.arange(4)]
        self.action = self.actions[:, 0]
        # What follows, as if it had been observed.
        self.observed = data.obs[starts[:, None] + 1 + np.arange(4)]

    @property
    def feedbacks(self) -> list[str]:
        member = getattr(self.model, "members", [self.model])[0]
        return ["observation", "latent"] if member.dynamics.carries else ["observation"]


@pytest.fixture(
    scope="session",
    params=[*EACH, "ensemble, Gaussian", *(f"{name}; discrete" for name in DISCRETE)],
)
def given(request, data: RolloutDataset, discrete_data: RolloutDataset) -> Given:
    """Give every kind of model, with inputs."""
    name = request.param
    if name.startswith("ensemble"):
        members = [make_model(KINDS["looped, Gaussian"], data, seed) for seed in (0, 1)]
        return Given(name, lw.Ensemble(members), data)
    chosen = discrete_data if "discrete" in name else data
    return Given(name, make_model(KINDS[name.split(";")[0]], chosen), chosen)
