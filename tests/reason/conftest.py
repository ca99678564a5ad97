"""Small reasoners with weights of all sizes, and the equations of TRM beside them."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from loopwm.reason.config import ReasonerConfig
from loopwm.reason.model import Reasoner
from tests.reason.tiny import MIXERS, small


@pytest.fixture(scope="session")
def equations() -> ModuleType:
    """Give TRM one row, head and token at a time."""
    path = Path(__file__).parents[1] / "oracles" / "trm.py"
    spec = importlib.util.spec_from_file_location("oracle_trm", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=MIXERS)
def config(request) -> ReasonerConfig:
    """Give sizes that differ from one another, for both ways to mix tokens."""
    return small(request.param)


@pytest.fixture
def make() -> Callable[..., Reasoner]:
    """Give a maker of reasoners: the zeros of the start would hide mistakes."""

    def make(config: ReasonerConfig, seed: int = 0, scale: float = 0.1) -> Reasoner:
        model = Reasoner(config, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in model.parameters():
                p += scale * torch.randn(p.shape, generator=generator)
            model.judge.bias.fill_(0.1)
        return model

    return make


@pytest.fixture
def puzzles() -> tuple[Tensor, Tensor, Tensor]:
    """Give tokens, labels of which some are not asked for, and ids of which one comes twice."""
    tokens = torch.tensor([[0, 4, 2], [1, 1, 3], [2, 0, 4]])
    labels = torch.tensor([[1, -100, 2], [3, 3, 0], [-100, 4, -100]])
    return tokens, labels, torch.tensor([4, 1, 4])
