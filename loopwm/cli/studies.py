"""`loopwm demo`, `bench` and `results`: the studies of this repository."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from loopwm.cli.screen import console, say
from loopwm.errors import ConfigError, MissingExtra


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
        from loopwm.study.demo import FULL, SMOKE, demonstrate

        plan, usual = (SMOKE, "runs/demo-smoke") if self.smoke else (FULL, "runs/demo")
        demonstrate(plan, self.out or Path(usual), console())


@dataclass(frozen=True)
class Bench:
    """Measure how fast models imagine on one CPU thread, beside the simulator and the machine.

    `loopwm bench plan` measures how long planners take, `loopwm bench arc` how long the reasoner's
    training does.

    Examples:
      loopwm bench
      loopwm bench --no-compiled --no-growth --repeats 3

    Args:
        task: Gymnasium id; it sets the dimensions and is stepped as the simulator.
        batch: Trajectories imagined at once.
        horizon: Steps of each.
        iterations: Iterations of the loop per step.
        repeats: Timed rounds.
        no_compiled: Leave torch.compile out, which takes minutes and a C++ compiler.
        no_growth: Leave out how the rate grows with iterations, batch and horizon.
    """

    task: str = "HalfCheetah-v5"
    batch: int = 1024
    horizon: int = 15
    iterations: int = 4
    repeats: int = 9
    no_compiled: bool = False
    no_growth: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("batch", "horizon", "iterations", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, got {getattr(self, name)}")

    def run(self) -> None:
        """Measure and print."""
        from dataclasses import asdict

        from loopwm.study.bench import BenchConfig, bench_imagine
        from loopwm.study.results import rich_table

        screen, settings = console(), asdict(self)
        for name in ("compiled", "growth"):
            settings[name] = not settings.pop(f"no_{name}")
        for sheet in bench_imagine(BenchConfig(**settings)):
            screen.print(rich_table(sheet))


@dataclass(frozen=True)
class BenchPlan:
    """Measure how long planners take for an action, on the looped model and on MLPs.

    Examples:
      loopwm bench plan
      loopwm bench plan --threads 1 --repeats 3

    Args:
        task: Gymnasium id; it sets the dimensions.
        candidates: Sequences of actions in each iteration of the search.
        horizon: Steps of each.
        iterations: Iterations of the search.
        loops: Iterations of the loop per step, where they are fixed.
        threads: CPU threads.
        repeats: Timed rounds.
    """

    task: str = "HalfCheetah-v5"
    candidates: int = 512
    horizon: int = 12
    iterations: int = 3
    loops: int = 4
    threads: int = 2
    repeats: int = 9

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (
            *(("candidates", 2), ("horizon", 1), ("iterations", 1)),
            *(("loops", 1), ("threads", 1), ("repeats", 1)),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} must be at least {least}, got {getattr(self, name)}")

    def run(self) -> None:
        """Measure and print."""
        from dataclasses import asdict

        from loopwm.study.bench_plan import PlanBench, bench_plan
        from loopwm.study.results import rich_table

        console().print(rich_table(bench_plan(PlanBench(**asdict(self)))))


@dataclass(frozen=True)
class BenchArc:
    """Measure a training step of the reasoner beside TRM as published, on one CPU thread or a GPU.

    How many sudokus a core makes is measured too, easy and hard ones.

    Examples:
      loopwm bench arc
      loopwm bench arc --preset sudoku-4x4 --batch 128 --repeats 9
      loopwm bench arc --batch 8 --repeats 1 --no-compiled
      loopwm bench arc --batch 64 --device cuda

    Args:
        preset: Shape of the reasoner (loopwm.reason.presets).
        batch: Puzzles in flight.
        repeats: Timed rounds.
        no_compiled: Leave torch.compile out, which takes minutes and a C++ compiler.
        device: Where to run, a torch device name.
    """

    preset: str = "arc"
    batch: int = 1
    repeats: int = 3
    no_compiled: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("batch", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, got {getattr(self, name)}")

    def run(self) -> None:
        """Measure and print."""
        from loopwm.study.reasoner.bench import bench_arc
        from loopwm.study.results import rich_table

        sheet = bench_arc(
            self.preset, self.batch, self.repeats, compiled=not self.no_compiled, device=self.device
        )
        console().print(rich_table(sheet))
        try:
            from loopwm.study.reasoner.bench_puzzles import bench_puzzles
        except MissingExtra as error:
            say(f"sudokus are not timed: {error}")
            return
        console().print(rich_table(bench_puzzles(repeats=self.repeats)))


@dataclass(frozen=True)
class Results:
    """Render docs/results.md from the files beside it; with --rerun, compute one table anew.

    A rerun that was stopped goes on where it was; several processes may share one.

    Examples:
      loopwm results
      loopwm results --rerun bench
      loopwm results --rerun prediction-hopper --threads 2
      loopwm results --rerun agents-pendulum --finished

    Args:
        rerun: Name of the table to compute anew.
        finished: Compute nothing; publish the cells that are finished, the others as not run.
        folder: Directory of the tables' JSON files.
        page: The page to write.
        work: Directory of data, checkpoints and finished cells of reruns.
        threads: CPU threads of a rerun.
    """

    rerun: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    finished: bool = False
    folder: Path = Path("docs/results")
    page: Path = Path("docs/results.md")
    work: Path = Path("runs/study")
    threads: int = 1

    def __post_init__(self) -> None:
        """Check that there is a table to publish."""
        if self.finished and self.rerun is None:
            raise ConfigError("--finished needs --rerun NAME, the table whose cells are published")

    def run(self) -> None:
        """Render."""
        from loopwm.study.results import render_results

        if self.rerun is not None:
            from loopwm.study.recipe import Options
            from loopwm.study.studies import rerun

            options = Options(self.work, self.threads, say, finished=self.finished)
            rerun(self.rerun, self.folder, options)
        studies = render_results(self.folder, self.page)
        say(f"wrote {self.page}: {', '.join(each.name for each in studies)}")
