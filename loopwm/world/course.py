"""What it takes to train world models on windows of a dataset: one alone, or several abreast."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loopwm.batch import SequenceBatch
from loopwm.data.replay import Windows
from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError
from loopwm.train.config import FitConfig
from loopwm.train.course import Course
from loopwm.train.fit import device_of
from loopwm.train.history import History
from loopwm.train.log import Record
from loopwm.train.optim import Abreast
from loopwm.world.model import WorldModel
from loopwm.world.objective import Metrics, calibrate_spread, sequence_loss, validation_error
from loopwm.world.stack import joined, learn_joined

_VALIDATION_WINDOWS = 2048


@dataclass(frozen=True)
class Material:
    """Hold what models of one configuration learn from.

    Attributes:
        windows: Windows that the batches are drawn from.
        held_out: Fixed windows for validation, spread evenly over the held-out rows, or None.
        given: Real observations that a window begins with, before the steps of the horizon.
    """

    windows: Windows
    held_out: SequenceBatch | None
    given: int

    @classmethod
    def of(
        cls,
        data: RolloutDataset,
        valid: RolloutDataset | None,
        model: WorldModel,
        config: FitConfig,
    ) -> "Material":
        """Lay out a dataset for training.

        Args:
            data: Training data.
            valid: Held-out data, or None.
            model: A model that will learn from it.
            config: How: the horizon and the device are used here.

        Raises:
            DataError: If no episode is long enough for an imagined step, or if the held-out data
                has other spaces than the model.
        """
        given = model.config.objective.context - 1
        length, device = given + config.horizon, device_of(config)
        windows = Windows(data, length, device)
        _check_reach("the data", int(np.diff(data.bounds).max()), given)
        held_out = None if valid is None else _held_out(valid, model, length, device)
        if held_out is not None:
            _check_reach("the held-out data", int(held_out.valid.sum(1).max()), given)
        return cls(windows, held_out, given)

    def loss(
        self,
        model: WorldModel,
        batch: SequenceBatch,
        length: int,
        generator: torch.Generator,
        members: int = 1,
    ) -> tuple[Tensor, Metrics]:
        """Return the loss of a model, or of `members`, on the first steps of windows."""
        return sequence_loss(model, batch.steps(self.given + length), generator, members)

    def finished(self, model: WorldModel, records: Sequence[Record]) -> WorldModel:
        """Make a trained model ready for use."""
        model.requires_grad_(False).eval()
        model.history = list(records)
        if self.held_out is not None:
            calibrate_spread(model, self.held_out)
        return model


def alone(
    model: WorldModel, material: Material, config: FitConfig, documents: dict[str, Any]
) -> Course[WorldModel]:
    """Return what it takes to train one model.

    Args:
        model: The model, not yet trained.
        material: What it learns from.
        config: How: the horizon's growth is used here.
        documents: What a continuation must share.
    """

    def loss(
        module: nn.Module, batch: SequenceBatch, update: int, generator: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        assert isinstance(module, WorldModel)
        return material.loss(module, batch, config.horizon_at(update), generator)

    def validate(module: nn.Module) -> float:
        assert isinstance(module, WorldModel)
        assert material.held_out is not None
        return validation_error(module, material.held_out)

    return Course(
        module=model,
        loss=loss,
        sampler=lambda generator, size: material.windows.sample(size, generator),
        finish=lambda history: material.finished(model, history.records),
        validate=None if material.held_out is None else validate,
        documents=documents,
    )


def go_abreast(models: Sequence[WorldModel], config: FitConfig) -> bool:
    """Say whether `abreast` can train these models so."""
    autocast = torch.is_autocast_enabled(device_of(config).type)
    plain = config.precision == "fp32" and not config.compiled and not autocast
    return plain and learn_joined(models)


def abreast(
    models: Sequence[WorldModel],
    material: Material,
    configs: Sequence[FitConfig],
    documents: dict[str, Any],
) -> Course[list[WorldModel]]:
    """Return what it takes to train several models at once, each product one for all of them.

    Each learns as it would alone. Models of one seed see the same windows, others their own, drawn
    in turn; the depths that an update draws are the same for all. Of what is recorded, learning
    rate and validation are each model's own, seconds its share, and the rest means over all.

    Args:
        models: The models, not yet trained; `go_abreast` is true of them.
        material: What they learn from.
        configs: How each is trained: they differ in seed and learning rate alone.
        documents: What a continuation must share.
    """
    members, config = len(models), configs[0]
    ratios = [each.lr / config.lr for each in configs]
    seeds = list(dict.fromkeys(each.seed for each in configs))
    place = [seeds.index(each.seed) for each in configs]

    def loss(
        module: nn.Module, batch: SequenceBatch, update: int, generator: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        together = joined(models)
        length = config.horizon_at(update)
        mean, metrics = material.loss(together, batch, length, generator, members)
        return members * mean, metrics

    def sampler(generator: torch.Generator, size: int) -> SequenceBatch:
        rows = material.windows.draw(len(seeds) * size, generator).view(len(seeds), size)
        return material.windows.at(rows[place].flatten())

    def validate(module: nn.Module) -> dict[str, float]:
        assert material.held_out is not None
        errors = [validation_error(model, material.held_out) for model in models]
        own = {_own(index): error for index, error in enumerate(errors)}
        return {"validation": sum(errors) / members, **own}

    def finish(history: History) -> list[WorldModel]:
        return [
            material.finished(model, [_record_of(index, ratios, r) for r in history.records])
            for index, model in enumerate(models)
        ]

    return Course(
        module=Abreast(models, ratios),
        loss=loss,
        sampler=sampler,
        finish=finish,
        validate=None if material.held_out is None else validate,
        documents=documents,
    )


def _own(index: int) -> str:
    return f"validation of member {index}"


def _record_of(index: int, ratios: Sequence[float], record: Record) -> Record:
    """Return what a record says of one member."""
    if "validation" in record:
        return {"update": record["update"], "validation": record[_own(index)]}
    seconds, lr = record["seconds"], record["lr"]
    assert seconds is not None
    assert lr is not None
    return {**record, "seconds": seconds / len(ratios), "lr": lr * ratios[index]}


def _held_out(
    valid: RolloutDataset, model: WorldModel, length: int, device: torch.device
) -> SequenceBatch:
    wide, width = valid.action_dim, model.normaliser.action_dim
    # Held-out episodes need not hold every discrete action.
    fits = wide <= width if model.discrete else wide == width
    if not fits or (valid.obs_dim, valid.discrete) != (model.obs_dim, model.discrete):
        raise DataError(
            f"valid={valid} has other observations or actions than the model, which has "
            f"{model.obs_dim} and {width}: hold out episodes of the same environment"
        )
    windows = Windows(valid, length, device)
    count = min(_VALIDATION_WINDOWS, len(windows))
    # In float64: float32 rounds large row numbers, the last one beyond the end.
    rows = torch.linspace(0, len(windows) - 1, count, dtype=torch.float64).long().to(device)
    return windows.at(rows)


def _check_reach(name: str, longest: int, given: int) -> None:
    """Refuse data without a step that is imagined, whose error would be that of nothing: 0."""
    if longest <= given:
        raise DataError(
            f"no window of {name} has a step to imagine: the longest has {longest} steps, and "
            f"Objective(context={given + 1}) begins with {given + 1} observations; lower context, "
            "or give longer episodes"
        )
