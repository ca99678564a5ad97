"""Which puzzle a command line asks for: text, a file, a held-out puzzle, a task of ARC."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loopwm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from loopwm.reason.arc import Arc
    from loopwm.reason.lessons import Lesson


@dataclass(frozen=True)
class Asked:
    """Hold a puzzle.

    Attributes:
        tokens: Its tokens.
        puzzle_id: Which puzzle it is an example of.
        labels: The right tokens, negative where none is asked for; None if they are not known.
        examples: Pairs of grids, as tokens, that show what is asked.
    """

    tokens: list[int]
    puzzle_id: int = 0
    labels: list[int] | None = None
    examples: list[tuple[list[int], list[int]]] = field(default_factory=list)


def read_puzzle(taught: "Lesson", text: str) -> Asked:
    """Return a puzzle that is given as text, in a file, or as the name of an ARC task."""
    if taught.is_arc:
        arc = _arc(taught)
        names = [task.name for task in arc.evaluation]
        if text not in names:
            raise DataError(f"there is no evaluation task {text!r}; the first is {names[0]!r}")
        return _question(arc, names.index(text))
    if text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")
    return Asked(taught.look.read(text.replace(",", " "), taught.model.length))


def held_out(taught: "Lesson", index: int) -> Asked:
    """Return a held-out puzzle of a lesson, of ARC an evaluation task, by its number."""
    if taught.is_arc:
        arc = _arc(taught)
        _check_index(index, len(arc.evaluation))
        return _question(arc, index)
    puzzles = next(iter(taught.make().tests.values()))
    _check_index(index, len(puzzles))
    return Asked(puzzles.tokens[index].tolist(), labels=puzzles.labels[index].tolist())


def _arc(taught: "Lesson") -> "Arc":
    from loopwm.reason.arc import Arc

    source = taught.make().source
    assert isinstance(source, Arc)
    return source


def _question(arc: "Arc", index: int) -> Asked:
    """Return the first test input of an evaluation task, as it is, with the examples shown."""
    from loopwm.reason.arc import Question
    from loopwm.reason.grid import PAD, encode

    task, side = arc.evaluation[index], arc.config.side
    tokens, ids = arc.ask([Question(index, 0, 0)])
    answer = encode(task.test[0].output, side).tolist()
    examples = [
        (encode(pair.input, side).tolist(), encode(pair.output, side).tolist())
        for pair in task.train
    ]
    labels = [-1 if each == PAD else each for each in answer]
    return Asked(tokens[0].tolist(), int(ids[0]), labels, examples)


def _check_index(index: int, count: int) -> None:
    if not 0 <= index < count:
        raise ConfigError(f"--index must be in [0, {count}), got {index}")
