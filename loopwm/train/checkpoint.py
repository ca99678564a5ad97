"""The state of a training run on disk: atomic, checksummed, without pickle."""

import json
import shutil
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopwm.errors import CheckpointError, NumericalError, StoreError
from loopwm.files import Tree, read_json, read_tree, tree_exists, write_tree
from loopwm.train.ema import Average
from loopwm.train.log import Meter
from loopwm.train.optim import Stepper

KEEP = 2

_PATTERN = "[0-9]" * 9


@dataclass(slots=True)
class Training:
    """Hold everything that changes while a module is trained.

    Attributes:
        module: What is trained.
        stepper: Its optimisers.
        average: The moving average of its weights, if there is one.
        generators: Every source of randomness by name.
        meter: Metrics since the last record.
        update: Updates made, the skipped ones included.
        skipped: Updates skipped.
        streak: Updates skipped in a row up to now.
        seconds: Time spent.
    """

    module: nn.Module
    stepper: Stepper
    average: Average | None
    generators: dict[str, torch.Generator]
    meter: Meter = field(default_factory=Meter)
    update: int = 0
    skipped: int = 0
    streak: int = 0
    seconds: float = 0.0


def save(run_dir: Path, training: Training, identity: dict[str, Any], log_size: int) -> None:
    """Write a checkpoint into `run_dir` and drop all but the newest two.

    Args:
        run_dir: Directory of the run.
        training: What to write.
        identity: What a continuation must share, as JSON values.
        log_size: Bytes of `metrics.jsonl` that belong to this state.

    Raises:
        NumericalError: If a weight is not finite; nothing is then written.
        CheckpointError: If the file system fails; older checkpoints are then still there.
    """
    require_finite(training)
    tensors = _tensors(training)
    progress = {
        "update": training.update,
        "skipped": training.skipped,
        "streak": training.streak,
        "seconds": training.seconds,
        "pending": training.meter.entries(),
        "log_size": log_size,
    }
    folder = run_dir / "checkpoints"
    path = folder / f"{training.update:09d}"
    arrays = {n: {k: t.cpu().numpy() for k, t in group.items()} for n, group in tensors.items()}
    try:
        write_tree(path, arrays, {"identity": identity, "progress": progress})
        earlier = [p for p in checkpoints(run_dir) if p < path]
        # What is newer was passed over as damaged; what is incomplete was never finished.
        for old in set(folder.glob(_PATTERN)) - {path, *earlier[: KEEP - 1]}:
            shutil.rmtree(old)
    except (StoreError, OSError) as error:
        raise CheckpointError(f"no checkpoint at update {training.update}: {error}") from error


def resume(run_dir: Path, training: Training, identity: dict[str, Any]) -> int:
    """Load the newest whole checkpoint of `run_dir` into `training`.

    A damaged checkpoint is passed over with a warning.

    Returns:
        The bytes of `metrics.jsonl` that belong to the state; 0 if there was no checkpoint.

    Raises:
        CheckpointError: If the checkpoints come from a run with other settings, or if there are
            some and none of them is whole.
    """
    found = checkpoints(run_dir)
    for path in found:
        try:
            tree = read_tree(path)
        except StoreError as error:
            warnings.warn(f"skipping a damaged checkpoint: {error}", stacklevel=2)
            continue
        refuse_other_run(run_dir, tree.documents.get("identity", {}), identity)
        try:
            return _load(tree, training)
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} does not fit this model: {' '.join(str(error).split())}; "
                "choose another run_dir"
            ) from error
    if found:
        raise CheckpointError(
            f"no checkpoint in {run_dir} can be read; restore one or start over in a new run_dir"
        )
    return 0


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, newest first."""
    found = (run_dir / "checkpoints").glob(_PATTERN)
    return sorted((p for p in found if tree_exists(p)), reverse=True)


def _tensors(training: Training) -> dict[str, dict[str, Tensor]]:
    average = training.average
    return {
        "module": training.module.state_dict(),
        "average": {str(i): t for i, t in enumerate(average.tensors)} if average else {},
        "optimizer": training.stepper.tensors(),
        "random": {name: g.get_state() for name, g in training.generators.items()},
    }


def _load(tree: Tree, training: Training) -> int:
    tensors = {
        name: {key: torch.from_numpy(array).clone() for key, array in group.items()}
        for name, group in tree.arrays.items()
    }
    training.module.load_state_dict(tensors["module"])
    if training.average is not None:
        for index, tensor in enumerate(training.average.tensors):
            tensor.copy_(tensors["average"][str(index)])
    training.stepper.load(tensors["optimizer"])
    for name, generator in training.generators.items():
        generator.set_state(tensors["random"][name])
    progress = tree.documents["progress"]
    training.update = progress["update"]
    training.skipped = progress["skipped"]
    training.streak = progress["streak"]
    training.seconds = progress["seconds"]
    training.meter.restore(progress["pending"])
    return progress["log_size"]


def require_finite(training: Training) -> None:
    """Refuse weights, averages and states of the optimiser that are not finite.

    Raises:
        NumericalError: Naming the first of them.
    """
    tensors = _tensors(training)
    # Buffers may hold infinity on purpose (bounds, masks); nothing may hold NaN.
    buffers = {name for name, _ in training.module.named_buffers()}
    for group in ("module", "average", "optimizer"):
        for name, tensor in tensors[group].items():
            buffer = group == "module" and name in buffers
            if (tensor.isnan() if buffer else ~tensor.isfinite()).any():
                raise NumericalError(
                    f"{group} tensor {name!r} is not finite after update {training.update}; "
                    "lower lr, or set clip=1.0; checkpoints made before, if any, are whole"
                )


def refuse_foreign(run_dir: Path) -> None:
    """Keep a new run from writing over files that no run has made.

    Raises:
        CheckpointError: If there are such files, naming them.
    """
    config, metrics = run_dir / "config.json", run_dir / "metrics.jsonl"
    ours = False
    if config.exists():
        with suppress(StoreError):
            known = read_json(config)
            ours = isinstance(known, dict) and known.keys() == {"config", "device", "documents"}
    foreign = [each.name for each in (config, metrics) if each.exists() and each.stat().st_size]
    if foreign and not ours:
        raise CheckpointError(
            f"run_dir={str(run_dir)!r} holds {' and '.join(foreign)} of something else, which "
            "would be lost: choose another run_dir, or move them away"
        )


def refuse_other_run(run_dir: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Keep a run from going on with another one's files.

    Raises:
        CheckpointError: If what the two say of themselves differs, naming each difference.
    """
    before, now = _flat(theirs), _flat(ours)
    different = [
        f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if different:
        raise CheckpointError(
            f"run_dir={str(run_dir)!r} holds a run with other settings: {'; '.join(different)}. "
            "Use the same settings to continue it, or choose another run_dir"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    parts = (_flat(v, f"{prefix}.{k}" if prefix else k) for k, v in value.items())
    return {name: leaf for part in parts for name, leaf in part.items()}


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` as it will read back from JSON."""
    return json.loads(json.dumps(value))
