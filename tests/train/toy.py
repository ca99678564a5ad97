"""A small regression with dropout and noise in its loss, and a process that trains it and dies."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from loopwm.train.config import AdamW, FitConfig, Muon
from loopwm.train.fit import run
from loopwm.train.history import History

Batch = tuple[Tensor, Tensor]
OPTIMIZERS = {"AdamW": AdamW(), "Muon": Muon()}


def module(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.1), nn.SiLU(), nn.Linear(8, 2))


def sample(generator: torch.Generator, batch_size: int) -> Batch:
    x = torch.randn(batch_size, 3, generator=generator)
    return x, torch.stack((x.sum(1), x.prod(1)), dim=1)


def loss(
    net: nn.Module, batch: Batch, update: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, float | Tensor]]:
    x, y = batch
    noisy = x + 0.1 * torch.randn(x.shape, generator=generator)
    error = (net(noisy) - y).square().mean()
    return error, {"error": error, "phase": float(update % 7)}


def validate(net: nn.Module) -> float:
    x, y = sample(torch.Generator().manual_seed(99), 64)
    return float((net(x) - y).square().mean().detach())


def config(optimizer: str = "AdamW", **changes: object) -> FitConfig:
    settings: dict[str, object] = {
        "updates": 60,
        "batch_size": 16,
        "lr": 1e-2,
        "ema": 0.9,
        "threads": 1,
        "device": "cpu",
        "validate_every": 20,
        "checkpoint_every": 10,
        "log_every": 8,
        "progress": False,
        "optimizer": OPTIMIZERS[optimizer],
    }
    return FitConfig(**(settings | changes))  # pyright: ignore[reportArgumentType]


def train(
    run_dir: Path | None, settings: FitConfig, at: dict[int, Callable[[], None]] | None = None
) -> tuple[nn.Module, History]:
    """Train the toy; `at` says what else happens inside the loss of which update."""

    def watched(
        net: nn.Module, batch: Batch, update: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        if at and update in at:
            at[update]()
        return loss(net, batch, update, generator)

    net = module()
    return net, run(net, watched, sample, settings, run_dir=run_dir, validate=validate)


def long_config(checkpoint_every: int = 100) -> FitConfig:
    """Return a run that is long enough to be killed several times."""
    return config(updates=300, checkpoint_every=checkpoint_every)


def train_until_killed(run_dir: str) -> None:
    def running() -> None:
        sys.stdout.write("running\n")
        sys.stdout.flush()

    # Without pause, so that every kill falls into the writing of a checkpoint.
    train(Path(run_dir), long_config(1), dict.fromkeys(range(300), running))


def train_and_signal(run_dir: str, optimizer: str, update: int, number: int) -> None:
    """Train, and send this process a signal inside the loss of an update."""
    train(Path(run_dir), config(optimizer), {update: lambda: os.kill(os.getpid(), number)})


if __name__ == "__main__":
    match sys.argv[1:]:
        case [run_dir]:
            train_until_killed(run_dir)
        case [run_dir, optimizer, update, number]:
            train_and_signal(run_dir, optimizer, int(update), int(number))
