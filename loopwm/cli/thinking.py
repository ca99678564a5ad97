"""`loopwm arc evaluate`, `solve`, `show`: a trained reasoner at work."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from loopwm.cli.asked import Asked, arc_of, held_out, read_puzzle
from loopwm.cli.screen import console, say
from loopwm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from loopwm.reason.answer import Noise
    from loopwm.reason.lessons import Lesson
    from loopwm.reason.model import Reasoner
    from loopwm.reason.stop import Stop
    from loopwm.study.reasoner.story import Story
    from loopwm.study.results import Sheet

Model = Annotated[Positional[Path], arg(metavar="MODEL")]


@dataclass(frozen=True)
class Thinking:
    """Say how a reasoner is asked; none of it needs training anew.

    Args:
        steps: Most steps of thought; it may be more than training had.
        stop: Stop early when the model is sure, when its answer stays unchanged for two steps, or
            when its latent state has settled.
        noise: Standard deviation of noise on the latents; the surest of --tries answers.
        tries: Tries of each puzzle with noise.
        device: "auto" takes a GPU if there is one; else a torch device name.
    """

    steps: int = 16
    stop: Literal["never", "sure", "unchanged", "settled"] = "never"
    noise: float = 0.0
    tries: int = 8
    device: str = "auto"

    def rule(self) -> "Stop | None":
        """Return the stop rule."""
        from loopwm.reason.stop import Settled, Sure, Unchanged

        rules = {"never": None, "sure": Sure(), "unchanged": Unchanged(), "settled": Settled()}
        return rules[self.stop]

    def disturbance(self) -> "Noise | None":
        """Return the noise, None if there is none."""
        from loopwm.reason.answer import Noise

        if not self.noise and self.tries != Thinking.tries:
            raise ConfigError(f"--tries {self.tries} needs --noise above 0")
        return Noise(self.tries, self.noise) if self.noise else None


@dataclass(frozen=True)
class EvaluateArc:
    """Measure how often a reasoner is right on the held-out puzzles of its lesson.

    Of ARC, four numbers: the answer to the task as it is; the first and the first two answers by
    vote over augmentations; all with strict and partial scores.

    Examples:
      loopwm arc evaluate runs/sudoku
      loopwm arc evaluate runs/sudoku --steps 32 --stop sure
      loopwm arc evaluate runs/sudoku --noise 0.3 --tries 16
      loopwm arc evaluate runs/arc --augmentations 30 --tasks 100
      loopwm arc evaluate runs/arc-1 runs/arc-2 --json four.json

    Args:
        models: Directories of reasoners of one lesson; of ARC, several are checkpoints that vote
            together in the last number.
        thinking: How it is asked.
        augmentations: Of ARC: ways in which each task is asked.
        tasks: Of ARC: evaluation tasks that are asked, the first ones; 0 asks all.
        json: File to write all numbers to.
    """

    models: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="MODEL [MODEL ...]", help_behavior_hint="(required)"),
    ]
    thinking: Annotated[Thinking, arg(name="")] = field(default_factory=Thinking)
    augmentations: int = 10
    tasks: int = 0
    json: Annotated[Path | None, arg(metavar="FILE")] = None

    def run(self) -> None:
        """Evaluate, print, and write what was asked for."""
        from loopwm.files import write_json
        from loopwm.study.results import rich_table

        sheets = self.sheets()
        for name, sheet in sheets.items():
            console().print(rich_table(replace(sheet, title=name)))
        if self.json is not None:
            write_json(self.json, {name: list(each.rows) for name, each in sheets.items()})
            say(f"wrote {self.json}")

    def sheets(self) -> "dict[str, Sheet]":
        """Return the tables by name.

        Raises:
            ConfigError: If there is no model, or they were taught different lessons.
        """
        if not self.models:
            raise ConfigError("evaluate needs a reasoner: loopwm arc evaluate MODEL")
        if self.tasks < 0:
            raise ConfigError(f"--tasks must not be negative, got {self.tasks}; 0 asks all")
        thinking = self.thinking
        rule, noise = thinking.rule(), thinking.disturbance()
        models, taught = _alike(self.models, thinking.device)
        self._refuse_unused(taught.is_arc)
        from loopwm.study.reasoner.tables import arc_sheet, puzzle_sheets

        if taught.is_arc:
            numbers = (thinking.steps, self.augmentations, self.tasks)
            sheet = arc_sheet(models, arc_of(taught, *models), *numbers)
            return {f"ARC, {sheet.title}": sheet}
        from loopwm.reason.fit import on_device

        device = models[0].decode.weight.device
        tests = {name: on_device(each, device) for name, each in taught.make().tests.items()}
        return {
            f"{name}, {sheet.title}": sheet
            for name, model in zip(_names(self.models), models, strict=True)
            for sheet in puzzle_sheets(model, tests, thinking.steps, rule, noise)
        }

    def _refuse_unused(self, is_arc: bool) -> None:
        usual_way = Thinking(steps=self.thinking.steps, device=self.thinking.device)
        if is_arc and self.thinking != usual_way:
            raise ConfigError(
                "--stop, --noise and --tries do not apply to ARC, whose answers are put to the "
                "vote after --steps steps"
            )
        usual = (EvaluateArc.augmentations, EvaluateArc.tasks)
        if not is_arc and (self.augmentations, self.tasks) != usual:
            raise ConfigError("--augmentations and --tasks are of ARC, which was not the lesson")


@dataclass(frozen=True)
class SolveArc:
    """Answer a puzzle given as text, or an ARC task by its name.

    Empty cells of a sudoku are written as 0, a dot, an underscore or a hyphen; the other symbols
    are those that `loopwm arc show` prints.

    Examples:
      loopwm arc solve runs/sudoku 1...,..3.,.4..,...2
      loopwm arc solve runs/sudoku @puzzle.txt --stop sure
      loopwm arc solve runs/arc 00576224

    Args:
        model: Directory of the reasoner.
        puzzle: The puzzle, rows in order, commas between them where wanted; @FILE reads a file; of
            ARC, the name of an evaluation task, whose first test input is asked.
        thinking: How it is asked.
    """

    model: Model
    puzzle: Annotated[Positional[str], arg(metavar="PUZZLE")]
    thinking: Annotated[Thinking, arg(name="")] = field(default_factory=Thinking)

    def run(self) -> None:
        """Answer and print."""
        rule, noise = self.thinking.rule(), self.thinking.disturbance()
        import torch

        from loopwm.reason.answer import solve

        model, taught = known(self.model, self.thinking.device)
        asked = _asked(model, taught, self.puzzle)
        tokens, ids = torch.tensor([asked.tokens]), torch.tensor([asked.puzzle_id])
        answer = solve(model, tokens, ids, steps=self.thinking.steps, stop=rule, noise=noise)
        say(_answered(taught, asked.tokens, answer.tokens[0].cpu()))
        say(f"after {int(answer.steps[0])} steps; right with {float(answer.confidence[0]):.0%}")


@dataclass(frozen=True)
class ShowArc:
    """Show a puzzle, the answer after each step, and how sure the reasoner is of it.

    Examples:
      loopwm arc show runs/sudoku
      loopwm arc show runs/sudoku --index 3 --png figures/sudoku.png
      loopwm arc show runs/sudoku --puzzle 1...,..3.,.4..,...2
      loopwm arc show runs/arc --puzzle 00576224

    Args:
        model: Directory of the reasoner.
        index: Which held-out puzzle, the first one by default; of ARC, which evaluation task.
        puzzle: A puzzle as `loopwm arc solve` takes it, in place of a held-out one.
        steps: Steps of thought.
        png: File to draw into.
        device: "auto" takes a GPU if there is one; else a torch device name.
    """

    model: Model
    index: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 0)")] = None
    puzzle: Annotated[str | None, arg(metavar="PUZZLE", help_behavior_hint="")] = None
    steps: int = 16
    png: Annotated[Path | None, arg(metavar="FILE")] = None
    device: str = "auto"

    def run(self) -> None:
        """Print, and draw if asked to."""
        if self.index is not None and self.puzzle is not None:
            raise ConfigError("--index and --puzzle each name a puzzle: give one of them")
        from loopwm.files import write_file
        from loopwm.study.canvas import png
        from loopwm.study.reasoner.story import draw, panels

        model, taught = known(self.model, self.device)
        story = self.story(model, taught)
        console().print(panels(story))
        if self.png is not None:
            write_file(self.png, png(draw(story)))
            say(f"wrote {self.png}")

    def story(self, model: "Reasoner", taught: "Lesson") -> "Story":
        """Let the reasoner think about the puzzle that was asked for."""
        from loopwm.study.reasoner.story import tell

        if self.puzzle is not None:
            asked = _asked(model, taught, self.puzzle)
        else:
            asked = held_out(model, taught, self.index or 0)
        story = tell(
            model,
            taught.look,
            asked.tokens,
            puzzle_id=asked.puzzle_id,
            steps=self.steps,
            labels=asked.labels,
        )
        return replace(story, examples=asked.examples)


def known(place: Path, device: str) -> "tuple[Reasoner, Lesson]":
    """Load a reasoner, to where it is to think, and what it was taught.

    Raises:
        ConfigError: If it was taught nothing that has a name here, or there is no such device.
    """
    from loopwm.reason.lessons import lesson
    from loopwm.reason.stored import load
    from loopwm.train.config import FitConfig
    from loopwm.train.fit import device_of

    model = load(place).to(device_of(FitConfig(device=device)))
    if not model.lesson:
        raise ConfigError(
            f"{place} does not say what its reasoner was taught: it was saved without a lesson, or "
            f"none of `loopwm arc list` has {model.config.length} tokens of "
            f"{model.config.vocabulary} kinds; ask it in Python, by loopwm.reason.answer.solve"
        )
    return model, lesson(model.lesson)


def _asked(model: "Reasoner", taught: "Lesson", puzzle: str) -> "Asked":
    """Read a puzzle; the name of an ARC task that cannot be asked says why it cannot."""
    try:
        return read_puzzle(model, taught, puzzle)
    except DataError:
        if taught.is_arc:
            from loopwm.reason.tasks import refuse_unasked

            refuse_unasked(puzzle, taught.look.columns)
        raise


def _answered(taught: "Lesson", puzzle: list[int], answer: "Tensor") -> str:
    """Return an answer as lines of text; of ARC the grid that is cut out of the canvas."""
    if not taught.is_arc:
        return taught.look.write(taught.look.filled(puzzle, answer.tolist()))
    from loopwm.reason.grid import decode
    from loopwm.reason.vote import text

    canvas = answer.numpy()[-(taught.look.columns**2) :]
    return text(decode(canvas)).replace("/", "\n") or "no grid"


def _names(places: tuple[Path, ...]) -> list[str]:
    """Return the last names of directories, or whole paths where those are not all different."""
    names = [place.name for place in places]
    return names if len(set(names)) == len(names) else [str(place) for place in places]


def _alike(places: tuple[Path, ...], device: str) -> "tuple[list[Reasoner], Lesson]":
    found = [known(place, device) for place in places]
    lessons = {model.lesson for model, _ in found}
    if len(lessons) > 1:
        raise ConfigError(f"the reasoners were taught different lessons: {sorted(lessons)}")
    return [model for model, _ in found], found[0][1]
