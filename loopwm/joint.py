"""One core for both domains: a world model and a reasoner that are trained on the same weights.

Every update takes one batch of each, and steps by the gradient of the sum of both losses, so that
N updates mean N batches of each domain, N steps of the optimiser, and one schedule, just as when
each is trained alone; steps by turns would double the steps of the shared weights, and hand the
optimiser's momentum from one domain to the other.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopwm.core.config import Attend, MixTokens
from loopwm.core.shared import CELL, share_of
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, MissingExtra, StoreError
from loopwm.files import read_tree, write_tree
from loopwm.train.config import FitConfig
from loopwm.train.course import Course
from loopwm.train.fit import Metrics
from loopwm.train.history import History
from loopwm.world import build
from loopwm.world import fit as worlds
from loopwm.world.config import WorldConfig
from loopwm.world.model import WorldModel

try:
    from loopwm.reason import fit as puzzling
    from loopwm.reason import stored
    from loopwm.reason.carry import PuzzleBatch
    from loopwm.reason.config import Halting, ReasonerConfig
    from loopwm.reason.model import Reasoner
    from loopwm.reason.source import PuzzleSource
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"loopwm.joint trains a world model together with a reasoner, and {missing.name} is not "
        "there: install loopwm whole, or train a world model alone by lw.fit"
    ) from missing

LEAST_SHARE = 0.8
"""Smallest part of each model's weights, tables of embeddings left out, that is shared."""

_WORLD, _PUZZLES = "world", "puzzles"


