"""`loopwm arc train`, `list`, `import`, `export`: where reasoners come from, and where they go."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from loopwm.cli.screen import console, say
from loopwm.cli.stored import refuse_existing, refuse_unwritable
from loopwm.errors import ConfigError
from loopwm.files import kind_at, refuse_other_kind

if TYPE_CHECKING:
    from loopwm.reason.config import ReasonerConfig
    from loopwm.reason.lessons import Lesson

_OWN = "(default: the lesson's own)"
Integer = Annotated[int | None, arg(metavar="INT", help_behavior_hint=_OWN)]
Number = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint=_OWN)]


@dataclass(frozen=True)
class TrainArc:
    """Teach a reasoner a lesson: sudoku, mazes, regions, ARC.

    The reasoner, its checkpoints and metrics.jsonl go to --out. Repeating the command after a stop
    goes on where the run was, bit for bit. `loopwm arc list` lists the lessons.

    Needs the extra of the puzzles: pip install "loopwm[arc]".

    Examples:
      loopwm arc train sudoku-4x4 --out runs/sudoku
      loopwm arc train sudoku-4x4 --out runs/once --most-steps 1
      loopwm arc train arc-12 --out runs/arc --updates 50000 --precision bf16
      loopwm arc train sudoku-hard --out runs/hard --device cuda --precision bf16 --compiled

    Args:
        lesson: Name of the lesson.
        out: Directory of the run.
        updates: Gradient updates.
        batch: Puzzles in flight.
        lr: Peak learning rate.
        seed: Seed of weights, puzzles and exploration.
        most_steps: Most steps of thought on a puzzle.
        rise: Share of training over which the most steps double from 1 up.
        device: "auto" takes a GPU if there is one; else a torch device name.
        precision: "bf16" computes in bfloat16 around float32 weights.
        init: Reasoner whose weights training starts from.
        compiled: Train with torch.compile: a minute or two first, then faster on a GPU.
    """

    lesson: Annotated[Positional[str], arg(metavar="LESSON")]
    out: Path
    updates: Integer = None
    batch: Integer = None
    lr: Number = None
    seed: int = 0
    most_steps: Integer = None
    rise: Number = None
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    init: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    compiled: bool = False

    def run(self) -> None:
        """Train and save."""
        from loopwm.reason.lessons import lesson

        taught = self.changed(lesson(self.lesson))
        from loopwm.reason.stored import load, save
        from loopwm.reason.teach import teach
        from loopwm.train.fit import device_of

        device_of(taught.training)
        refuse_other_kind(self.out, ["reasoner"])
        self._refuse_loss()
        refuse_unwritable(self.out)
        init = None if self.init is None else load(self.init)
        model = teach(taught, taught.make(), self.out, init)
        model.lesson = self.lesson
        save(model, self.out)
        wrong = [each["validation"] for each in model.history if "validation" in each]
        right = (
            "" if not wrong or wrong[-1] is None else f": {1 - wrong[-1]:.1%} of held-out puzzles"
        )
        say(f"{self.lesson}, {taught.training.updates:,} updates{right}\nsaved in {self.out}")

    def _refuse_loss(self) -> None:
        """Keep a run from taking the place of a reasoner that is not its own."""
        if self.init is not None and self.init.resolve() == self.out.resolve():
            raise ConfigError(
                f"--init and --out are both {self.out}: the reasoner would be lost, and the run "
                "could not go on after a stop; choose another --out"
            )
        if kind_at(self.out) is not None and not (self.out / "checkpoints").exists():
            raise ConfigError(
                f"{self.out} holds a reasoner that no run there made: choose another --out"
            )

    def changed(self, taught: "Lesson") -> "Lesson":
        """Return the lesson with what was asked for otherwise."""
        training = {"updates": self.updates, "batch_size": self.batch, "lr": self.lr}
        halting = {"max_steps": self.most_steps, "rise": self.rise}
        fixed = {"seed": self.seed, "device": self.device, "compiled": self.compiled}
        return replace(
            taught,
            training=replace(
                taught.training, precision=self.precision, **fixed, **_given(training)
            ),
            halting=replace(taught.halting, **_given(halting)),
        )


@dataclass(frozen=True)
class ListArc:
    """List the lessons that `loopwm arc train` can teach.

    Examples:
      loopwm arc list
    """

    def run(self) -> None:
        """Print a table."""
        from rich.table import Table

        from loopwm.reason.lessons import LESSONS

        table = Table("lesson", "tokens", "width", "updates", "what it is")
        for name, each in LESSONS.items():
            sizes = (each.model.length, each.model.width, each.training.updates)
            table.add_row(name, *(f"{size:,}" for size in sizes), each.about)
        console().print(table)


@dataclass(frozen=True)
class ImportArc:
    """Read a published TRM, a file of torch.save or safetensors, into a reasoner of ours.

    Nothing in the file is executed.

    Examples:
      loopwm arc import step_723914 --out runs/published
      loopwm arc import sudoku.safetensors --out runs/sudoku --puzzles drop
      loopwm arc import mine.pt --out runs/mine --preset arc-12

    Args:
        file: The published file.
        out: Directory of the reasoner.
        puzzles: Keep what was learned of each puzzle, drop it, or give new ones the mean of it.
        num_puzzles: Number of new puzzles, with drop and mean.
        preset: Name of the sizes, where a file fits several.
        overwrite: Replace a reasoner that is already there.
    """

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    out: Path
    puzzles: Literal["keep", "drop", "mean"] = "keep"
    num_puzzles: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 1)")] = None
    preset: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    overwrite: bool = False

    def run(self) -> None:
        """Convert and save."""
        if self.puzzles == "keep" and self.num_puzzles is not None:
            raise ConfigError("--num-puzzles needs --puzzles drop or --puzzles mean")
        if not self.file.exists():
            raise ConfigError(f"there is no file {self.file}")
        refuse_existing(self.out, self.overwrite)
        refuse_other_kind(self.out, ["reasoner"])
        if (self.out / "checkpoints").exists():
            raise ConfigError(f"{self.out} holds a run: choose another --out")
        from loopwm.core.count import parameters
        from loopwm.reason.convert import import_trm
        from loopwm.reason.presets import preset
        from loopwm.reason.stored import save

        config = None if self.preset is None else preset(self.preset)
        model = import_trm(self.file, config, puzzles=self.puzzles, num_puzzles=self.num_puzzles)
        model.lesson = _lesson_of(model.config)
        save(model, self.out)
        table = model.config.puzzles * model.config.puzzle_width
        say(
            f"{parameters(model) - table:,} parameters and {model.config.puzzles:,} puzzle ids\n"
            f"saved in {self.out}"
        )


@dataclass(frozen=True)
class ExportArc:
    """Write a reasoner as published ones are stored.

    Examples:
      loopwm arc export runs/sudoku sudoku.pt
      loopwm arc export runs/sudoku sudoku.safetensors

    Args:
        model: Directory of the reasoner.
        file: The file; safetensors if its name ends so, else of torch.save.
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL")]
    file: Annotated[Positional[Path], arg(metavar="FILE")]

    def run(self) -> None:
        """Convert and write."""
        from loopwm.reason.convert import export_trm
        from loopwm.reason.stored import load

        if self.file.resolve().parent == self.model.resolve():
            raise ConfigError(f"{self.file} lies in the reasoner's own folder: choose another")
        export_trm(load(self.model), self.file)
        say(f"wrote {self.file}")


def _lesson_of(config: "ReasonerConfig") -> str:
    """Return the lesson with puzzles of these sizes, that of the same width first; "" for none."""
    from loopwm.reason.lessons import LESSONS

    sizes = (config.vocabulary, config.length)
    fits = {
        name: each.model.width != config.width
        for name, each in LESSONS.items()
        if (each.model.vocabulary, each.model.length) == sizes
    }
    return min(fits, key=lambda name: fits[name], default="")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
