"""Models of ball chains trained on shallow transitions, and their errors on deeper ones."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from loopwm.batch import SequenceBatch
from loopwm.core.halt import Fixed
from loopwm.data.meta import DatasetMeta
from loopwm.data.replay import Windows
from loopwm.data.store import RolloutDataset
from loopwm.files import read_tree, write_tree
from loopwm.seed import numpy_rng
from loopwm.study.cells import version
from loopwm.study.plateau import validations
from loopwm.train.config import AdamW, FitConfig
from loopwm.train.fit import run
from loopwm.world.build import encode
from loopwm.world.model import WorldModel
from loopwm.world.objective import sequence_loss
from loopwm_envs.arms import ARMS, ITERATIONS, OBJECTIVE, WIDTH, make_model
from loopwm_envs.chain import Chain
from loopwm_envs.transitions import Transitions, sample_balanced, sample_transitions

CHAIN = Chain()
TRAINED = 3
DEPTHS = range(9)
SNAPSHOTS = 20


@dataclass(frozen=True)
class Cell:
    """Say everything that one trained model depends on.

    Attributes:
        arm: Name of the model in `ARMS`.
        seed: Seed of weights, batches and training data; validation and test are the same for all.
        lr: Peak learning rate.
        updates: Gradient updates.
        batch: Transitions in each update.
        rows: Transitions of the training set.
    """

    arm: str = "looped"
    seed: int = 0
    lr: float = 4e-3
    updates: int = 1_500
    batch: int = 256
    rows: int = 200_000

    @property
    def name(self) -> str:
        """Name the cell by all that it depends on."""
        words = ("ballchain", self.arm, f"lr{self.lr:g}", f"seed{self.seed}", f"u{self.updates}")
        return "_".join((*words, f"b{self.batch}", f"n{self.rows}", _version(self)))


def dataset(transitions: Transitions) -> RolloutDataset:
    """Return transitions as a dataset, each an episode by itself, its action nothing."""
    rows = len(transitions)
    return RolloutDataset.from_arrays(
        obs=transitions.state,
        action=np.zeros((rows, 1), np.float32),
        reward=np.zeros(rows),
        terminated=np.zeros(rows, bool),
        truncated=np.ones(rows, bool),
        next_obs=transitions.next_state,
        meta=DatasetMeta(action_low=(-1.0,), action_high=(1.0,)),
    )


def shallow_set(rows: int = 3_000) -> Transitions:
    """Draw what checkpoints and tolerances are chosen on, as shallow as the training set."""
    return sample_transitions(numpy_rng(0, "ballchain", "valid"), rows, CHAIN, TRAINED)


def balanced_set(per_depth: int = 400) -> Transitions:
    """Draw what models are judged by, as many transitions of each causal depth."""
    return sample_balanced(numpy_rng(0, "ballchain", "test"), per_depth, CHAIN, DEPTHS)


def run_cell(cell: Cell, folder: Path, threads: int = 1) -> dict[str, Any]:
    """Train one model, measure it at checkpoints along the way, and keep its last weights.

    Args:
        cell: What to train.
        folder: Where models are kept.
        threads: CPU threads.

    Returns:
        The cell's numbers as JSON values; errors as `errors` returns them.
    """
    arm = ARMS[cell.arm]
    data = dataset(training_set(cell))
    model = make_model(arm, data, cell.seed)
    valid, test = shallow_set(), balanced_set()
    found: list[dict[str, Any]] = []

    def validate(module: nn.Module) -> float:
        assert isinstance(module, WorldModel)
        found.append({str(depth): errors(module, depth, valid, test) for depth in arm.measured})
        return found[-1][str(arm.measured[0])]["valid"]

    history = train(model, data, _fit_config(cell, threads), validate)
    for each, (update, _) in zip(found, validations(history), strict=True):
        each["update"] = update
    model.requires_grad_(False).eval()
    keep(model, folder / "models" / cell.name)
    return {
        "cell": asdict(cell),
        "label": arm.label,
        "parameters": model.core_parameters,
        "width": arm.width,
        "seconds": max(each["seconds"] for each in history if "seconds" in each),
        "checkpoints": found,
    }


def training_set(cell: Cell) -> Transitions:
    """Draw the transitions that a cell learns from."""
    return sample_transitions(numpy_rng(cell.seed, "ballchain"), cell.rows, CHAIN, TRAINED)


def train(
    model: WorldModel,
    data: RolloutDataset,
    config: FitConfig,
    validate: Callable[[nn.Module], float] | None = None,
    run_dir: Path | None = None,
) -> list[dict[str, Any]]:
    """Train a model in place on single transitions.

    Args:
        model: What to train.
        data: What it learns from.
        config: How to train.
        validate: Measures the model along the way, with the weights averaged.
        run_dir: Where a stopped training goes on from; None keeps nothing.

    Returns:
        The metrics.
    """
    windows = Windows(data, 1)

    def loss(
        module: nn.Module, batch: SequenceBatch, update: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        assert isinstance(module, WorldModel)
        return sequence_loss(module, batch, generator)

    history = run(
        model,
        loss,
        lambda generator, size: windows.sample(size, generator),
        config,
        run_dir=run_dir,
        validate=validate,
    )
    return list(history.records)


def errors(
    model: WorldModel, iterations: int, valid: Transitions, test: Transitions
) -> dict[str, Any]:
    """Measure a model at a fixed number of iterations.

    Args:
        model: The model.
        iterations: Iterations; a stack of blocks ignores them.
        valid: As shallow as trained.
        test: As many transitions of each causal depth.

    Returns:
        `valid`, the NMSE in distribution; `depths`, that of each causal depth of the test set.
    """
    first, second = (
        nmse_parts(model, each, predicted(model, each, iterations)) for each in (valid, test)
    )
    depths = np.unique(test.depth)
    return {
        "valid": _share(*first),
        "depths": {
            str(depth): _share(*(part[test.depth == depth] for part in second)) for depth in depths
        },
    }


@torch.no_grad()
def predicted(model: WorldModel, given: Transitions, iterations: int) -> Float[ndarray, "N O"]:
    """Return the next states that a model predicts after a fixed number of iterations."""
    action = np.zeros((len(given), 1), np.float32)
    out = model.predict(given.state.astype(np.float32), action, halt=Fixed(iterations))
    return out.next_obs


def nmse_parts(
    model: WorldModel, given: Transitions, next_state: Float[ndarray, "N O"]
) -> tuple[Float[ndarray, "N O"], Float[ndarray, "N O"]]:
    """Return error and change, in the training set's standard deviations of the change."""
    scale = model.stats.change_std.astype(np.float64)
    return (next_state - given.next_state) / scale, (given.next_state - given.state) / scale