@dataclass(frozen=True)
class Puzzles:
    """Say which puzzles a world model is trained together with.

    Args:
        source: Draws puzzles for training.
        config: Sizes of the reasoner; the world model has its width and its cell.
        halting: When a puzzle leaves its slot.
        slots: Puzzles in flight, at least 1.
        weight: Weight of the reasoner's loss; that of the world model's is 1.
        valid: Held-out puzzles; their share of wrong answers is added to the validation error.
    """

    source: PuzzleSource
    config: ReasonerConfig
    halting: Halting = Halting(rise=0.5)
    slots: int = 128
    weight: float = 1.0
    valid: PuzzleBatch | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If one is out of range.
        """
        if self.slots < 1:
            raise ConfigError(f"Puzzles.slots must be at least 1, got {self.slots}")
        if not self.weight > 0:
            raise ConfigError(f"Puzzles.weight must be above 0, got {self.weight}")


class Pair(nn.Module):
    """Hold a world model and a reasoner whose loops run the same cell, one object in both.

    No copy of the pair, no loading of weights and no move makes two of that object.

    Args:
        world: The world model; its own cell is given up for the reasoner's.
        reasoner: The reasoner.

    Raises:
        ConfigError: If the cells differ in settings or width, or if less than `LEAST_SHARE` of
            either model's weights would be shared.
    """

    def __init__(self, world: WorldModel, reasoner: Reasoner) -> None:
        super().__init__()
        _check_alike(world, reasoner.config)
        world.core.cell = reasoner.core.cell
        self.world, self.reasoner = world, reasoner
        for name, share in self.shares().items():
            if share < LEAST_SHARE:
                raise ConfigError(
                    f"{share:.0%} of the {name}'s weights would be shared, at least "
                    f"{LEAST_SHARE:.0%} are asked for: choose a larger width (it is "
                    f"{reasoner.config.width}) or more layers in the cell (it has "
                    f"{reasoner.config.cell.layers})"
                )

    @property
    def cell(self) -> nn.Module:
        """Return the shared cell."""
        return self.reasoner.core.get_submodule("cell")

    def shares(self) -> dict[str, float]:
        """Return the share of each model's weights that is the cell's, by the model's name.

        Left out are the tables of tokens and puzzles alone: linear maps of observations and
        actions, and the heads, count as the models' own.
        """
        tables = (self.reasoner.adapter.token, self.reasoner.adapter.puzzle)
        return {
            "world model": share_of(self.world, self.cell),
            "reasoner": share_of(self.reasoner, self.cell, tables),
        }

    def save(self, path: str | Path) -> None:
        """Write both models to a directory, the shared tensors once.

        `load` reads the pair, `lw.load` the world model, `loopwm.reason.stored.load` the reasoner.

        Args:
            path: The directory.

        Raises:
            StoreError: If the file system fails; what was there before is kept.
        """
        tensors, documents = build.contents(self.world)
        arrays, others = stored.contents(self.reasoner)
        tensors["weights-0"] = _without(tensors["weights-0"], "dynamics.core.cell.")
        arrays["reasoner"] = _without(arrays["reasoner"], "core.cell.")
        shared = {n: value.detach().cpu().numpy() for n, value in self.cell.state_dict().items()}
        write_tree(path, tensors | arrays | {CELL: shared}, documents | others)


def fit(
    data: RolloutDataset,
    puzzles: Puzzles,
    config: WorldConfig | None = None,
    fit_config: FitConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    valid: RolloutDataset | None = None,
) -> Pair:
    """Train a world model and a reasoner on one set of core weights.

    A stopped run with a `run_dir` goes on where it was, as `lw.fit` does.

    Args:
        data: Experience that the world model is trained on.
        puzzles: What the reasoner is trained on.
        config: The world model; by default `world_of(puzzles.config)`.
        fit_config: How both are trained; `batch_size` is the number of windows of experience.
        run_dir: Directory of checkpoints and metrics; None writes nothing.
        valid: Held-out experience; by default 5% of the episodes are set aside.

    Returns:
        Both models with averaged weights, in evaluation mode, without gradients.

    Raises:
        ConfigError: If the models cannot share a core; see `Pair`.
        DataError: If the data has no window to train on, or the puzzles do not fit the sizes.
        CheckpointError: If `run_dir` holds another run.
        NumericalError: If training meets NaN again and again.
    """
    fit_config = fit_config or FitConfig()
    config = config or world_of(puzzles.config)
    if valid is None and data.num_episodes > 1:
        data, valid = data.split(0.95, seed=fit_config.seed)
    first = worlds.course(data, config, fit_config, valid=valid)
    second = puzzling.course(
        puzzles.source,
        puzzles.config,
        replace(fit_config, batch_size=puzzles.slots),
        halting=puzzles.halting,
        valid=puzzles.valid,
    )
    return both(first, second, puzzles.weight).take(fit_config, run_dir)


def world_of(reasoner: ReasonerConfig, world: WorldConfig = WorldConfig()) -> WorldConfig:
    """Return a world model's configuration with the width and the cell of a reasoner.

    Args:
        reasoner: The reasoner.
        world: Everything else of the world model.

    Raises:
        ConfigError: If the cell mixes tokens by a perceptron; see `attending`.
    """
    return replace(world, width=reasoner.width, cell=reasoner.cell)


def attending(reasoner: ReasonerConfig, heads: int = 4) -> ReasonerConfig:
    """Return the configuration with attention in place of a perceptron over tokens.

    Such a perceptron is made for one number of tokens, and a world model's state has one token.

    Args:
        reasoner: The reasoner; if its tokens attend already, it stays as it is.
        heads: Number of attention heads; twice that divides the width.
    """
    if not isinstance(reasoner.cell.mixer, MixTokens):
        return reasoner
    return replace(reasoner, cell=replace(reasoner.cell, mixer=Attend(heads, theta=1e4)))


def both(world: Course[WorldModel], puzzles: Course[Reasoner], weight: float = 1.0) -> Course[Pair]:
    """Join two courses into one whose every update takes a batch of each.

    Args:
        world: What it takes to train the world model alone; its cell becomes the reasoner's.
        puzzles: What it takes to train the reasoner alone.
        weight: Weight of the reasoner's loss.

    Raises:
        ConfigError: If the models cannot share a core; see `Pair`.
    """
    model: Any = world.module
    lessons: Any = puzzles.module
    pair = Pair(model, lessons.reasoner)
    # Not the pair: what the slots hold goes from one update to the next, too.
    module = nn.ModuleDict({_WORLD: model, _PUZZLES: lessons})

    def sample(generator: torch.Generator, size: int) -> tuple[Any, Any]:
        return world.sampler(generator, size), puzzles.sampler(generator, size)

    def loss(
        module: nn.Module, batch: tuple[Any, Any], update: int, generator: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        assert isinstance(module, nn.ModuleDict)
        first, more = world.loss(module[_WORLD], batch[0], update, generator)
        second, rest = puzzles.loss(module[_PUZZLES], batch[1], update, generator)
        parts: Metrics = {"world_loss": first.detach(), "puzzle_loss": second.detach()}
        return first + weight * second, parts | more | rest

    def validate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, nn.ModuleDict)
        found: dict[str, Any] = {
            f"{name}_validation": each.validate(module[name])
            for name, each in ((_WORLD, world), (_PUZZLES, puzzles))
            if each.validate is not None
        }
        return {"validation": sum(found.values()), **found}

    def finish(history: History) -> Pair:
        world.finish(history)
        puzzles.finish(history)
        return pair.eval()

    return Course(
        module=module,
        loss=loss,
        sampler=sample,
        finish=finish,
        validate=validate if world.validate or puzzles.validate else None,
        documents={_WORLD: world.documents, _PUZZLES: puzzles.documents, "weight": weight},
    )


def load(path: str | Path) -> Pair:
    """Read a pair that `Pair.save` wrote; the shared tensors are the same storage again.

    Args:
        path: The directory.

    Raises:
        StoreError: If it is missing, damaged, or holds no pair.
    """
    if CELL not in read_tree(path).arrays:
        raise StoreError(
            f"{path} holds no pair of models that share a cell; world models are read by lw.load"
        )
    world = build.load(path)
    assert isinstance(world, WorldModel)
    return Pair(world, stored.load(path)).eval()


def _check_alike(world: WorldModel, reasoner: ReasonerConfig) -> None:
    config = world.config
    if isinstance(config, WorldConfig) and config == world_of(reasoner, config):
        return
    raise ConfigError(
        f"a world model of {config} cannot share the core of a reasoner of width={reasoner.width} "
        f"and cell={reasoner.cell}: choose world_of(reasoner), or give both the same"
    )


def _without(arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name: array for name, array in arrays.items() if not name.startswith(prefix)}
