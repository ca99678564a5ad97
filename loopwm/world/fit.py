"""Train a world model on a dataset: `lw.fit`."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loopwm.core.settings import whole
from loopwm.data.ending import can_terminate
from loopwm.data.normalise import Statistics, check_precision
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError
from loopwm.train.config import FitConfig
from loopwm.train.course import Course
from loopwm.world.build import build
from loopwm.world.config import ModelConfig, WorldConfig
from loopwm.world.course import Material, abreast, alone, go_abreast
from loopwm.world.ensemble import Ensemble
from loopwm.world.identity import identity, init_identity
from loopwm.world.model import WorldModel


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
            Loops and untied stacks of the default cell, and perceptrons, train at once in batched
            products; not with modules of your own, `gain`, gradient modes other than `Full`, bf16,
            compiled, or from members of different statistics: then one after the other.
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
    _check_kinds(data, valid, fit_config)
    if whole("members", members) < 1:
        raise ConfigError(f"members must be at least 1, got {members}")
    starts = _starts(init, config, members, data)
    config = config or (starts[0].config if starts[0] is not None else WorldConfig())
    if valid is None and data.num_episodes > 1:
        data, valid = data.split(0.95, seed=fit_config.seed)
    # Members share the data and its order of validation, but neither weights nor batches.
    seeds = [replace(fit_config, seed=fit_config.seed + 1000 * index) for index in range(members)]
    models = fit_each(data, config, seeds, run_dir=run_dir, starts=starts, valid=valid)
    return models[0] if members == 1 else Ensemble(models)


def fit_each(
    data: RolloutDataset,
    config: ModelConfig,
    fit_configs: Sequence[FitConfig],
    *,
    run_dir: str | Path | None = None,
    starts: Sequence[WorldModel | None] | None = None,
    valid: RolloutDataset | None = None,
) -> list[WorldModel]:
    """Train a model for each of some settings, which differ in seed and learning rate alone.

    Args:
        data: Training data.
        config: What to train.
        fit_configs: How to train each, at least one.
        run_dir: Directory of checkpoints and metrics; None writes nothing.
        starts: For each, the model that it goes on from, or None.
        valid: Held-out data for validation; None validates nothing.

    Returns:
        The models, trained at once (`loopwm.world.course.abreast`) or one after the other.

    Raises:
        NumericalError: If the training of one of them meets NaN again and again.
    """
    starts = [None] * len(fit_configs) if starts is None else starts
    fresh = _statistics(data, None) if None in starts else None
    models = [
        _fresh(data, config, each, start, (start is None and fresh) or _statistics(data, start))
        for each, start in zip(fit_configs, starts, strict=True)
    ]
    first = fit_configs[0]
    material = Material.of(data, valid, models[0], first)
    known = identity(config, data, valid, None)
    if len(models) > 1 and go_abreast(models, first):
        own = {
            str(index): {"seed": each.seed, "lr": each.lr, "init": init_identity(start)}
            for index, (each, start) in enumerate(zip(fit_configs, starts, strict=True))
        }
        shared = {**known, "members": own}
        return abreast(models, material, fit_configs, shared).take(first, run_dir)
    for index, (each, start) in enumerate(zip(fit_configs, starts, strict=True)):
        own_folder = f"member-{index}" if len(models) > 1 else ""
        folder = None if run_dir is None else Path(run_dir) / own_folder
        documents = {**known, "init": init_identity(start)}
        alone(models[index], material, each, documents).take(each, folder)
    return models


def trains_abreast(data: RolloutDataset, config: ModelConfig, fit_config: FitConfig) -> bool:
    """Say whether fresh models of a configuration can be trained at once, in batched products."""
    few = Statistics.of(data.select_episodes([0]))
    return go_abreast([build(config, data.meta, few, seed) for seed in range(2)], fit_config)


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
    model = _fresh(data, config, fit_config, init, _statistics(data, init))
    material = Material.of(data, valid, model, fit_config)
    return alone(model, material, fit_config, identity(config, data, valid, init))


def _check_kinds(data: object, valid: object, fit_config: object) -> None:
    """Refuse what is given in another's place, or as a path."""
    for name, each in (("data", data), ("valid", data if valid is None else valid)):
        if not isinstance(each, RolloutDataset):
            raise ConfigError(
                f"{name} must be a dataset, got {type(each).__name__}: read one by "
                "lw.RolloutDataset.load(path), or make one by RolloutDataset.from_arrays"
            )
    if not isinstance(fit_config, FitConfig):
        raise ConfigError(f"fit_config must be a lw.FitConfig(), got {fit_config!r}")


def _statistics(data: RolloutDataset, init: WorldModel | None) -> Statistics:
    """Return the statistics of a new model, or those of `init`, its range grown by the data's."""
    statistics = Statistics.of(data) if init is None else init.stats.covering(data)
    check_precision(data, statistics)
    return statistics


def _fresh(
    data: RolloutDataset,
    config: ModelConfig,
    fit_config: FitConfig,
    init: WorldModel | None,
    statistics: Statistics,
) -> WorldModel:
    """Return a model to train, as random as its seed or as good as `init`."""
    meta = data.meta
    if init is not None:
        # By its bounds a model scales actions, and those of the data may only occur inside them.
        bounds = ("action_low", "action_high", "num_actions", "bounds_derived")
        meta = replace(meta, **{name: getattr(init.meta, name) for name in bounds})
    model = build(config, meta, statistics, fit_config.seed)
    ends = can_terminate(data).any()
    if not ends and init is None:
        _end_nothing(model)
    if init is not None:
        random = copy.deepcopy(model.heads.termination.state_dict())
        model.load_state_dict(init.state_dict())
        if ends and model.heads.ends_nothing:
            # Of a logit that low it would take thousands of updates to learn otherwise.
            model.heads.termination.load_state_dict(random)
        model.use(reward_fn=init.reward_fn, termination_fn=init.termination_fn)
        model.margin = init.margin
    return model


def _end_nothing(model: WorldModel) -> None:
    """Let the model say that no step ends an episode, which its data will not teach it."""
    if "termination" not in getattr(model.config, "heads", {}):
        model.heads.end_nothing()
        return
    warnings.warn(
        "no step of the data could end an episode, so heads['termination'] is not trained: leave "
        "it out, or say when episodes end by model.use(termination_fn=...)",
        stacklevel=2,
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
    if members != len(starts):
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
            + _remedy(data, f"num_actions={init.meta.num_actions}")
        )
    for name, inside in (("action_low", np.greater_equal), ("action_high", np.less_equal)):
        one, two = getattr(init.meta, name), getattr(data.meta, name)
        if not init.discrete and one != two and not _occurs(data, one, two, inside):
            raise DataError(
                f"init takes actions of {name}={one}, by which it scales them, the data has {two}: "
                "collect with the same bounds, or train a new model" + _remedy(data, f"{name}=...")
            )


def _occurs(data: RolloutDataset, one: Any, two: Any, inside: np.ufunc) -> bool:
    """Say whether the data's bound is but what occurs in it, and that is inside the model's."""
    if not data.meta.bounds_derived or one is None or two is None:
        return False
    return len(one) == len(two) and bool(inside(two, one).all())


def _remedy(data: RolloutDataset, field: str) -> str:
    if not data.meta.bounds_derived:
        return ""
    return f"; what it has was taken from its rows: give from_arrays meta=DatasetMeta({field})"
