"""`loopwm train`: a dataset into a model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import AvoidSubcommands, Positional, arg

from loopwm.cli.choice import ModelChoice
from loopwm.cli.pair import looped_only, puzzles_of
from loopwm.cli.screen import say
from loopwm.cli.stored import load_dataset, refuse_unwritable
from loopwm.errors import ConfigError
from loopwm.files import refuse_other_kind
from loopwm.train.config import FitConfig, Muon
from loopwm.world.config import WorldConfig

if TYPE_CHECKING:
    from loopwm.train.log import Record


@dataclass(frozen=True)
class Train:
    """Train a world model on a dataset, or go on with a run that was stopped.

    The model, its checkpoints and metrics.jsonl go to --out. Repeating the command after a stop
    (Ctrl-C, SIGTERM, a crash) goes on where the run was, and ends where it would have ended.

    Examples:
      loopwm train data/hopper --out runs/hopper
      loopwm train data/hopper --out runs/mlp --model mlp --width 200 --depth 4
      loopwm train data/hopper --out runs/once --model once
      loopwm train data/hopper --out runs/five --members 5 --head gaussian --updates 10000
      loopwm train data/hopper --out runs/both --with sudoku-4x4

    With a lesson of `loopwm arc list`, a reasoner is trained on it at the same time, and both use
    one core's weights; --out then holds both, for `loopwm evaluate` and for `loopwm arc evaluate`.

    Args:
        data: Dataset: a directory, or minari:ID.
        out: Directory of the run.
        choice: The model.
        members: Number of models; two or more make an ensemble.
        valid: Dataset for validation; by default 5% of the episodes of DATA.
        adamw: Train by AdamW alone; else Muon trains the matrices, AdamW all else.
        with_: Lesson that a reasoner is taught by the same core, such as arc or sudoku-4x4; width
            and cell are those of the lesson, unless --width says otherwise.
        slots: Puzzles in flight, with --with.
        puzzle_weight: Weight of the reasoner's loss, with --with.
        fit: How to train.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    out: Path
    choice: Annotated[ModelChoice, arg(name="")] = ModelChoice()
    members: int = 1
    valid: Annotated[str | None, arg(metavar="DATA")] = None
    adamw: bool = False
    with_: Annotated[str | None, arg(name="with", metavar="LESSON")] = None
    slots: Annotated[int | None, arg(help_behavior_hint="(default: the lesson's own)")] = None
    puzzle_weight: float = 1.0
    fit: Annotated[AvoidSubcommands[FitConfig], arg(name="")] = FitConfig()

    def run(self) -> None:
        """Train and save."""
        config = self.choice.config()
        from loopwm.train.fit import device_of

        # Before minutes are spent on reading the data.
        device_of(self.fit)
        refuse_other_kind(self.out, ["model", *(["reasoner"] if self.with_ else [])])
        if self.with_ is None and (self.slots is not None or self.puzzle_weight != 1.0):
            raise ConfigError("--slots and --puzzle-weight need --with LESSON")
        refuse_unwritable(self.out)
        if self.with_ is not None:
            self._run_with(self.with_, looped_only(self.choice, self.members))
            return
        data = load_dataset(self.data)
        valid = None if self.valid is None else load_dataset(self.valid)
        from loopwm.world.fit import fit

        model = fit(
            data, config, self.fit_config(), run_dir=self.out, members=self.members, valid=valid
        )
        model.save(self.out)
        checks = [each["validation"] for each in model.history if each.get("validation")]
        error = f"validation error {checks[-1]:.4g}, " if checks else ""
        say(
            f"{type(config).__name__}, {model.num_parameters:,} parameters: {error}"
            f"{self.fit.updates:,} updates\nsaved in {self.out}"
        )

    def _run_with(self, lesson: str, config: WorldConfig) -> None:
        puzzles = puzzles_of(lesson, self.choice.width, self.slots, self.puzzle_weight)
        data = load_dataset(self.data)
        valid = None if self.valid is None else load_dataset(self.valid)
        from loopwm.joint import fit, world_of

        world = world_of(puzzles.config, config)
        pair = fit(data, puzzles, world, self.fit_config(), run_dir=self.out, valid=valid)
        pair.reasoner.lesson = lesson
        pair.save(self.out)
        checks = [each for each in pair.world.history if "validation" in each]
        found = measured(checks[-1] if checks else {})
        shares = [f"{share:.0%} of the {name}" for name, share in pair.shares().items()]
        say(
            f"one core, {' and '.join(shares)}: {', '.join([*found, f'{self.fit.updates:,}'])} "
            f"updates\nsaved in {self.out}"
        )

    def fit_config(self) -> FitConfig:
        """Return how to train, with the optimiser that was asked for."""
        muon = self.fit.optimizer
        if not self.adamw or not isinstance(muon, Muon):
            return self.fit
        return replace(self.fit, optimizer=muon.adamw)


def measured(last: "Record") -> list[str]:
    """Say what the last validation of a pair found; 0 is a finding, too.

    Args:
        last: Its record, empty if there was none.
    """
    names = {"world_validation": "error of the world", "puzzles_validation": "wrong answers"}
    values = {what: last.get(name) for name, what in names.items()}
    return [f"{what} {value:.4g}" for what, value in values.items() if value is not None]
