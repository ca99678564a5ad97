"""What looping buys: the looped model, its unlooped counterparts and the MLP, trained alike."""

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loopwm.errors import NumericalError
from loopwm.study.accuracy import PredictionReport
from loopwm.study.arms import arm_of
from loopwm.study.cells import run_cells, version
from loopwm.study.datasets import Experience, Split, study_data
from loopwm.study.plateau import histories, largest_gain, left_out, training_seconds
from loopwm.study.windows import Sampling
from loopwm.train.config import OPTIMIZERS, FitConfig
from loopwm.world.config import ModelConfig

if TYPE_CHECKING:
    from loopwm.world.ensemble import Ensemble
    from loopwm.world.model import WorldModel

HORIZONS = (1, 5, 15, 50)
CHOOSING = (1, 15)


@dataclass(frozen=True)
class Cell:
    """Say everything that one trained and evaluated model depends on.

    Attributes:
        task: Gymnasium id.
        arm: Name of the model in `loopwm.study.arms.ARMS`.
        seed: Seed of weights and batches; the data is the same for all seeds.
        lr: Peak learning rate.
        updates: Gradient updates.
        rows: Transitions of the training set.
        observation: "full", or "positions" for observations without velocities.
        mixture: "standard", or "excitation" alone.
        horizon: Steps that the training loss looks ahead.
        rise: Fraction of the updates over which those grow from one.
        decay: How the weight of a step falls with its distance (`Objective.decay`).
        context: Real observations taken in before imagining, in training and evaluation.
        batch: Windows in each update.
        optimizer: "adamw" or "muon".
    """

    task: str = "Hopper-v5"
    arm: str = "looped"
    seed: int = 0
    lr: float = 5e-3
    updates: int = 20_000
    rows: int = 100_000
    observation: str = "full"
    mixture: str = "standard"
    horizon: int = 4
    rise: float = 0.25
    decay: float = 0.0
    context: int = 1
    batch: int = 256
    optimizer: Literal["adamw", "muon"] = "muon"

    @property
    def name(self) -> str:
        """Name the cell by all that it depends on, but what is trained at once with it."""
        words = [self.task, self.arm, f"lr{self.lr:g}", f"seed{self.seed}", f"u{self.updates}"]
        words += [f"n{self.rows}", self.mixture, self.observation]
        rise = f"r{self.rise:g}" if self.rise != 0.25 else ""
        decay = f"d{self.decay:g}" if self.decay else ""
        words += [f"h{self.horizon}{rise}{decay}", f"c{self.context}", f"b{self.batch}"]
        return "_".join([*words, self.optimizer, _version(self)])


def run_cell(cell: Cell, folder: Path, threads: int = 1) -> dict[str, Any]:
    """Train and evaluate one model.

    A training run that was stopped goes on where it was; a model that is there is only evaluated.

    Args:
        cell: What to train.
        folder: Where the data and the checkpoints of running cells are kept.
        threads: CPU threads.

    Returns:
        The cell's numbers as JSON values.
    """
    import torch

    from loopwm.world.build import load
    from loopwm.world.fit import fit

    torch.set_num_threads(threads)
    arm, path = arm_of(cell.arm), folder / "models" / cell.name
    data = study_data(_experience(cell), folder / "data")
    if path.exists():
        model = load(path)
    else:
        try:
            model = fit(
                data.train,
                _config(cell),
                _fit_config(cell, threads),
                run_dir=folder / "running" / cell.name,
                members=arm.members,
                valid=data.held,
            )
        except NumericalError as error:
            # A rate that is too high is a finding, not a reason to stop the other cells.
            failed = {"validation": None, "failed": str(error)}
            return {"cell": asdict(cell), "label": arm.label, **failed}
        model.save(path)
    shutil.rmtree(folder / "running" / cell.name, ignore_errors=True)
    return {
        "cell": asdict(cell),
        "label": arm.label,
        "seconds": sum(training_seconds(each) for each in histories(model)),
        "validation": held_out_error(model, data, cell.context),
        "plateau": largest_gain(histories(model)),
        **_measure(model, data, cell.context),
    }


