"""Time several things in turns, so that whatever else the machine does falls on all of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from loopwm.errors import ConfigError
from loopwm.seed import torch_rng


@dataclass(frozen=True)
class Contestant:
    """Name something to be timed.

    Attributes:
        name: What tables call it.
        run: Does the work once.
        amount: Units of work in one run, such as transitions.
        flops: Floating-point operations of matrix products in one run; NaN where not counted.
    """

    name: str
    run: Callable[[], object]
    amount: int
    flops: float = float("nan")


@dataclass(frozen=True)
class Timing:
    """Hold the times of one contestant's runs.

    Attributes:
        name: What tables call it.
        amount: Units of work in one run.
        flops: Floating-point operations in one run.
        wall: Seconds of each run.
        cpu: CPU seconds of each run, over all threads of the process.
    """

    name: str
    amount: int
    flops: float
    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def rate(self) -> tuple[float, float, float]:
        """Units of work per second: median, lower and upper quartile."""
        return _rate(self.amount, self.wall)

    @property
    def cpu_rate(self) -> tuple[float, float, float]:
        """Units of work per CPU second: what a core that does nothing else would give."""
        return _rate(self.amount, self.cpu)

    @property
    def gflops(self) -> float:
        """Billions of floating-point operations per CPU second, median."""
        return self.flops / float(np.median(self.cpu)) / 1e9


def race(contestants: Sequence[Contestant], repeats: int = 9, warmup: int = 1) -> list[Timing]:
    """Time contestants in turns: each once, then each once again.

    Args:
        contestants: What to time.
        repeats: Timed rounds, at least 1.
        warmup: Rounds before them that are not timed.

    Raises:
        ConfigError: If there is no timed round.
    """
    if repeats < 1:
        raise ConfigError(f"repeats must be at least 1, got {repeats}")
    wall: list[list[float]] = [[] for _ in contestants]
    cpu: list[list[float]] = [[] for _ in contestants]
    for turn in range(-warmup, repeats):
        for position, each in enumerate(contestants):
            clock, work = time.perf_counter(), time.process_time()
            each.run()
            passed = time.perf_counter() - clock, time.process_time() - work
            if turn >= 0:
                wall[position].append(passed[0])
                cpu[position].append(passed[1])
    return [
        Timing(each.name, each.amount, each.flops, tuple(w), tuple(c))
        for each, w, c in zip(contestants, wall, cpu, strict=True)
    ]


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch use one thread while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matmul(
    size: int, dtype: torch.dtype, name: str, device: torch.device | str = "cpu"
) -> Contestant:
    """Make the product of two square matrices a contestant: the machine's own speed.

    Args:
        size: Rows and columns.
        dtype: Number format.
        name: What tables call it.
        device: Where it is computed.
    """
    generator = torch_rng(0, "matmul", device=str(device))
    kind: dict[str, Any] = {"dtype": dtype, "device": device}
    left, right = (torch.randn(size, size, generator=generator, **kind) for _ in range(2))
    out: Any = torch.empty(size, size, **kind)
    return Contestant(name, lambda: torch.mm(left, right, out=out), 1, 2.0 * size**3)


def _rate(amount: int, seconds: Sequence[float]) -> tuple[float, float, float]:
    rates = amount / np.array(seconds)
    low, middle, high = np.quantile(rates, (0.25, 0.5, 0.75))
    return float(middle), float(low), float(high)
