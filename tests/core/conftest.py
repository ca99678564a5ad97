"""Oracles, loaded by path (test folders are no packages), and cells with weights of all sizes."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest
import torch
from torch import nn

from loopwm.core.cell import BoundedCell
from loopwm.core.config import Attend, Bounded, PostNorm
from loopwm.core.post_norm import PostNormCell

Cell = TypeVar("Cell", bound=nn.Module)
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
def plain_loop() -> ModuleType:
    """Give the loop over one row at a time."""
    return load_oracle("loop")


@pytest.fixture(scope="session")
def equations() -> ModuleType:
    """Give the bounded cell one number at a time."""
    return load_oracle("bounded")


def _random(make: Callable[[], Cell], seed: int, scale: float) -> Cell:
    """Make a cell and add noise: zeros and identities of the start would hide mistakes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cell = make()
        with torch.no_grad():
            for p in cell.parameters():
                p += scale * torch.randn_like(p)
    return cell


@pytest.fixture
def bounded() -> Callable[..., BoundedCell]:
    """Give a maker of bounded cells with random float64 weights."""

    def make(
        width: int = 6, gain: float | None = None, seed: int = 0, scale: float = 0.2, **settings
    ) -> BoundedCell:
        return _random(
            lambda: BoundedCell(width, Bounded(gain=gain, **settings)).double(), seed, scale
        )

    return make


@pytest.fixture
def post_norm() -> Callable[..., PostNormCell]:
    """Give a maker of attention cells with random float64 weights."""

    def make(width: int = 6, heads: int = 2, seed: int = 0) -> PostNormCell:
        return _random(
            lambda: PostNormCell(width, PostNorm(Attend(heads), expand=1.25, multiple=1)).double(),
            seed,
            0.3,
        )

    return make
