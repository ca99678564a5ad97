"""How far a model's imagination drifts from what really happened: `lw.evaluate`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from loopwm.core.settings import whole
from loopwm.data.ending import can_terminate
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError, LoopwmError
from loopwm.study.accuracy import PredictionReport
from loopwm.study.ceiling import ceiling_windows
from loopwm.study.notes import notes_of
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.reference import CopyLast, fit_linear
from loopwm.study.score import TerminationScore, score_termination
from loopwm.study.summary import Scale, WindowErrors, summarise
from loopwm.study.windows import Sampling, change_std, window_rows

if TYPE_CHECKING:
    from loopwm.world.protocol import WorldModelLike

# Terminal steps are rare: one step ahead is cheap, so more rows are looked at for them.
TERMINATION_ROWS = 10


def evaluate(  # noqa: PLR0913 - which model, on what, from how much, and how it imagines
    model: "WorldModelLike",
    test: RolloutDataset,
    horizons: Sequence[int] = (1, 5, 15, 50),
    *,
    context: int = 1,
    train: RolloutDataset | None = None,
    feedback: str | None = None,
    halt: Any = None,
    max_iters: int | None = None,
    sampling: Sampling = Sampling(),
) -> PredictionReport:
    """Measure open-loop errors of a model on real experience it has not seen.

    Every horizon k has its own windows, drawn evenly from all that stay inside an episode for k
    steps. The model sees real observations up to the first step, then only the actions really
    taken; the error is that of its k-th observation. Evaluation clips nothing; a model's own
    `margin` is told in the notes.

    Args:
        model: Anything with the verbs start, observe and step.
        test: Experience held out from training, at least two episodes for intervals.
        horizons: Open-loop steps, each at least 1.
        context: Real observations taken in before imagining, at least 1.
        train: A training set, for the units and the linear reference; give the same to models that
            are to be compared. Without it, the unit is that of the model's own training, the test
            set gives that of change, and the linear model is fitted on other test episodes.
        feedback: "observation" or "latent"; None for the model's default.
        halt: Stop rule of the loop; None for the model's default.
        max_iters: Most iterations; None for the model's default.
        sampling: Which windows are looked at.

    Returns:
        The report, with parts and references.

    Raises:
        ConfigError: If a horizon or the context is below 1, or the context exceeds the history.
        DataError: If no window of any horizon fits into an episode, or the training set has other
            observations or actions.
    """
    if not isinstance(test, RolloutDataset):
        raise ConfigError(
            f"test must be a dataset, got {type(test).__name__}: read one by "
            "lw.RolloutDataset.load(path)"
        )
    if not hasattr(model, "step"):
        raise ConfigError(
            "model must have the verbs start, observe and step, got "
            f"{type(model).__name__}; read a saved one by lw.load(path)"
        )
    if train is not None:
        _check_train(train, test)
    how = Imagination(context, feedback, halt, max_iters, sampling.batch_size)
    horizons = _check_horizons(horizons)
    history = _check_history(sampling, context)
    scale = _scale(model, test, train, horizons)
    rows = {k: window_rows(test, k, history, sampling) for k in horizons}
    if not any(len(each) for each in rows.values()):
        raise DataError(
            f"no episode of the test set has {history} + {min(horizons)} steps; "
            "collect longer episodes or lower context and horizons"
        )
    measured = [_measure(model, test, rows[k], k, how) for k in horizons]
    report = summarise(name_of(model), measured, scale, _part_names(test))
    references = _references(test, train, rows, how, scale)
    ceiling, remark = _ceiling(model, test, rows, how, scale, sampling)
    return replace(
        report,
        termination=_termination(model, test, history, how, sampling),
        references={
            name: replace(each, by_episode={}) for name, each in (references | ceiling).items()
        },
        notes=notes_of(model, how, scale, history, sampling, train is not None)
        | {"ceiling": remark},
    )


def name_of(model: object) -> str:
    """Name a model by its configuration, else by its class."""
    config = getattr(model, "config", None)
    return type(model if config is None else config).__name__


def _measure(
    model: "WorldModelLike",
    test: RolloutDataset,
    rows: Int[ndarray, " W"],
    horizon: int,
    how: Imagination,
) -> WindowErrors:
    if len(rows) == 0:
        return WindowErrors.none(horizon, test.obs_dim)
    seen = imagine_windows(model, test, rows, horizon, how)
    last = rows + horizon - 1
    part = test.info.get("part")
    return WindowErrors(
        horizon=horizon,
        episode=test.episode[rows],
        part=None if part is None else part[rows].astype(np.int64),
        error=seen.obs[:, -1].astype(np.float64) - test.next_obs[last],
        reward_error=seen.reward[:, -1].astype(np.float64) - test.reward[last],
        iterations=seen.n_iters.mean(axis=1),
        settled=seen.settled.mean(axis=1),
        std=None if seen.std is None else seen.std[:, -1].astype(np.float64),
        disagreement=(
            None if seen.disagreement is None else seen.disagreement[:, -1].astype(np.float64)
        ),
    )


def _scale(
    model: object, test: RolloutDataset, train: RolloutDataset | None, horizons: tuple[int, ...]
) -> Scale:
    stats = getattr(model, "stats", None)
    if train is not None or not isinstance(stats, Statistics):
        stats = Statistics.of(test if train is None else train)
    return Scale(
        obs_std=stats.obs_std.astype(np.float64),
        reward_std=float(stats.reward_std),
        change_std={k: change_std(test if train is None else train, k) for k in horizons},
        dt=test.meta.dt,
    )


def _termination(
    model: "WorldModelLike",
    test: RolloutDataset,
    history: int,
    how: Imagination,
    sampling: Sampling,
) -> TerminationScore | None:
    able = can_terminate(test)
    if not (test.terminated & able).any():
        return None
    wider = replace(sampling, max_windows=TERMINATION_ROWS * sampling.max_windows)
    rows = window_rows(test, 1, history, wider, keep=able)
    if len(rows) == 0:
        return None
    seen = imagine_windows(model, test, rows, 1, how)
    return score_termination(seen.terminated[:, 0].astype(np.float64), test.terminated[rows])


def _references(
    test: RolloutDataset,
    train: RolloutDataset | None,
    rows: dict[int, Int[ndarray, " W"]],
    how: Imagination,
    scale: Scale,
) -> dict[str, PredictionReport]:
    plain = Imagination(batch_size=how.batch_size)
    copy = CopyLast(Statistics.of(test if train is None else train))
    measured = {"copy last": [_measure(copy, test, rows[k], k, plain) for k in rows]}
    linear = _linear(test, train, rows, plain)
    if linear is not None:
        measured["linear"] = linear
    parts = _part_names(test)
    return {name: summarise(name, each, scale, parts) for name, each in measured.items()}


def _ceiling(
    model: "WorldModelLike",
    test: RolloutDataset,
    rows: dict[int, Int[ndarray, " W"]],
    how: Imagination,
    scale: Scale,
    sampling: Sampling,
) -> tuple[dict[str, PredictionReport], str]:
    if sampling.ceiling_windows == 0:
        return {}, "left out: Sampling.ceiling_windows=0"
    try:
        measured = ceiling_windows(model, test, rows, how, sampling.ceiling_windows)
    except LoopwmError as error:
        return {}, f"left out: {error}"
    report = summarise("ceiling", measured, scale, _part_names(test))
    remark = "the simulator, from the model's own one-step prediction on"
    return {"ceiling": report}, f"{remark}, in at most {sampling.ceiling_windows} of the windows"


def _linear(
    test: RolloutDataset,
    train: RolloutDataset | None,
    rows: dict[int, Int[ndarray, " W"]],
    how: Imagination,
) -> list[WindowErrors] | None:
    if train is not None:
        fitted = fit_linear(train)
        return [_measure(fitted, test, rows[k], k, how) for k in rows]
    if test.num_episodes < 2:
        return None
    # Each half of the episodes is predicted by a model fitted on the other half.
    halves = [np.arange(first, test.num_episodes, 2) for first in (0, 1)]
    models = [fit_linear(test.select_episodes(half)) for half in halves]
    return [
        WindowErrors.joined(
            [
                _measure(models[1 - half], test, own, k, how)
                for half in (0, 1)
                if len(own := rows[k][test.episode[rows[k]] % 2 == half])
            ]
            or [WindowErrors.none(k, test.obs_dim)]
        )
        for k in rows
    ]


def _part_names(test: RolloutDataset) -> tuple[str, ...]:
    return test.meta.parts if "part" in test.info else ()


def _check_train(train: RolloutDataset, test: RolloutDataset) -> None:
    if not isinstance(train, RolloutDataset):
        raise ConfigError(f"train must be a dataset, got {type(train).__name__}")
    sizes = [("observation dimensions", train.obs_dim, test.obs_dim)]
    if train.discrete and test.discrete:
        # Of actions that it has not seen the linear model knows nothing.
        known, used = train.action_dim, int(test.action.max()) + 1
        sizes.append(("discrete actions", known, max(known, used)))
    else:
        ours, theirs = (0 if each.discrete else each.action_dim for each in (train, test))
        sizes.append(("continuous action dimensions", ours, theirs))
    for name, ours, theirs in sizes:
        if ours != theirs:
            raise DataError(
                f"train has {ours} {name}, the test set {theirs}: give a training set of the same "
                "environment, or leave train out"
            )


def _check_horizons(horizons: Sequence[int]) -> tuple[int, ...]:
    if isinstance(horizons, int | str):
        raise ConfigError(f"horizons must be several steps, such as (1, 15), got {horizons!r}")
    chosen = tuple(sorted({whole("horizons", k) for k in horizons}))
    if not chosen or chosen[0] < 1:
        raise ConfigError(f"horizons must be one or more steps of at least 1, got {horizons}")
    return chosen


def _check_history(sampling: Sampling, context: int) -> int:
    history = context - 1 if sampling.history is None else sampling.history
    if history < context - 1:
        raise ConfigError(
            f"context={context} needs {context - 1} steps before each window, but "
            f"Sampling.history={history}; raise history or leave it None"
        )
    return history
