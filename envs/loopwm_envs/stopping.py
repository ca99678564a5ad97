"""A loop of chains that is trained to stop early, and what stopping costs it and saves."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopwm.core.depth import Uniform
from loopwm.core.halt import Fixed, OutputDelta
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.seed import numpy_rng
from loopwm.study.calibrate import Calibration, calibrate
from loopwm.study.cells import version
from loopwm.study.halting import EQUAL, least_error
from loopwm.study.windows import Sampling
from loopwm.train.config import FitConfig, Muon
from loopwm.world.build import encode
from loopwm.world.config import WorldConfig
from loopwm.world.model import WorldModel
from loopwm.world.terms import Objective
from loopwm_envs.extrapolation import CHAIN, balanced_set, dataset, keep, put_back, train
from loopwm_envs.halting import row_errors, seconds_rows
from loopwm_envs.matching import BEYOND
from loopwm_envs.neighbours import build_local
from loopwm_envs.spending import depth_rows, pair_rows, spent
from loopwm_envs.transitions import Transitions, sample_transitions

ROWS, LIMIT = 6_000, 16
REGRETS = (0.01, 0.03)
FIXED = (*range(1, 13), 16, 24)
STAGES = ((4,), (5,), (6,), (4, 7))
DEPTHS, SHOWN = range(9), (2, 4, 6, 8, 10)
PER_DEPTH, LOOSE, VANISH = 400, 0.05, (1, 2, 3)
# Balls begin no farther from the middle than this, in training as in the tests.
REACH = CHAIN.balls / 2
OBJECTIVE = Objective(reward=0.0, termination=0.0, robust=0.01)
ITERATIONS = Uniform(1, 12)


@dataclass(frozen=True)
class Cell:
    """Say everything that one trained and measured loop depends on.

    Attributes:
        seed: Seed of weights, batches and training data; validation and test are the same for all.
        lr: Peak learning rate.
        updates: Gradient updates.
        batch: Transitions in each update.
        rows: Transitions of the training set.
        width: Width of a ball's latent.
        expand: Width of the cell's gated layer over it.
    """

    seed: int = 0
    lr: float = 5e-3
    updates: int = 6_000
    batch: int = 256
    rows: int = 1_000_000
    width: int = 64
    expand: int = 4

    @property
    def model(self) -> str:
        """Name the trained weights by all that they depend on."""
        words = ("stopping", f"lr{self.lr:g}", f"seed{self.seed}", f"u{self.updates}")
        sizes = (f"b{self.batch}", f"n{self.rows}", f"w{self.width}x{self.expand}")
        built = [encode(ITERATIONS), encode(OBJECTIVE), asdict(CHAIN)]
        return "_".join((*words, *sizes, version(*built, _fit_config(self).fingerprint())))

    @property
    def name(self) -> str:
        """Name the cell by its weights and all that is measured of them."""
        measured = [ROWS, REGRETS, LIMIT, FIXED, STAGES, list(DEPTHS), SHOWN]
        measured += [PER_DEPTH, LOOSE, VANISH, REACH]
        return f"{self.model}_{version(*measured)}"


def run_cell(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train a loop, or go on where a run was stopped, and measure it; numbers as JSON values."""
    data = dataset(_drawn(f"training {cell.seed}", cell.rows))
    model, path = make_model(cell, data), folder / "models" / cell.model
    if path.exists():
        put_back(model, path)
    else:
        running = folder / "running" / cell.model
        train(model, data, _fit_config(cell), run_dir=running)
        keep(model, path)
        shutil.rmtree(running)
    model.requires_grad_(False).eval()
    valid, test = (_drawn(name, ROWS) for name in ("validation", "test"))
    rules = calibrated(model, valid)
    first = next(iter(rules.values()))
    outcomes, equal = measured(model, test, rules)
    return {
        "cell": asdict(cell),
        "parameters": model.core_parameters,
        "outcomes": outcomes,
        "depths": by_depth(model, test, first),
        **followed(model, first),
        "seconds": [
            {"way": name, "iterations": outcomes[name][0], "depth": equal[name], **row}
            for name, rule in rules.items()
            for row in seconds_rows(model, rule, test, equal[name])
        ],
    }


def make_model(cell: Cell, data: RolloutDataset) -> WorldModel:
    """Build a cell's loop with random weights."""
    config = WorldConfig(
        width=cell.width, depth=ITERATIONS, carry=False, margin=None, objective=OBJECTIVE
    )
    return build_local(config, 0, data.meta, Statistics.of(data), cell.seed, cell.expand)


