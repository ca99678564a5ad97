"""One stretch of an episode, imagined and real side by side."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError
from loopwm.study.openloop import Imagination, Imagined, imagine_windows

if TYPE_CHECKING:
    from loopwm.world.protocol import WorldModelLike


@dataclass(frozen=True)
class Episode:
    """Hold T steps, between S = T + 1 observations, as they were and as a model imagined them.

    Attributes:
        real: Real observations; the first is where the stretch begins.
        imagined: Imagined observations; the first `context` of them are the real ones.
        action: Actions taken.
        iterations: Iterations of the loop in each step; the context's are those of one step ahead.
        settled: Whether the loop had settled.
        speed: Root mean square of each step's real change, in its standard deviations.
        context: Real observations that the model saw.
        names: A name for each dimension.
        dt: Seconds per step, or None.
        std: Stated spread of each imagined step, or None.
    """

    real: Float[ndarray, "S O"]
    imagined: Float[ndarray, "S O"]
    action: Shaped[ndarray, "T ..."]
    iterations: Int[ndarray, " T"]
    settled: Bool[ndarray, " T"]
    speed: Float[ndarray, " T"]
    context: int
    names: tuple[str, ...]
    dt: float | None
    std: Float[ndarray, "T O"] | None = None

    @property
    def time(self) -> Float[ndarray, " S"]:
        """Time of each observation: seconds, or steps where the environment has no clock."""
        return np.arange(len(self.real)) * (1.0 if self.dt is None else self.dt)


def longest_start(dataset: RolloutDataset) -> int:
    """Return the first row of the longest episode, the first of equals."""
    bounds = dataset.bounds
    return int(bounds[np.diff(bounds).argmax()])


def imagine_episode(
    model: "WorldModelLike",
    dataset: RolloutDataset,
    row: int,
    horizon: int,
    how: Imagination = Imagination(),
) -> Episode:
    """Imagine a stretch of an episode open-loop, under the actions that were really taken.

    Args:
        model: Anything with the verbs start, observe and step.
        dataset: Real experience.
        row: Row of the first observation that the model sees.
        horizon: Steps of the stretch, context included; it is cut at the end of the episode.
        how: What the model sees first and how it goes on.

    Raises:
        DataError: If no step is left to imagine after the context.
    """
    rows = _stretch(dataset, row, horizon)
    start = how.context - 1
    if len(rows) <= start:
        if horizon <= start:
            raise DataError(
                f"horizon={horizon} counts the context={how.context} in, which leaves none to "
                f"imagine: choose horizon={how.context} or more"
            )
        raise DataError(
            f"the episode has {len(rows)} steps from row {row} on, context={how.context} leaves "
            "none to imagine; choose an earlier row or a longer episode"
        )
    seen = imagine_windows(model, dataset, rows[start : start + 1], len(rows) - start, how)
    before = _one_step(model, dataset, rows[:start], how)
    real = np.concatenate([dataset.obs[rows], dataset.next_obs[rows[-1:]]]).astype(np.float64)
    imagined = np.concatenate([real[: start + 1], seen.obs[0].astype(np.float64)])
    return Episode(
        real=real,
        imagined=imagined,
        action=dataset.action[rows],
        iterations=np.concatenate([before.n_iters[:, 0], seen.n_iters[0]]),
        settled=np.concatenate([before.settled[:, 0], seen.settled[0]]),
        speed=_speed(model, dataset, real),
        context=how.context,
        names=dataset.meta.obs_names or tuple(f"obs[{i}]" for i in range(dataset.obs_dim)),
        dt=dataset.meta.dt,
        std=None if seen.std is None else _padded(seen.std[0].astype(np.float64), start),
    )


def predict_episode(
    model: "WorldModelLike",
    dataset: RolloutDataset,
    row: int,
    horizon: int,
    how: Imagination = Imagination(),
) -> Episode:
    """Predict a stretch one step at a time, each from the real observation before it.

    This is what iterations along an episode are counted on: every step starts from the truth.

    Args:
        model: Anything with the verbs start, observe and step.
        dataset: Real experience.
        row: First row of the stretch.
        horizon: Steps; the stretch is cut at the end of the episode.
        how: Feedback and stop rule; no context is taken in.
    """
    rows = _stretch(dataset, row, horizon)
    seen = _one_step(model, dataset, rows, how)
    real = np.concatenate([dataset.obs[rows], dataset.next_obs[rows[-1:]]]).astype(np.float64)
    return Episode(
        real=real,
        imagined=np.concatenate([real[:1], seen.obs[:, 0].astype(np.float64)]),
        action=dataset.action[rows],
        iterations=seen.n_iters[:, 0],
        settled=seen.settled[:, 0],
        speed=_speed(model, dataset, real),
        context=1,
        names=dataset.meta.obs_names or tuple(f"obs[{i}]" for i in range(dataset.obs_dim)),
        dt=dataset.meta.dt,
        std=None if seen.std is None else seen.std[:, 0].astype(np.float64),
    )


def _stretch(dataset: RolloutDataset, row: int, horizon: int) -> Int[ndarray, " T"]:
    if not 0 <= row < len(dataset):
        raise DataError(f"row must lie in 0..{len(dataset) - 1}, got {row}")
    end = int(dataset.bounds[dataset.episode[row] + 1])
    return np.arange(row, min(row + horizon, end))


def _one_step(
    model: "WorldModelLike", dataset: RolloutDataset, rows: Int[ndarray, " T"], how: Imagination
) -> Imagined:
    if len(rows) == 0:
        nothing = np.zeros((0, 1))
        return Imagined(
            np.zeros((0, 1, dataset.obs_dim)), nothing, nothing, nothing.astype(np.int64),
            nothing.astype(bool),
        )  # fmt: skip
    plain = replace(how, context=1)
    return imagine_windows(model, dataset, rows, 1, plain)


def _speed(
    model: object, dataset: RolloutDataset, real: Float[ndarray, "S O"]
) -> Float[ndarray, " T"]:
    stats = getattr(model, "stats", None)
    stats = stats if isinstance(stats, Statistics) else Statistics.of(dataset)
    return np.sqrt(((np.diff(real, axis=0) / stats.change_std) ** 2).mean(axis=1))


def _padded(std: Float[ndarray, "H O"], count: int) -> Float[ndarray, "T O"]:
    return np.concatenate([np.full((count, std.shape[1]), np.nan), std])