def run_seeds(
    cells: Sequence[Cell], folder: Path, threads: int = 1
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train models that differ in seed alone, at once where they can be, and evaluate each.

    Args:
        cells: What to train.
        folder: As for `run_cell`.
        threads: CPU threads.

    Yields:
        Name and numbers of each.
    """
    there = [(folder / "models" / cell.name).exists() for cell in cells]
    if len(cells) > 1 and not all(there) and arm_of(cells[0].arm).members == 1:
        _train_at_once(cells, folder, threads)
    for cell in cells:
        yield cell.name, run_cell(cell, folder, threads)


def _train_at_once(cells: Sequence[Cell], folder: Path, threads: int) -> None:
    """Leave the trained models in the folder; none if they are to be trained one by one."""
    import torch

    from loopwm.world.fit import fit_each, trains_abreast

    torch.set_num_threads(threads)
    data = study_data(_experience(cells[0]), folder / "data")
    config, settings = _config(cells[0]), [_fit_config(cell, threads) for cell in cells]
    if not trains_abreast(data.train, config, settings[0]):
        return
    run_dir = folder / "running" / version([cell.name for cell in cells])
    try:
        models = fit_each(data.train, config, settings, run_dir=run_dir, valid=data.held)
    except NumericalError:
        models = []
    if not left_out([each.history for each in models]):
        for cell, model in zip(cells, models, strict=False):
            if not (folder / "models" / cell.name).exists():  # as after a stop between two of them
                model.save(folder / "models" / cell.name)
    shutil.rmtree(run_dir, ignore_errors=True)


def held_out_error(model: "WorldModel | Ensemble", data: Split, context: int) -> float:
    """Return what learning rates and shapes are chosen by, on the validation set.

    Returns:
        The geometric mean of the open-loop errors at each of `CHOOSING` steps, so that neither
        outweighs the other.
    """
    from loopwm.study.prediction import evaluate

    sampling = Sampling(ceiling_windows=0)
    report = evaluate(
        model, data.valid, CHOOSING, context=context, train=data.train, sampling=sampling
    )
    return math.prod(report.rmse[k] for k in CHOOSING) ** (1 / len(CHOOSING))


def _measure(model: "WorldModel | Ensemble", data: Split, context: int) -> dict[str, Any]:
    from loopwm.study.prediction import evaluate
    from loopwm.world.model import WorldModel

    report = evaluate(model, data.test, HORIZONS, context=context, train=data.train)
    also = _measure_otherwise(model, data, context) if isinstance(model, WorldModel) else {}
    return {
        "parameters": model.num_parameters,
        "core_parameters": model.core_parameters,
        "flops": flops_per_step(model, data.test.obs[:64], data.test.action[:64]),
        "report": report.to_dict(),
        "also": {name: each.to_dict() for name, each in also.items()},
    }


def _measure_otherwise(
    model: "WorldModel", data: Split, context: int
) -> dict[str, PredictionReport]:
    """Evaluate imagination that nothing holds to the range of the data, and latent imagination."""
    from loopwm.study.prediction import evaluate

    measure = partial(
        evaluate,
        model,
        data.test,
        HORIZONS,
        context=context,
        train=data.train,
        sampling=Sampling(ceiling_windows=0),
    )
    reports = {}
    if model.dynamics.carries:
        reports["latent"] = measure(feedback="latent")
    model.margin = None
    reports["free"] = measure()
    model.margin = model.config.margin
    return {name: replace(each, by_episode={}) for name, each in reports.items()}


def flops_per_step(model: Any, obs: Any, action: Any) -> float:
    """Count the floating-point operations of the matrix products in one imagined transition."""
    import torch

    from loopwm.core.count import matmul_flops

    first, act = torch.as_tensor(obs).float(), torch.as_tensor(action)
    act = act.float() if act.is_floating_point() else act
    state = model.start(first)
    with torch.no_grad():
        return matmul_flops(lambda: model.step(state, act)) / len(first)


def _experience(cell: Cell) -> Experience:
    return Experience(cell.task, cell.rows, cell.observation, cell.mixture)


def _version(cell: Cell) -> str:
    """Return a checksum of how the cell's model is built and trained today."""
    from loopwm.world.build import encode

    built = [encode(_config(cell)), arm_of(cell.arm).members]
    return version(*built, _fit_config(cell, 1).fingerprint())


def _fit_config(cell: Cell, threads: int) -> FitConfig:
    return FitConfig(
        updates=cell.updates,
        batch_size=cell.batch,
        lr=cell.lr,
        horizon=cell.horizon,
        horizon_warmup=cell.rise,
        optimizer=OPTIMIZERS[cell.optimizer],
        seed=cell.seed,
        threads=threads,
        validate_every=max(1, cell.updates // 20),
        progress=False,
    )


def _config(cell: Cell) -> ModelConfig:
    """Return the arm's configuration, trained on as much context as it is evaluated with."""
    config = arm_of(cell.arm).config
    objective = replace(config.objective, context=cell.context, decay=cell.decay)
    return replace(config, objective=objective)


def main() -> None:
    """Run one cell from the command line: `python -m loopwm.study.efficiency --arm looped`."""
    import tyro
    from rich.console import Console

    def one(cell: Cell, folder: Path = Path("runs/study"), threads: int = 1) -> None:
        done = run_cells([cell], folder / "cells", lambda each: run_cell(each, folder, threads))
        Console().print(done.get(cell.name, f"another process is working on {cell.name}"))

    tyro.cli(one, config=(tyro.conf.OmitArgPrefixes,))


if __name__ == "__main__":
    main()
