"""Where the metrics of a run go: memory, a JSONL file, and any further sink."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from loopwm.errors import CheckpointError, require

# Two runs with one seed write equal records but for these.
TIME_FIELDS = frozenset({"seconds"})

Record = dict[str, int | float | None]


@runtime_checkable
class Sink(Protocol):
    """Receive records; every record has the number of updates made so far as `update`."""

    def write(self, record: Record) -> None:
        """Take one record: finite numbers by name, None where a number is not finite."""
        ...

    def close(self) -> None:
        """Release files and connections; called once, also after an error."""
        ...


class Meter:
    """Average metrics over several updates without waiting for the device at each."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: list[dict[str, Tensor | float]] = []

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Take in the metrics of one update."""
        self._entries.append(
            {k: v.detach() if isinstance(v, Tensor) else v for k, v in metrics.items()}
        )

    def mean(self) -> Record:
        """Return the mean of each metric over the updates that had it, and start anew."""
        entries = self.entries()
        self._entries = []
        names = dict.fromkeys(name for entry in entries for name in entry)
        columns = {n: [_number(e[n]) for e in entries if n in e] for n in names}
        return {n: finite_or_none(sum(column) / len(column)) for n, column in columns.items()}

    def entries(self) -> list[Record]:
        """Return what has been taken in since the last mean, as JSON values."""
        names = dict.fromkeys(name for entry in self._entries for name in entry)
        result: list[Record] = [{} for _ in self._entries]
        for name in names:
            rows = [i for i, entry in enumerate(self._entries) if name in entry]
            for i, value in zip(rows, _floats([self._entries[i][name] for i in rows]), strict=True):
                result[i][name] = finite_or_none(value)
        return result

    def restore(self, entries: Iterable[Record]) -> None:
        """Continue from what `entries` returned."""
        self._entries = [{k: _number(v) for k, v in entry.items()} for entry in entries]


class Log:
    """Keep the records of a run in memory and pass each on to the sinks.

    Attributes:
        records: All records, those of earlier parts of a resumed run included.
    """

    def __init__(self, run_dir: Path | None, size: int, sinks: Sequence[Sink]) -> None:
        """Continue the file `metrics.jsonl` in `run_dir` after its first `size` bytes.

        Raises:
            CheckpointError: If the file is shorter than that, or cannot be written.
        """
        self._sinks = list(sinks)
        self._file = None
        self.records: list[Record] = []
        if run_dir is not None:
            path = run_dir / "metrics.jsonl"
            with _reported(str(path)):
                self.records = _cut(path, size)
                self._file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Add one record."""
        self.records.append(record)
        if self._file:
            with _reported(self._file.name):
                self._file.write(json.dumps(record, allow_nan=False) + "\n")
                self._file.flush()
        for sink in self._sinks:
            sink.write(record)

    def sync(self) -> int:
        """Bring the file safely to disk and return its size in bytes."""
        if self._file is None:
            return 0
        with _reported(self._file.name):
            os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Close the file; the sinks belong to the caller."""
        if self._file:
            self._file.close()


class TensorBoard:
    """Write every record as TensorBoard scalars."""

    def __init__(self, directory: Path, update: int = 0) -> None:
        """Write to `directory`, hiding what an interrupted run wrote there after `update`.

        Raises:
            MissingExtra: If TensorBoard is not installed.
        """
        require("tensorboard", "log")
        writer = require("torch.utils.tensorboard", "log").SummaryWriter
        self._writer: Any = writer(str(directory), purge_step=update + 1 if update else None)

    def write(self, record: Record) -> None:
        """Add one point to each curve."""
        for name, value in record.items():
            if name != "update" and value is not None:
                self._writer.add_scalar(name, value, record["update"])

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self._writer.close()


def finite_or_none(value: float) -> float | None:
    """Return a number as JSON can hold it."""
    return value if math.isfinite(value) else None


def _number(value: Tensor | float | None) -> float:
    return math.nan if value is None else float(value)


def _floats(values: list[Tensor | float]) -> list[float]:
    tensors = [v for v in values if isinstance(v, Tensor)]
    if len(tensors) == len(values):  # one transfer for all
        return torch.stack([t.reshape(()).double() for t in tensors]).tolist()
    return [float(v) for v in values]


@contextmanager
def _reported(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}; "
            "the checkpoints made so far are whole"
        ) from error


def _cut(path: Path, size: int) -> list[Record]:
    have = path.stat().st_size if path.exists() else 0
    if have < size:
        raise CheckpointError(
            f"{path} has {have} bytes, the checkpoint was made when it had {size}; "
            "put the file back or start over in a new run_dir"
        )
    with path.open("ab") as file:
        file.truncate(size)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
