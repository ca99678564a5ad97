"""Which puzzle a command line asks for: text, a file, a held-out puzzle, a task of ARC."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loopwm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from loopwm.reason.arc import Arc
    from loopwm.reason.lessons import Lesson
    from loopwm.reason.model import Reasoner


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


def read_puzzle(model: "Reasoner", taught: "Lesson", text: str) -> Asked:
    """Return a puzzle that is given as text, in a file, or as the name of an ARC task.

    Args:
        model: Who will be asked.
        taught: Its lesson.
        text: What was given.

    Raises:
        ConfigError: If it is of ARC, and the reasoner has no ids for its tasks.
        DataError: If it is no puzzle of the lesson.
    """
    if taught.is_arc:
        arc = arc_of(taught, model)
        names = [task.name for task in arc.evaluation]
        if text not in names:
            raise DataError(f"there is no evaluation task {text!r}; the first is {names[0]!r}")
        return _question(arc, names.index(text))
    if text.startswith("@"):
        text = _text_of(Path(text[1:]))
    return Asked(taught.look.read(text.replace(",", " "), taught.model.length))


def held_out(model: "Reasoner", taught: "Lesson", index: int) -> Asked:
    """Return a held-out puzzle of a lesson, of ARC an evaluation task, by its number.

    Args:
        model: Who will be asked.
        taught: Its lesson.
        index: The number.

    Raises:
        ConfigError: If there is no such number, or the reasoner has no ids for tasks of ARC.
    """
    if taught.is_arc:
        arc = arc_of(taught, model)
        _check_index(index, len(arc.evaluation))
        return _question(arc, index)
    puzzles = next(iter(taught.make().tests.values()))
    _check_index(index, len(puzzles))
    return Asked(puzzles.tokens[index].tolist(), labels=puzzles.labels[index].tolist())


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text in UTF-8 ({error.reason}); give a text file") from error


def arc_of(taught: "Lesson", *models: "Reasoner") -> "Arc":
    """Return the tasks of ARC that reasoners can be asked.

    Raises:
        ConfigError: If the puzzle ids of one are not those of the tasks.
    """
    from loopwm.reason.arc import Arc

    source = taught.make().source
    assert isinstance(source, Arc)
    for length in (model.config.length for model in models):
        if length != source.length:
            raise ConfigError(
                f"the reasoner's puzzles have {length} tokens, those of the lesson "
                f"{source.length}: it was taught another form of it; train it anew with "
                "loopwm arc train"
            )
    for count in (model.config.puzzles for model in models):
        if count != source.num_puzzles:
            raise ConfigError(
                f"the reasoner has {count:,} puzzle ids, the tasks of ARC here have "
                f"{source.num_puzzles:,}: what it learned belongs to other tasks, so it has no "
                f"answers to these; import it with --puzzles mean --num-puzzles "
                f"{source.num_puzzles}, and train on with loopwm arc train --init"
            )
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
    labels = [-1] * arc.config.head + [-1 if each == PAD else each for each in answer]
    return Asked(tokens[0].tolist(), int(ids[0]), labels, examples)


def _check_index(index: int, count: int) -> None:
    if not 0 <= index < count:
        raise ConfigError(f"--index must be in [0, {count}), got {index}")
