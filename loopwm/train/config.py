"""How long, how fast and with which optimiser to train; free of torch."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from loopwm.core.settings import settle
from loopwm.errors import ConfigError

_COUNTS = (
    "updates",
    "batch_size",
    "horizon",
    "validate_every",
    "checkpoint_every",
    "log_every",
)

# These may change between a run and its continuation: they do not enter the mathematics. Of the
# device its kind may not (`train.fit`).
_FREE = frozenset({"device", "threads", "checkpoint_every", "progress", "tensorboard"})


def _check(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise ConfigError(f"{name}={value!r} is out of range: it must be {expected}")


def _check_betas(betas: tuple[float, float]) -> None:
    for beta in betas:
        _check(0 <= beta < 1, "betas", betas, "two numbers in [0, 1)")


@dataclass(frozen=True, slots=True)
class AdamW:
    """Choose AdamW (arXiv 1711.05101).

    Args:
        betas: Decay of the running mean of gradients and of their squares, both in [0, 1).
        eps: Positive number that keeps the division finite.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Check the ranges."""
        settle(self)
        _check_betas(self.betas)
        _check(self.eps > 0, "eps", self.eps, "a positive number")


@dataclass(frozen=True, slots=True)
class Muon:
    """Choose Muon for matrices and AdamW for everything else.

    Muon orthogonalises the momentum of each matrix; its steps are scaled to AdamW's size
    (arXiv 2502.16982), so one learning rate serves both. Parameters flagged `_no_muon`
    (inputs and outputs of the network, as a rule) stay with AdamW.

    Args:
        momentum: Decay of the momentum, in [0, 1).
        adamw: Settings for the parameters that are not matrices.
    """

    momentum: float = 0.95
    adamw: AdamW = AdamW()

    def __post_init__(self) -> None:
        """Check the ranges."""
        settle(self)
        _check(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")


# Files and names of studies call the optimisers of dense models so.
OPTIMIZERS: Mapping[str, AdamW | Muon] = {"adamw": AdamW(), "muon": Muon()}


@dataclass(frozen=True, slots=True)
class SignSGD:
    """Choose the sign of the gradient, for tables of which a batch touches a few rows.

    Args:
        lr: Peak length of a step; it follows the schedule of `FitConfig.lr`.
        weight_decay: Decoupled weight decay of touched rows.
    """

    lr: float = 1e-2
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges."""
        settle(self)
        _check(0 < self.lr < math.inf, "lr", self.lr, "a positive number, such as 1e-2")
        _check(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "at least 0")


@dataclass(frozen=True, slots=True)
class AdamATan2:
    """Choose AdamATan2 (arXiv 2407.05872), TRM's; its weight decay acts on all parameters.

    Args:
        betas: Decay of the running mean of gradients and of their squares, both in [0, 1).
        rows: Settings for tables of which a batch touches a few rows.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    rows: SignSGD = SignSGD()

    def __post_init__(self) -> None:
        """Check the ranges."""
        settle(self)
        _check_betas(self.betas)


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Say how a model is trained.

    Args:
        updates: Number of gradient updates, at least 1.
        batch_size: Sequences per update.
        lr: Peak learning rate.
        horizon: Steps that the loss looks ahead once the curriculum has ended.
        horizon_warmup: Fraction of the updates over which the horizon grows from 1 to `horizon`.
        warmup: Fraction of the updates over which the learning rate grows linearly.
        final_lr: Learning rate of the last update as a fraction of `lr` (cosine in between).
        weight_decay: Decoupled weight decay of matrices; vectors are never decayed.
        clip: Largest global norm of the gradient; None clips nothing.
        ema: Decay of the moving average of the weights, in [0, 1); 0 keeps the raw weights.
        optimizer: `Muon()`, `AdamW()` or `AdamATan2()`.
        seed: Seed of the first weights, of batches and of the loss's own randomness; of the
            validation episodes too where none are given.
        device: "auto" takes a GPU if there is one; else a torch device name.
        precision: "bf16" computes in bfloat16 around float32 weights.
        compiled: Whether `torch.compile` runs the cells of looped cores while they train: minutes
            at first, then faster on a GPU. Cells that differentiate their loop themselves, as the
            default one does, gain nothing.
        threads: CPU threads while training; None leaves torch's setting.
        validate_every: Updates between validations; the last update is always validated.
        checkpoint_every: Updates between checkpoints.
        log_every: Updates averaged into one line of metrics.
        progress: Whether to show progress; None shows it on a terminal only.
        tensorboard: Whether to write TensorBoard events too (needs the extra `log`).
    """

    updates: int = 20_000
    batch_size: int = 256
    lr: float = 5e-3
    horizon: int = 4
    horizon_warmup: float = 0.25
    warmup: float = 0.02
    final_lr: float = 0.01
    weight_decay: float = 0.01
    clip: float | None = 1.0
    ema: float = 0.999
    optimizer: AdamW | Muon | AdamATan2 = Muon()
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    compiled: bool = False
    threads: int | None = None
    validate_every: int = 1_000
    checkpoint_every: int = 1_000
    log_every: int = 100
    progress: bool | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        settle(self)
        for name in _COUNTS:
            value = getattr(self, name)
            _check(value >= 1, name, value, "an integer from 1 up")
        for name in ("horizon_warmup", "warmup", "final_lr"):
            value = getattr(self, name)
            _check(0 <= value <= 1, name, value, "a fraction in [0, 1]")
        _check(0 < self.lr < math.inf, "lr", self.lr, "a positive number, such as 3e-3")
        _check(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "at least 0")
        if self.clip is not None:
            _check(0 < self.clip < math.inf, "clip", self.clip, "positive, or None for no clipping")
        _check(0 <= self.ema < 1, "ema", self.ema, "in [0, 1); 0 switches the average off")
        _check(self.seed >= 0, "seed", self.seed, "a non-negative integer")
        _check(self.precision in ("fp32", "bf16"), "precision", self.precision, '"fp32" or "bf16"')
        if self.threads is not None:
            _check(self.threads >= 1, "threads", self.threads, "at least 1, or None")

    def lr_at(self, update: int) -> float:
        """Return the learning rate of an update, counted from 0."""
        rise = round(self.warmup * self.updates)
        if update < rise:
            return self.lr * ((update + 1) / rise)
        progress = (update - rise) / max(1, self.updates - 1 - rise)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.lr * (self.final_lr + (1 - self.final_lr) * cosine)

    def horizon_at(self, update: int) -> int:
        """Return the horizon of the loss at an update, counted from 0."""
        rise = round(self.horizon_warmup * self.updates)
        if update >= rise:
            return self.horizon
        return 1 + update * (self.horizon - 1) // rise

    def fingerprint(self) -> dict[str, object]:
        """Return the settings that a resumed run must share, as plain JSON values."""
        settings = {
            name: value for name, value in dataclasses.asdict(self).items() if name not in _FREE
        }
        settings["optimizer"] = {
            "name": type(self.optimizer).__name__,
            **dataclasses.asdict(self.optimizer),
        }
        return settings