def _version(cell: Cell) -> str:
    """Return a checksum of how the cell's model is built, trained and measured today."""
    built = [asdict(ARMS[cell.arm]), WIDTH, encode(ITERATIONS), encode(OBJECTIVE)]
    measured = [asdict(CHAIN), TRAINED, list(DEPTHS), SNAPSHOTS]
    return version(*built, *measured, _fit_config(cell, 1).fingerprint())


def _fit_config(cell: Cell, threads: int) -> FitConfig:
    return FitConfig(
        updates=cell.updates,
        batch_size=cell.batch,
        lr=cell.lr,
        horizon=1,
        optimizer=AdamW(),
        seed=cell.seed,
        device="cpu",
        threads=threads,
        validate_every=max(1, cell.updates // SNAPSHOTS),
        progress=False,
    )


def _share(error: Float[ndarray, "N O"], change: Float[ndarray, "N O"]) -> float:
    """Return the NMSE: squared error over the variance of the change, which the mean would err."""
    return float(np.square(error).mean() / change.var(axis=0).mean())


def keep(model: WorldModel, path: Path) -> None:
    """Write a model's weights, atomically and checksummed."""
    weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    write_tree(path, {"weights": weights}, {})


def recall(cell: Cell, folder: Path) -> WorldModel:
    """Return the model that a cell has trained and kept.

    Raises:
        StoreError: If it is missing or damaged.
    """
    model = make_model(ARMS[cell.arm], dataset(training_set(cell)), cell.seed)
    put_back(model, folder / "models" / cell.name)
    return model.requires_grad_(False).eval()


def put_back(model: WorldModel, path: Path) -> None:
    """Give a model the weights that `keep` wrote.

    Raises:
        StoreError: If they are missing or damaged.
    """
    weights = read_tree(path).tensors("weights")
    model.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
