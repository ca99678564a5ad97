"""Train a world model on a dataset: `lw.fit`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from loopwm.batch import SequenceBatch
from loopwm.data.normalise import Statistics, check_precision
from loopwm.data.replay import Windows
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError
from loopwm.train.config import FitConfig
from loopwm.train.course import Course
from loopwm.train.fit import device_of
from loopwm.train.history import History
from loopwm.world.build import build
from loopwm.world.config import ModelConfig, WorldConfig
from loopwm.world.ensemble import Ensemble
from loopwm.world.identity import identity
from loopwm.world.model import WorldModel
from loopwm.world.objective import calibrate_spread, sequence_loss, validation_error

_VALIDATION_WINDOWS = 2048


def fit(
    data: RolloutDataset,
    config: ModelConfig | None = None,
    fit_config: FitConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    members: int = 1,
    init: WorldModel | Ensemble | None = None,
    valid: RolloutDataset | None = None,
) -> WorldModel | Ensemble:
    """Train a world model, looped or not, on real experience.

    A run with a `run_dir` that was stopped goes on where it was when called again with the same
    arguments, and ends as if it had never been stopped.

    Args:
        data: Training data.
        config: What to train: `WorldConfig` (default), `MLP`, `Untied`, `GRU` or `RSSM`.
        fit_config: How to train it.
        run_dir: Directory of checkpoints and metrics; None writes nothing.
        members: Number of models, each from its own seed; from 2 on an `Ensemble` is returned.
        init: Trained model to go on from, with its configuration and statistics; the range that
            imagination is held to grows by that of the data.
        valid: Held-out data for validation; by default 5% of the episodes are set aside.

    Returns:
        The trained model, or the ensemble, in evaluation mode.

    Raises:
        ConfigError: If the arguments contradict each other.
        DataError: If no episode is long enough for an imagined step, if float32 cannot tell the
            observations apart, or if the data has other spaces than `init`.
        CheckpointError: If `run_dir` holds another run.
        NumericalError: If training meets NaN again and again.
    """
    fit_config = fit_config or FitConfig()
    if members < 1:
        raise ConfigError(f"members must be at least 1, got {members}")
    starts = _starts(init, config, members, data)
    config = config or (starts[0].config if starts[0] is not None else WorldConfig())
    if valid is None and data.num_episodes > 1:
        data, valid = data.split(0.95, seed=fit_config.seed)
    models = []
    for index, start in enumerate(starts):
        # Members share the data and its order of validation, but neither weights nor batches.
        member = replace(fit_config, seed=fit_config.seed + 1000 * index)
        folder = None if run_dir is None else Path(run_dir) / (f"member-{index}" * (members > 1))
        models.append(course(data, config, member, valid=valid, init=start).take(member, folder))
    return models[0] if members == 1 else Ensemble(models)


def course(
    data: RolloutDataset,
    config: ModelConfig,
    fit_config: FitConfig,
    *,
    valid: RolloutDataset | None = None,
    init: WorldModel | None = None,
) -> Course[WorldModel]:
    """Return what it takes to train one world model; the arguments are those of `fit`.

    Args:
        data: Training data.
        config: What to train.
        fit_config: How it will be trained: horizon, seed and device are used here.
        valid: Held-out data for validation; None validates nothing.
        init: Trained model to go on from.

    Raises:
        DataError: If no episode is long enough for an imagined step, or if float32 cannot tell the
            observations apart.
    """
    statistics = Statistics.of(data) if init is None else init.stats.covering(data)
    check_precision(data, statistics)
    model = build(config, data.meta, statistics, fit_config.seed)
    if init is not None:
        model.load_state_dict(init.state_dict())
    device = device_of(fit_config)
    # The real observations that a window begins with come before the steps of the horizon.
    given = config.objective.context - 1
    length = given + fit_config.horizon
    windows = Windows(data, length, device)
    _check_reach("the data", int(np.diff(data.bounds).max()), given)
    held_out = None if valid is None else _held_out(valid, model, length, device)
    if held_out is not None:
        _check_reach("the held-out data", int(held_out.valid.sum(1).max()), given)

    def loss(
        module: nn.Module, batch: SequenceBatch, update: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        assert isinstance(module, WorldModel)
        return sequence_loss(module, batch.steps(given + fit_config.horizon_at(update)), generator)

    def validate(module: nn.Module) -> float:
        assert isinstance(module, WorldModel)
        assert held_out is not None
        return validation_error(module, held_out)

    def finish(history: History) -> WorldModel:
        model.requires_grad_(False).eval()
        model.history = list(history.records)
        if held_out is not None:
            calibrate_spread(model, held_out)
        return model

    return Course(
        module=model,
        loss=loss,
        sampler=lambda generator, size: windows.sample(size, generator),
        finish=finish,
        validate=None if held_out is None else validate,
        documents=identity(config, data, valid, init),
    )


def _held_out(
    valid: RolloutDataset, model: WorldModel, length: int, device: torch.device
) -> SequenceBatch:
    """Return fixed windows, spread evenly over the held-out rows."""
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
    rows = torch.linspace(0, len(windows) - 1, count, device=device).long()
    return windows.at(rows)


def _check_reach(name: str, longest: int, given: int) -> None:
    """Refuse data without a step that is imagined, whose error would be that of nothing: 0."""
    if longest <= given:
        raise DataError(
            f"no window of {name} has a step to imagine: the longest has {longest} steps, and "
            f"Objective(context={given + 1}) begins with {given + 1} observations; lower context, "
            "or give longer episodes"
        )


def _starts(
    init: WorldModel | Ensemble | None,
    config: ModelConfig | None,
    members: int,
    data: RolloutDataset,
) -> list[WorldModel | None]:
    """Return the model that each member goes on from, or None for each."""
    if init is None:
        return [None] * members
    starts = init.members if isinstance(init, Ensemble) else [init]
    if config is not None and config != starts[0].config:
        raise ConfigError(
            "config= differs from that of init=; leave config out to go on from a model"
        )
    if members not in (1, len(starts)) or (members == 1 and len(starts) > 1):
        raise ConfigError(f"members={members}, but init has {len(starts)}; pass members to match")
    _check_spaces(starts[0], data)
    return list(starts)


def _check_spaces(init: WorldModel, data: RolloutDataset) -> None:
    """Refuse data of other observations or actions than the model's."""
    if init.obs_dim != data.obs_dim:
        raise DataError(
            f"init predicts {init.obs_dim} observation dimensions, the data has {data.obs_dim}"
        )
    if init.meta.angles != data.meta.angles:
        raise DataError(
            f"init takes the observation dimensions {init.meta.angles} for angles, "
            f"the data {data.meta.angles}"
        )
    if init.meta.num_actions != data.meta.num_actions:
        raise DataError(
            f"init has num_actions={init.meta.num_actions}, the data {data.meta.num_actions}"
        )
    for name in ("action_low", "action_high"):
        one, two = getattr(init.meta, name), getattr(data.meta, name)
        if not init.discrete and one != two:
            raise DataError(
                f"init takes actions of {name}={one}, by which it scales them, the data has {two}: "
                "collect with the same bounds, or train a new model"
            )
