"""What looping buys: the looped model, its unlooped counterparts and the MLP, trained alike."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loopwm.errors import ConfigError, NumericalError
from loopwm.study.arms import arm_of
from loopwm.study.cells import run_cells
from loopwm.study.datasets import Experience, study_data
from loopwm.train.config import FitConfig
from loopwm.world.config import ModelConfig

HORIZONS = (1, 5, 15, 50)


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
        context: Real observations taken in before imagining, in training and evaluation.
    """

    task: str = "Hopper-v5"
    arm: str = "looped"
    seed: int = 0
    lr: float = 1e-3
    updates: int = 20_000
    rows: int = 100_000
    observation: str = "full"
    mixture: str = "standard"
    horizon: int = 4
    context: int = 1

    @property
    def name(self) -> str:
        """Name the cell by all that it depends on."""
        words = [self.task, self.arm, f"lr{self.lr:g}", f"seed{self.seed}", f"u{self.updates}"]
        words += [f"n{self.rows}", self.mixture, self.observation]
        words += [f"h{self.horizon}", f"c{self.context}"]
        return "_".join(words)


def run_cell(cell: Cell, folder: Path, threads: int = 1) -> dict[str, Any]:
    """Train and evaluate one model.

    A training run that was stopped goes on where it was.

    Args:
        cell: What to train.
        folder: Where the data and the checkpoints of running cells are kept.
        threads: CPU threads.

    Returns:
        The cell's numbers as JSON values.
    """
    import torch

    from loopwm.study.prediction import evaluate
    from loopwm.world.fit import fit

    torch.set_num_threads(threads)
    arm = arm_of(cell.arm)
    wanted = Experience(cell.task, cell.rows, cell.observation, cell.mixture)
    data = study_data(wanted, folder / "data")
    began = time.perf_counter()
    try:
        model = fit(
            data.train,
            _config(cell),
            _fit_config(cell, threads),
            run_dir=folder / "running" / cell.name,
            members=arm.members,
            valid=data.valid,
        )
    except NumericalError as error:
        # A learning rate that is too high is a finding, not a reason to stop the other cells.
        return {"cell": asdict(cell), "label": arm.label, "validation": None, "failed": str(error)}
    seconds = time.perf_counter() - began
    report = evaluate(model, data.test, HORIZONS, context=cell.context, train=data.train)
    model.save(folder / "models" / cell.name)
    shutil.rmtree(folder / "running" / cell.name, ignore_errors=True)
    return {
        "cell": asdict(cell),
        "label": arm.label,
        "parameters": model.num_parameters,
        "core_parameters": model.core_parameters,
        "flops": flops_per_step(model, data.test.obs[:64], data.test.action[:64]),
        "seconds": seconds,
        "validation": validations(model.history)[-1][1],
        "plateau": plateau_gain(model.history),
        "report": report.to_dict(),
    }


