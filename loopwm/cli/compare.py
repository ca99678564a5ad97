"""`loopwm compare`: looped against unlooped models, over tasks, sizes, seeds and budgets."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from loopwm.cli.screen import console, say
from loopwm.cli.stored import refuse_unwritable
from loopwm.errors import ConfigError


@dataclass(frozen=True)
class Compare:
    """Compare looped with unlooped models at equal size and equal error, from a file of settings.

    Prints what it will cost before it starts. Repeating it after a stop goes on where it was;
    several processes, also of several machines that share --folder, may run it at once. Tables,
    CSV files and figures go to FOLDER/report. A file of settings:
      tasks = ["Hopper-v5", "HalfCheetah-v5"]
      arms = ["looped", "once", "untied", "mlp", "gru", "rssm"]
      sizes = [8000, 16000, 32000, 64000, 128000]
      updates = [4000, 8000, 16000]

    Examples:
      loopwm compare --quick
      loopwm compare settings.toml --estimate
      loopwm compare settings.toml --folder runs/compare --workers 8
      loopwm compare settings.toml --folder /shared/compare --submit 40
      loopwm compare settings.toml --list
      loopwm compare settings.toml --only NAME
      loopwm compare settings.toml --report --results docs/results

    Args:
        settings: TOML or JSON file; the settings are those of
            loopwm.study.compare.settings.Settings.
        folder: Directory of data, results and checkpoints.
        quick: Run a tiny comparison instead: ten minutes on two idle cores.
        workers: Processes on this machine; by default one for each core.
        submit: Submit so many jobs to a cluster instead, through submitit.
        hours: Longest that a job may run.
        estimate: Only print what it will cost.
        list: Only name what can be trained now, one a line: of models trained at once the first.
        only: Train only the model of that name, and those that are trained at once with it.
        report: Train nothing: report what is there.
        results: Directory of the studies of `loopwm results` to write the tables to.
    """

    settings: Annotated[Positional[Path | None], arg(metavar="FILE", help_behavior_hint="")] = None
    folder: Path = Path("runs/compare")
    quick: bool = False
    workers: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    submit: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    hours: float = 24.0
    estimate: bool = False
    list: bool = False
    only: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    report: bool = False
    results: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None

    def __post_init__(self) -> None:
        """Check that there is one source of settings and one thing to do."""
        if (self.settings is None) != self.quick:
            raise ConfigError("give a file of settings or --quick, and not both")
        modes = {
            "--submit": self.submit is not None,
            "--estimate": self.estimate,
            "--list": self.list,
            "--only": self.only is not None,
            "--report": self.report,
        }
        chosen = [name for name, on in modes.items() if on]
        if len(chosen) > 1:
            raise ConfigError(f"{' and '.join(chosen)} exclude each other: give one of them")
        counts = [each for each in (self.workers, self.submit) if each is not None]
        if min(counts, default=1) < 1 or self.hours <= 0:
            raise ConfigError("--workers, --submit and --hours must be above 0")

    def run(self) -> None:
        """Do what was asked for."""
        from loopwm.study.compare.conduct import Order, conduct
        from loopwm.study.compare.settings import QUICK, read_settings

        settings = QUICK if self.settings is None else read_settings(self.settings)
        name = "quick" if self.settings is None else self.settings.stem
        order = Order(
            settings=settings,
            name=f"compare-{name}",
            folder=self.folder / "quick" if self.quick else self.folder,
            mode=self._mode(),
            workers=self.workers or os.cpu_count() or 1,
            jobs=self.submit or 0,
            hours=self.hours,
            only=self.only or "",
            results=self.results,
        )
        for place in (order.folder, self.results):
            if place is not None:
                refuse_unwritable(place)
        conduct(order, console(), say)

    def _mode(self) -> str:
        if self.submit is not None:
            return "submit"
        if self.only is not None:
            return "only"
        modes = {"estimate": self.estimate, "list": self.list, "report": self.report}
        return next((name for name, on in modes.items() if on), "run")
