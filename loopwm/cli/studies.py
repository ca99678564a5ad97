"""`loopwm demo`, `bench` and `results`: the studies of this repository."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class Demo:
    """Collect, train, evaluate and show a looped world model of Hopper-v5 and its counterparts.

    Ends in a table and a report page. Repeating it after a stop goes on where it was.

    Examples:
      loopwm demo
      loopwm demo --smoke --out runs/smoke

    Args:
        out: Directory for datasets, models and the report; by default runs/demo, or
            runs/demo-smoke.
        smoke: Run everything at a tiny size, to see that it runs.
    """

    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    smoke: bool = False

    def run(self) -> None:
        """Run the demonstration."""
        from loopwm.cli.screen import console
        from loopwm.study.demo import FULL, SMOKE, demonstrate

        plan, usual = (SMOKE, "runs/demo-smoke") if self.smoke else (FULL, "runs/demo")
        demonstrate(plan, self.out or Path(usual), console())


@dataclass(frozen=True)
class Bench:
    """Measure how fast models imagine.

    Examples:
      loopwm bench
    """

    def run(self) -> None:
        """Measure."""


@dataclass(frozen=True)
class Results:
    """Render docs/results.md.

    Examples:
      loopwm results
    """

    def run(self) -> None:
        """Render."""
