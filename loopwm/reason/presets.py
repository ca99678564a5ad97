"""The published shapes by name."""

from loopwm.core.config import Attend, MixTokens, PostNorm
from loopwm.errors import ConfigError
from loopwm.reason.config import ReasonerConfig

_ATTENTION = PostNorm(Attend(heads=8, theta=1e4))
_PERCEPTRON = PostNorm(MixTokens())

# Padding, end of grid, ten colours; padding, empty, nine digits; padding, wall, free, start,
# goal, path.
_ARC, _SUDOKU, _MAZE = (12, 900), (11, 81), (6, 900)

PRESETS = {
    "arc": ReasonerConfig(*_ARC, cell=_ATTENTION, inner=4),
    "arc-mlp": ReasonerConfig(*_ARC, cell=_PERCEPTRON, inner=4),
    "sudoku": ReasonerConfig(*_SUDOKU, cell=_PERCEPTRON, inner=6),
    "sudoku-attention": ReasonerConfig(*_SUDOKU, cell=_ATTENTION, inner=6),
    "maze": ReasonerConfig(*_MAZE, cell=_ATTENTION, inner=4),
}
"""Settings with which the published weights were trained (arXiv 2510.04871, section 5)."""


def preset(name: str) -> ReasonerConfig:
    """Return the configuration of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset={name!r} is not known; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
