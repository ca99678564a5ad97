"""`loopwm train`: a dataset into a model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import AvoidSubcommands, Positional, arg

from loopwm.cli.choice import ModelChoice
from loopwm.cli.screen import say
from loopwm.cli.stored import load_dataset
from loopwm.train.config import AdamW, FitConfig, Muon


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

    Args:
        data: Dataset: a directory, or minari:ID.
        out: Directory of the run.
        choice: The model.
        members: Number of models; two or more make an ensemble.
        valid: Dataset for validation; by default 5% of the episodes of DATA.
        muon: Train matrices with Muon, all else with AdamW.
        fit: How to train.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    out: Path
    choice: Annotated[ModelChoice, arg(name="")] = ModelChoice()
    members: int = 1
    valid: Annotated[str | None, arg(metavar="DATA")] = None
    muon: bool = False
    fit: Annotated[AvoidSubcommands[FitConfig], arg(name="")] = FitConfig()

    def run(self) -> None:
        """Train and save."""
        config = self.choice.config()
        from loopwm.train.fit import device_of

        # Before minutes are spent on reading the data.
        device_of(self.fit)
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

    def fit_config(self) -> FitConfig:
        """Return how to train, with the optimiser that was asked for."""
        adamw = self.fit.optimizer
        if not self.muon or not isinstance(adamw, AdamW):
            return self.fit
        return replace(self.fit, optimizer=Muon(adamw=adamw))
