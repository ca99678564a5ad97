"""Shapes of reasoners by name: the published ones, and small ones for one CPU."""

from loopwm.core.config import Attend, MixTokens, PostNorm
from loopwm.errors import ConfigError
from loopwm.reason.config import ReasonerConfig

_ATTENTION = PostNorm(Attend(heads=8, theta=1e4))
_PERCEPTRON = PostNorm(MixTokens())

# Padding, end of grid, ten colours; padding, empty, nine digits; padding, wall, free, start,
# goal, path.
_ARC, _SUDOKU, _MAZE = (12, 900), (11, 81), (6, 900)

PUBLISHED = {
    "arc": ReasonerConfig(*_ARC, cell=_ATTENTION, inner=4),
    "arc-mlp": ReasonerConfig(*_ARC, cell=_PERCEPTRON, inner=4),
    "sudoku": ReasonerConfig(*_SUDOKU, cell=_PERCEPTRON, inner=6),
    "sudoku-attention": ReasonerConfig(*_SUDOKU, cell=_ATTENTION, inner=6),
    "maze": ReasonerConfig(*_MAZE, cell=_ATTENTION, inner=4),
}
"""Settings with which the published weights were trained (arXiv 2510.04871, section 5)."""


def small(
    vocabulary: int, length: int, width: int = 64, cycles: int = 1, inner: int = 1
) -> ReasonerConfig:
    """Return a shape whose places are few enough to be mixed by a perceptron.

    Args:
        vocabulary: Number of different tokens V.
        length: Tokens S of a puzzle.
        width: Width D of the latents.
        cycles: Cycles T of a step.
        inner: Refinements n of the thinking latent in each cycle.
    """
    return ReasonerConfig(
        vocabulary,
        length,
        prefix=1,
        puzzle_width=width,
        width=width,
        cell=PostNorm(MixTokens(), multiple=32),
        cycles=cycles,
        inner=inner,
    )


def _canvas(side: int, width: int = 128, told: bool = False) -> ReasonerConfig:
    cell = PostNorm(Attend(heads=width // 32, theta=1e4), multiple=64)
    sizes = {"prefix": 4, "puzzle_width": width, "width": width}
    # A row before the canvas tells how the task is shown, by its turn and its colours.
    vocabulary, length = (20, side * (side + 1)) if told else (12, side**2)
    return ReasonerConfig(vocabulary, length, **sizes, cell=cell, cycles=2, inner=2)


SMALL = {
    "sudoku-4x4": small(6, 16),
    "sudoku-6x6": small(8, 36, width=96, inner=2),
    "sudoku-hard": small(11, 81, width=384, cycles=2, inner=3),
    "maze-9": small(6, 81, inner=4),
    "region-10": small(4, 100, inner=4),
    "arc-12": _canvas(12),
    "arc-12-wide": _canvas(12, 256, told=True),
    "arc-16": _canvas(16),
}
"""Shapes that one CPU trains, or a GPU in minutes."""

PRESETS = PUBLISHED | SMALL


def preset(name: str) -> ReasonerConfig:
    """Return the configuration of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset={name!r} is not known; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
