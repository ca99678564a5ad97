"""The demonstration: real rollouts, a looped model and its counterparts, a table and a page."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from loopwm.core.halt import OutputDelta
from loopwm.data.standard import collect_standard
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, LoopwmError, require
from loopwm.files import read_json, tree_exists, write_file, write_json
from loopwm.study.accuracy import PredictionReport
from loopwm.study.arms import arm_of
from loopwm.study.brief import brief_table
from loopwm.study.canvas import png
from loopwm.study.episode import Episode, imagine_episode, predict_episode
from loopwm.study.lanes import Job, run_lanes
from loopwm.study.openloop import Imagination
from loopwm.study.page import Origin, Shown, Views, page_sections
from loopwm.study.plot import plot_episode, plot_error, plot_iterations
from loopwm.study.prediction import evaluate
from loopwm.study.provenance import provenance
from loopwm.study.report import write_report
from loopwm.study.video import write_video
from loopwm.study.watch import watching
from loopwm.study.windows import Sampling
from loopwm.train.config import FitConfig
from loopwm.world.build import encode, load
from loopwm.world.fit import fit

SEEDS = {"train": 0, "test": 1}


@dataclass(frozen=True)
class Plan:
    """Say what is demonstrated; the numbers, not the clock, decide how long it takes.

    Attributes:
        task: Gymnasium id of a task with actors for the standard mixture.
        rows: Transitions of the training set.
        test_rows: Transitions of the test set, by policies of other training seeds.
        lanes: Names of the models (see `loopwm.study.arms`); each lane is trained by a process of
            its own, the models of a lane one after the other.
        updates: Gradient updates of each model.
        horizons: Open-loop steps at which errors are measured.
        windows: Most windows for each horizon.
        ceiling: Most windows that the simulator goes on from.
        shown: Steps of the episode that is drawn and filmed.
    """

    task: str = "Hopper-v5"
    rows: int = 100_000
    test_rows: int = 20_000
    lanes: tuple[tuple[str, ...], ...] = (("looped",), ("once", "mlp-4x200"))
    updates: int = 5_000
    horizons: tuple[int, ...] = (1, 5, 15, 50)
    windows: int = 1_000
    ceiling: int = 100
    shown: int = 125

    @property
    def arms(self) -> list[str]:
        """Names of the models, in the order of the table."""
        return [name for lane in self.lanes for name in lane]


FULL = Plan()
SMOKE = Plan(
    rows=1_200, test_rows=800, updates=30, horizons=(1, 5, 15), windows=100, ceiling=10, shown=25
)


def demonstrate(plan: Plan, out: Path, screen: Console) -> Path:
    """Run the demonstration, or finish one that was stopped.

    Args:
        plan: What to do.
        out: Directory for datasets, runs, figures and the page.
        screen: Where to say how it goes.

    Returns:
        The report page.

    Raises:
        ConfigError: If `out` holds a demonstration of another plan.
        LoopwmError: If a stage fails; what was finished before is kept.
    """
    require("matplotlib.figure", "viz")  # Before the work, not after it.
    _hold(plan, out)
    with _stage(screen, f"collect {plan.rows + plan.test_rows:,} real steps of {plan.task}"):
        absent = [split for split in SEEDS if not tree_exists(out / "data" / split)]
        run_lanes([[partial(_collect, plan, out, split)] for split in absent])
    runs = {arm_of(name).label: out / "runs" / name for name in plan.arms}
    with (
        _stage(screen, f"train {len(runs)} models, {plan.updates:,} updates each, and evaluate"),
        watching(runs, plan.updates) as look,
    ):
        run_lanes(_unfinished(plan, out), look)
    with _stage(screen, "draw, film and write the page"):
        models = {arm_of(name).label: _shown(out, name) for name in plan.arms}
        page = _write_page(plan, out, models)
    sizes = {f"{name} ({each.parameters:,} parameters)": each for name, each in models.items()}
    screen.print(brief_table({name: each.report for name, each in sizes.items()}))
    screen.print(f"Report: {page.resolve()}", highlight=False, soft_wrap=True)
    return page


def _hold(plan: Plan, out: Path) -> None:
    """Make sure that `out` holds this plan and no other."""
    path = out / "plan.json"
    if not path.exists():
        write_json(path, asdict(plan))
    theirs = read_json(path)
    ours = json.loads(json.dumps(asdict(plan)))
    different = [name for name, value in ours.items() if theirs.get(name) != value]
    if different:
        raise ConfigError(
            f"{out} holds a demonstration with other settings ({', '.join(different)}): "
            "choose another directory, or delete this one"
        )


@contextmanager
def _stage(screen: Console, what: str) -> Iterator[None]:
    started = time.perf_counter()
    screen.print(f"{what} ...", highlight=False)
    yield
    screen.print(f"  {time.perf_counter() - started:.0f} s", highlight=False)


def _collect(plan: Plan, out: Path, split: str) -> None:
    rows = plan.rows if split == "train" else plan.test_rows
    # Two bars of two processes would overwrite one another: the longer collection shows its own.
    progress = None if split == "train" else False
    data = collect_standard(plan.task, rows, SEEDS[split], split, progress=progress)
    data.save(out / "data" / split)


def _unfinished(plan: Plan, out: Path) -> list[list[Job]]:
    lanes: list[list[Job]] = [
        [partial(_learn, plan, out, name) for name in lane if not _report_path(out, name).exists()]
        for lane in plan.lanes
    ]
    return [lane for lane in lanes if lane]


def _learn(plan: Plan, out: Path, name: str) -> None:
    """Train and evaluate one model."""
    import torch

    run_dir = out / "runs" / name
    torch.set_num_threads(1)
    train, test = _datasets(out)
    model = fit(train, arm_of(name).config, _fit_config(plan), run_dir=run_dir)
    model.save(run_dir)
    sampling = Sampling(max_windows=plan.windows, ceiling_windows=plan.ceiling)
    report = evaluate(model, test, plan.horizons, train=train, sampling=sampling)
    write_json(_report_path(out, name), replace(report, name=arm_of(name).label).to_dict())


def _fit_config(plan: Plan) -> FitConfig:
    often = max(1, plan.updates // 20)
    return FitConfig(
        updates=plan.updates,
        threads=1,
        device="cpu",
        log_every=min(100, plan.updates),
        validate_every=often,
        checkpoint_every=often,
        progress=False,
    )


def _report_path(out: Path, name: str) -> Path:
    return out / "reports" / f"{name}.json"


def _datasets(out: Path) -> tuple[RolloutDataset, ...]:
    return tuple(RolloutDataset.load(out / "data" / split) for split in SEEDS)


def _shown(out: Path, name: str) -> Shown:
    model = load(out / "runs" / name)
    report = PredictionReport.from_dict(read_json(_report_path(out, name)))
    return Shown(report, model.num_parameters, encode(model.config), model.history)


def _write_page(plan: Plan, out: Path, models: dict[str, Shown]) -> Path:
    train, test = _datasets(out)
    imagined, stepwise = _episodes(plan, out, test)
    figures = {
        "error": plot_error({name: each.report for name, each in models.items()}),
        "imagined": plot_episode(imagined),
        "iterations": plot_iterations(stepwise),
    }
    for name, figure in figures.items():
        write_file(out / "figures" / f"{name}.png", png(figure))
    film, missing = None, ""
    try:
        path = out / "figures" / "video.mp4"
        film = write_video(path, imagined, test.meta, iterations=stepwise.iterations).read_bytes()
    except LoopwmError as error:
        missing = str(error)
    settings = {"plan": asdict(plan), "training": _fit_config(plan).fingerprint()}
    origin = Origin(train, test, settings, provenance("loopwm demo", [*SEEDS.values()]))
    sections = page_sections(models, origin, Views(imagined, stepwise, film, missing))
    title = f"A looped world model of {plan.task}"
    remark = "" if plan.updates >= FULL.updates else "; too small to mean anything"
    return write_report(out / "report.html", title, sections, f"Made by loopwm demo{remark}")


def _episodes(plan: Plan, out: Path, test: RolloutDataset) -> tuple[Episode, Episode]:
    """Imagine, and predict step by step, the longest test episode of the strongest policies."""
    strongest = test.part(test.meta.parts[-1])
    model = load(out / "runs" / plan.arms[0])
    row = int(strongest.bounds[(strongest.bounds[1:] - strongest.bounds[:-1]).argmax()])
    how = Imagination(halt=OutputDelta())
    return (
        imagine_episode(model, strongest, row, plan.shown),
        predict_episode(model, strongest, row, plan.shown, how),
    )
