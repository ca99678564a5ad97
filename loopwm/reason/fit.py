"""Train a reasoner on puzzles that a source draws."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopwm.errors import ConfigError, DataError
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.check import check_puzzles
from loopwm.reason.config import TRAINING, Halting, ReasonerConfig
from loopwm.reason.evaluate import exact
from loopwm.reason.model import Reasoner
from loopwm.reason.source import PuzzleSource
from loopwm.reason.stored import encode, weights
from loopwm.reason.supervise import DeepSupervision
from loopwm.train.config import FitConfig
from loopwm.train.course import Course
from loopwm.train.fit import Metrics, device_of
from loopwm.train.history import History
from loopwm.train.log import Sink

# Puzzles that are looked at before training, and that tell sources apart.
_LOOKED_AT = 256


def fit(
    source: PuzzleSource,
    config: ReasonerConfig,
    fit_config: FitConfig | None = None,
    *,
    halting: Halting = Halting(rise=0.5),
    valid: PuzzleBatch | None = None,
    run_dir: str | Path | None = None,
    init: Reasoner | None = None,
    sinks: Sequence[Sink] = (),
) -> Reasoner:
    """Train a reasoner by deep supervision (arXiv 2510.04871, fig. 3).

    One update is one step of thought of every slot; a slot takes a new puzzle from the source when
    it has halted, and only then. A run with a `run_dir` that was stopped goes on where it was when
    called again with the same arguments, and ends as if it had never been stopped.

    Args:
        source: Draws puzzles for training.
        config: Sizes; vocabulary, length and number of puzzles must be those of the source.
        fit_config: How to train; `batch_size` is the number of slots, `horizon` is not used.
        halting: When a puzzle leaves its slot.
        valid: Held-out puzzles. Their share of wrong answers is the validation value.
        run_dir: Directory of checkpoints and metrics; None writes nothing.
        init: Reasoner whose weights training starts from; it is left as it is.
        sinks: Where the records go too.

    Returns:
        The reasoner with averaged weights, in evaluation mode, without gradients.

    Raises:
        ConfigError: If `init` has other sizes.
        DataError: If the source or the held-out puzzles do not fit the sizes.
        CheckpointError: If `run_dir` holds another run.
        NumericalError: If training meets NaN again and again.
    """
    fit_config = fit_config or TRAINING
    taken = course(source, config, fit_config, halting=halting, valid=valid, init=init)
    return taken.take(fit_config, run_dir, sinks)


def course(
    source: PuzzleSource,
    config: ReasonerConfig,
    fit_config: FitConfig,
    *,
    halting: Halting = Halting(rise=0.5),
    valid: PuzzleBatch | None = None,
    init: Reasoner | None = None,
) -> Course[Reasoner]:
    """Return what it takes to train a reasoner; the arguments are those of `fit`.

    Args:
        source: Draws puzzles for training.
        config: Sizes.
        fit_config: How it will be trained: updates, slots, seed and device are used here.
        halting: When a puzzle leaves its slot.
        valid: Held-out puzzles; None validates nothing.
        init: Reasoner whose weights training starts from.

    Raises:
        ConfigError: If `init` has other sizes, or `halting` is none.
        DataError: If the source or the held-out puzzles do not fit the sizes; of the source, what
            it draws while training is looked at too.
    """
    if not isinstance(halting, Halting):
        raise ConfigError(f"halting must be a Halting, such as Halting(16), got {halting!r}")
    _check_source(source, config)
    first = source.sample(torch.Generator().manual_seed(0), _LOOKED_AT)
    for puzzles in (first, valid):
        if puzzles is not None:
            check_puzzles(puzzles, config)
    device = device_of(fit_config)
    held_out = None if valid is None else on_device(valid, device)
    module = DeepSupervision(_start(config, fit_config.seed, init), fit_config.batch_size, halting)

    def draw(generator: torch.Generator, count: int) -> PuzzleBatch:
        free = module.free
        if not free:
            # Asked for none, a source may fail: a batch without rows has the shape of the slots.
            return module.carry.batch.rows(slice(0))
        batch = source.sample(generator, free)
        check_puzzles(batch, config)
        return on_device(batch, device)

    def loss(
        module: nn.Module, batch: PuzzleBatch, update: int, generator: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        return module(batch, generator, update / fit_config.updates)

    def validate(module: nn.Module) -> float:
        assert isinstance(module, DeepSupervision)
        assert held_out is not None
        right = exact(module.reasoner, held_out, steps=halting.max_steps)[-1]
        return 1 - float(right.float().mean())

    def finish(history: History) -> Reasoner:
        model = module.reasoner.requires_grad_(False).eval()
        model.history = list(history.records)
        return model

    return Course(
        module=module,
        loss=loss,
        sampler=draw,
        finish=finish,
        validate=None if valid is None else validate,
        documents={
            "model": encode(config),
            "halting": asdict(halting),
            "source": _identity(source, first),
            "valid": None if valid is None else _fingerprint(valid),
            **({} if init is None else {"init": _digest(init)}),
        },
    )


def on_device(batch: PuzzleBatch, device: torch.device) -> PuzzleBatch:
    """Return the puzzles on a device."""
    return PuzzleBatch(
        tokens=batch.tokens.to(device),
        labels=batch.labels.to(device),
        puzzle_ids=batch.puzzle_ids.to(device),
    )


def _check_source(source: PuzzleSource, config: ReasonerConfig) -> None:
    pairs = {"vocabulary": config.vocabulary, "length": config.length}
    for name, ours in pairs.items():
        if getattr(source, name) != ours:
            raise DataError(
                f"the source has {name}={getattr(source, name)}, the reasoner {name}={ours}: "
                f"choose ReasonerConfig({name}={getattr(source, name)})"
            )
    if source.num_puzzles > config.puzzles:
        raise DataError(
            f"the source has {source.num_puzzles} puzzle ids, the reasoner {config.puzzles}: "
            f"choose ReasonerConfig(puzzles={source.num_puzzles})"
        )


def _start(config: ReasonerConfig, seed: int, init: Reasoner | None) -> Reasoner:
    model = Reasoner(config, seed)
    if init is None:
        return model
    if init.config != config:
        asked = {each.name: getattr(config, each.name) for each in fields(config)}
        other = {
            name: f"{name}={getattr(init.config, name)} instead of {value}"
            for name, value in asked.items()
            if getattr(init.config, name) != value
        }
        raise ConfigError(
            f"init{init.lesson and f', which was taught {init.lesson},'} has other sizes: "
            f"{', '.join(other.values())}; start from a reasoner of these sizes, or from none"
        )
    model.load_state_dict(init.state_dict())
    return model


def _identity(source: PuzzleSource, first: PuzzleBatch) -> dict[str, Any]:
    """Return as JSON values what keeps a stopped run from going on with another source."""
    settings = fields(source) if is_dataclass(source) else ()
    values = {each.name: getattr(source, each.name) for each in settings}
    plain = (str, int, float, type(None))
    return {
        "type": type(source).__name__,
        "first": _fingerprint(first),
        "num_puzzles": int(source.num_puzzles),
        # As text, because a number may be infinite, which JSON has none for.
        "settings": {name: repr(v) for name, v in values.items() if isinstance(v, plain)},
    }


def _fingerprint(batch: PuzzleBatch) -> str:
    """Return a checksum of puzzles with their answers and ids."""
    digest = hashlib.sha256()
    for column in (batch.tokens, batch.labels, batch.puzzle_ids):
        digest.update(column.long().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest(init: Reasoner) -> str:
    """Return a checksum of the weights that training starts from."""
    digest = hashlib.sha256()
    for name, array in weights(init).items():
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()[:16]
