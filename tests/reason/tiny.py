"""Sizes at which a reasoner takes milliseconds."""

from torch import Tensor

from loopwm.core.config import Attend, MixTokens, PostNorm
from loopwm.reason.config import ReasonerConfig
from loopwm.reason.layout import published_names
from loopwm.reason.model import Reasoner

MIXERS = {"attention": Attend(heads=2, theta=1e4), "perceptron": MixTokens()}


def small(mixer: str, **changes) -> ReasonerConfig:
    cell = PostNorm(MIXERS[mixer], expand=1.5, multiple=1)
    sizes = {"vocabulary": 5, "length": 3, "puzzles": 6, "prefix": 2, "puzzle_width": 10}
    return ReasonerConfig(**{**sizes, "width": 8, "cell": cell, "cycles": 2, "inner": 2, **changes})


def published(model: Reasoner) -> dict[str, Tensor]:
    """Return the weights by their published names, as leaves."""
    ours = model.state_dict()
    names = published_names(model.config)
    return {name: ours[mine].double().clone().requires_grad_() for name, mine in names.items()}