def calibrated(model: WorldModel, valid: Transitions) -> dict[str, Calibration]:
    """Calibrate OutputDelta tested after every iteration, and at the best few.

    Returns:
        A rule of each kind for each of `REGRETS`; the first is tested after every iteration.
    """
    data, sampling = dataset(valid), Sampling(max_windows=len(valid))

    def found(rule: OutputDelta, regret: float) -> Calibration:
        options = {"horizons": (1,), "max_iters": LIMIT, "sampling": sampling}
        return calibrate(model, data, regret, rule=rule, **options)

    rules = {}
    for regret in REGRETS:
        staged = [found(OutputDelta(stages=stages), regret) for stages in STAGES]
        rules[f"OutputDelta, {regret:.0%}"] = found(OutputDelta(), regret)
        rules[f"tested once or twice, {regret:.0%}"] = max(staged, key=lambda each: each.saved)
    return rules


def measured(
    model: WorldModel, test: Transitions, rules: Mapping[str, Calibration]
) -> tuple[dict[str, tuple[float, float]], dict[str, int]]:
    """Measure fixed depths, rules, and what tells their merit from chance.

    Args:
        model: The loop.
        test: What it is measured on.
        rules: Calibrated rules by name; the first one's iterations are dealt at random, and given
            to who knows the truth.

    Returns:
        Mean iterations and RMSE by name; and by rule the least fixed depth of equal error.
    """
    depths = range(1, max(FIXED) + 1)
    table = np.stack([row_errors(model, test, spent(model, test, Fixed(t))[1]) for t in depths])
    root = np.sqrt(table.mean(axis=1))
    found = {f"fixed {t}": (float(t), float(root[t - 1])) for t in FIXED}
    equal = {}
    for place, (name, rule) in enumerate(rules.items()):
        assert isinstance(rule.halt, OutputDelta)
        count, predicted = spent(model, test, rule.halt, rule.max_iters)
        error = float(np.sqrt(row_errors(model, test, predicted).mean()))
        found[name] = (float(count.mean()), error)
        # What no depth reaches is not asked for.
        equal[name] = int(np.argmax(root <= EQUAL * max(error, root.min()))) + 1
        if place == 0:
            rows = np.arange(len(count))
            dealt = numpy_rng(0, "dealt").permutation(count)
            chosen = least_error(table, float(count.mean()))
            for way, depth in (("random", dealt), ("oracle", chosen)):
                error = float(np.sqrt(table[depth - 1, rows].mean()))
                found[way] = (float(depth.mean()), error)
    return found, equal


def by_depth(model: WorldModel, test: Transitions, rule: Calibration) -> list[dict[str, float]]:
    """Measure each causal depth apart: iterations under a rule, errors under it and at some."""
    assert isinstance(rule.halt, OutputDelta)
    count, predicted = spent(model, test, rule.halt, rule.max_iters)
    ways = {"rule": predicted} | {str(t): spent(model, test, Fixed(t))[1] for t in SHOWN}
    squares = {name: row_errors(model, test, each) for name, each in ways.items()}
    rows = []
    for depth in DEPTHS:
        those = test.depth == depth
        row = {"depth": float(depth), "share": float(those.mean())}
        row["iterations"] = float(count[those].mean())
        row |= {f"rmse_{way}": float(np.sqrt(each[those].mean())) for way, each in squares.items()}
        rows.append(row)
    return rows


def followed(model: WorldModel, rule: Calibration) -> dict[str, Any]:
    """Relate iterations to causal depth, and to collisions that are taken away.

    Args:
        model: The loop.
        rule: Its calibrated rule; beside it stands the tolerance `LOOSE`.
    """
    balanced = balanced_set(PER_DEPTH)
    collide = balanced.rows((balanced.depth >= 1) & (balanced.depth <= max(BEYOND)))
    assert isinstance(rule.halt, OutputDelta)
    halts, most = [rule.halt, OutputDelta(LOOSE)], rule.max_iters
    found = [pair_rows(model, collide, halts, vanish, REACH, most) for vanish in VANISH]
    return {
        "related": depth_rows(model, balanced, halts, most),
        "pairs": [row for rows in found for row in rows],
    }


def _drawn(name: str, rows: int) -> Transitions:
    return sample_transitions(numpy_rng(0, "ballchain", "stopping", name), rows, CHAIN)


def _fit_config(cell: Cell) -> FitConfig:
    return FitConfig(
        updates=cell.updates,
        batch_size=cell.batch,
        lr=cell.lr,
        horizon=1,
        optimizer=Muon(),
        seed=cell.seed,
        device="cpu",
        threads=1,
        progress=False,
    )