def validations(history: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """List (update, validation error) of a training history."""
    return [
        (int(each["update"]), float(each["validation"]))
        for each in history
        if each.get("validation") is not None
    ]


def plateau_gain(history: Sequence[dict[str, Any]]) -> float | None:
    """Measure by which share the validation error still fell over the last quarter of updates.

    Args:
        history: Training metrics.

    Returns:
        1 - (error at the end) / (error at three quarters), None without validations there.
    """
    points = validations(history)
    if len(points) < 2:
        return None
    end, last = points[-1]
    before = [error for update, error in points if update <= 0.75 * end]
    return None if not before else 1 - last / before[-1]


def flops_per_step(model: Any, obs: Any, action: Any) -> float:
    """Count the floating-point operations of the matrix products in one imagined transition."""
    import torch

    from loopwm.core.count import matmul_flops

    first, act = torch.as_tensor(obs).float(), torch.as_tensor(action)
    act = act.float() if act.is_floating_point() else act
    state = model.start(first)
    with torch.no_grad():
        return matmul_flops(lambda: model.step(state, act)) / len(first)


def plan_trials(base: Cell, arms: Sequence[str], rates: Sequence[float]) -> list[Cell]:
    """List one cell for each arm and learning rate, all with the seed of `base`."""
    return [_with(base, arm=arm, lr=lr) for arm in arms for lr in rates]


def plan_finals(
    base: Cell, trials: dict[str, dict[str, Any]], updates: int, seeds: Sequence[int]
) -> list[Cell]:
    """List the cells at each arm's best learning rate, the best shape standing for a family.

    Best is the lowest validation error of the trials; the test set plays no part.

    Args:
        base: Everything but arm, rate, updates and seed.
        trials: Results of the trials, by cell name.
        updates: Gradient updates of the final runs.
        seeds: Their seeds.

    Raises:
        ConfigError: If no trial succeeded.
    """
    best: dict[str, dict[str, Any]] = {}
    for result in trials.values():
        arm = result["cell"]["arm"]
        if result["validation"] is None:
            continue
        family = arm_of(arm).family or arm
        if family not in best or result["validation"] < best[family]["validation"]:
            best[family] = result
    if not best:
        raise ConfigError("trials must hold at least one that did not fail, got none")
    return [
        _with(base, arm=each["cell"]["arm"], lr=each["cell"]["lr"], updates=updates, seed=seed)
        for seed in seeds
        for each in best.values()
    ]


@dataclass(frozen=True)
class Plan:
    """Say which cells make a comparison.

    Attributes:
        base: Task, data and evaluation shared by all cells.
        arms: Models compared.
        rates: Learning rates tried for each.
        trial_updates: Gradient updates of a trial.
        updates: Gradient updates of a final run.
        seeds: Seeds of the final runs.
    """

    base: Cell = Cell()
    arms: tuple[str, ...] = (
        *("looped", "once", "untied"),
        *("mlp-4x208", "mlp-3x256", "mlp-2x384", "gru"),
    )
    rates: tuple[float, ...] = (5e-4, 1.5e-3, 4.5e-3)
    trial_updates: int = 1_500
    updates: int = 8_000
    seeds: tuple[int, ...] = (0, 1, 2)


def run_plan(
    plan: Plan,
    folder: Path,
    *,
    threads: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Run a plan's trials, then its final cells; finished cells are not run again.

    Several processes may run the same plan at once: each takes cells that no other has taken, and
    waits for the trials of the others before the final cells are chosen.

    Args:
        plan: The comparison.
        folder: Where cells, data and checkpoints are kept.
        threads: CPU threads of this process.
        report: Receives a line for each cell begun.

    Returns:
        Results of trials and of final cells, by name.
    """

    def compute(cell: Cell) -> dict[str, Any]:
        return run_cell(cell, folder, threads)

    trials = plan_trials(_with(plan.base, updates=plan.trial_updates), plan.arms, plan.rates)
    tried = _all(trials, folder / "cells", compute, report)
    finals = plan_finals(plan.base, tried, plan.updates, plan.seeds)
    return tried, _all(finals, folder / "cells", compute, report)


def _all(
    cells: Sequence[Cell],
    folder: Path,
    compute: Callable[[Cell], dict[str, Any]],
    report: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    done = run_cells(cells, folder, compute, report)
    while len(done) < len(cells):
        # Another process has the rest; should it die, its cells become free and are taken here.
        time.sleep(5)
        done = run_cells(cells, folder, compute, report)
    return done


def _fit_config(cell: Cell, threads: int) -> FitConfig:
    return FitConfig(
        updates=cell.updates,
        lr=cell.lr,
        horizon=cell.horizon,
        seed=cell.seed,
        threads=threads,
        validate_every=max(1, cell.updates // 20),
        progress=False,
    )


def _config(cell: Cell) -> ModelConfig:
    """Return the arm's configuration, trained on as much context as it is evaluated with."""
    config = arm_of(cell.arm).config
    return replace(config, objective=replace(config.objective, context=cell.context))


def _with(cell: Cell, **changes: Any) -> Cell:
    return Cell(**(asdict(cell) | changes))


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
