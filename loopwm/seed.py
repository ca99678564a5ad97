"""One integer becomes any number of independent, named random generators."""

import zlib
from typing import TYPE_CHECKING

import numpy as np

from loopwm.errors import ConfigError

if TYPE_CHECKING:
    import torch


def key(seed: int, *path: int | str) -> np.random.SeedSequence:
    """Derive a seed sequence from a seed and the name of its use.

    Args:
        seed: Non-negative integer that the user chose.
        path: Names or non-negative indices; different paths give independent sequences.

    Returns:
        A seed sequence that depends on the arguments alone, the same on every platform.

    Raises:
        ConfigError: If the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed must be a non-negative integer, got {seed}")
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.SeedSequence(entropy=seed, spawn_key=tuple(words))


def numpy_rng(seed: int, *path: int | str) -> np.random.Generator:
    """Return the numpy generator named by `path` (see `key`)."""
    return np.random.Generator(np.random.PCG64(key(seed, *path)))


def torch_rng(seed: int, *path: int | str, device: str = "cpu") -> "torch.Generator":
    """Return the torch generator named by `path` (see `key`) on `device`."""
    import torch

    word = int(key(seed, *path).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(word >> 1)
