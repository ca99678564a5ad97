"""What `loopwm train --with LESSON` teaches beside a world model."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from loopwm.cli.choice import ModelChoice
from loopwm.cli.screen import say
from loopwm.errors import ConfigError
from loopwm.world.config import WorldConfig

if TYPE_CHECKING:
    from loopwm.joint import Puzzles
    from loopwm.reason.config import ReasonerConfig


def puzzles_of(name: str, width: int | None, slots: int | None, weight: float) -> "Puzzles":
    """Return the puzzles of a lesson, for a reasoner that a world model can share its core with.

    How many of what size each update takes is said before anything that takes time.

    Args:
        name: Name of the lesson; `loopwm arc list` lists them.
        width: Width of the core; None for the lesson's own.
        slots: Puzzles in flight; None for the lesson's own.
        weight: Weight of the reasoner's loss.

    Raises:
        ConfigError: If there is no such lesson, or a number is out of range.
        MissingExtra: If what makes the puzzles is not installed.
    """
    from loopwm.reason.lessons import lesson

    taught = lesson(name)
    from loopwm.joint import Puzzles, attending

    config = taught.model
    if width is not None:
        room = config.prefix * width
        config = replace(config, width=width, puzzle_width=min(config.puzzle_width, room))
    config = attending(config)
    config.cell.check_width(config.width)
    slots = taught.training.batch_size if slots is None else slots
    say(_load(name, config, slots))
    # Minutes may pass before the next line, which also fills a file's buffer first.
    sys.stdout.flush()
    material = taught.make()
    return Puzzles(
        material.source,
        replace(config, puzzles=material.source.num_puzzles),
        taught.halting,
        slots=slots,
        weight=weight,
        valid=next(iter(material.tests.values()), None),
    )


def looped_only(choice: ModelChoice, members: int) -> WorldConfig:
    """Return the configuration if it is that of one looped model whose cell is left open.

    Args:
        choice: The model.
        members: Number of models.

    Raises:
        ConfigError: If it is not.
    """
    config = choice.config()
    if not isinstance(config, WorldConfig):
        raise ConfigError(
            f"--with shares a looped core, and {type(config).__name__} has none: use --model looped"
        )
    if members > 1:
        raise ConfigError(f"--with trains one world model, got --members {members}")
    if choice.cell is not None:
        raise ConfigError("--with gives the world model the cell of the lesson: leave --cell out")
    return config


def _load(name: str, config: "ReasonerConfig", slots: int) -> str:
    """Say what an update takes, and how it would take less."""
    from loopwm.reason.lessons import LESSONS

    def work(other: str) -> int:
        return LESSONS[other].model.length * LESSONS[other].model.width

    kin = [other for other in LESSONS if other.split("-")[0] == name.split("-")[0]]
    least = min(kin, key=work)
    smaller = "" if least == name else f", smaller ones with --with {least}"
    return (
        f"{name}: each update takes {slots:,} puzzles of {config.length:,} tokens, width "
        f"{config.width:,}, whatever --batch-size is; fewer with --slots{smaller}"
    )
