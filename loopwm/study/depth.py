"""Does depth follow difficulty? Iterations beside labels, errors and what confounds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from loopwm.data.store import RolloutDataset
from loopwm.errors import DataError
from loopwm.study.correlation import Correlation, rank_correlation
from loopwm.study.datasets import velocity_dims
from loopwm.study.results import Column, Sheet
from loopwm.study.trace import real_states, squared_errors, trace, with_loop
from loopwm.study.windows import Sampling, window_rows

if TYPE_CHECKING:
    from loopwm.world.ensemble import Ensemble
    from loopwm.world.latent import Halt
    from loopwm.world.model import WorldModel

LABEL = "difficulty/"
GUESS = "predicted change"


@dataclass(frozen=True)
class DepthReport:
    """Hold how a model spends its iterations on single steps of real experience.

    Attributes:
        depths: Fixed numbers of iterations.
        by_depth: RMSE after each, in standard deviations of the observation.
        rmse: RMSE under the stop rule.
        mean: Mean iterations under it.
        histogram: Number of steps by iterations, from 0 on.
        raw: Rank correlation of the iterations with each quantity.
        matched: The same given the speed.
        beyond: The same given the speed and the size of the predicted change: an absolute tolerance
            takes more iterations wherever the change is large.
        steps: Number of steps measured.
        episodes: Number of episodes that they come from.
    """

    depths: tuple[int, ...]
    by_depth: tuple[float, ...]
    rmse: float
    mean: float
    histogram: tuple[int, ...]
    raw: dict[str, Correlation]
    matched: dict[str, Correlation]
    beyond: dict[str, Correlation]
    steps: int
    episodes: int

    def sheets(self) -> tuple[Sheet, ...]:
        """Return the report as tables: error by depth, the histogram, and the correlations."""
        errors = [
            {"depth": f"{depth}", "rmse": error}
            for depth, error in zip(self.depths, self.by_depth, strict=True)
        ]
        errors.append({"depth": f"stopped early, mean {self.mean:.2f}", "rmse": self.rmse})
        shares = [
            {"iterations": count, "share": f"{number / self.steps:.1%}"}
            for count, number in enumerate(self.histogram)
            if number
        ]
        ways = {"raw": self.raw, "matched": self.matched, "beyond": self.beyond}
        related = [
            {"quantity": name} | {way: each[name].ends for way, each in ways.items()}
            for name in self.raw
        ]
        title = (
            f"rank correlation with the iterations; {self.steps:,} steps of {self.episodes} "
            "episodes [95%, by episode]"
        )
        labels = {"quantity": "", "raw": "", "matched": "at matched speed"}
        labels |= {"beyond": "and at matched predicted change"}
        return (
            Sheet("error", (Column("depth", "iterations"), Column("rmse", "RMSE")), (*errors,)),
            Sheet("steps", (Column("iterations"), Column("share")), (*shares,)),
            Sheet(title, tuple(Column(*each) for each in labels.items()), (*related,)),
        )


def depth_report(
    model: "WorldModel | Ensemble",
    data: RolloutDataset,
    halt: "Halt | None" = None,
    max_iters: int | None = None,
    *,
    sampling: Sampling = Sampling(max_windows=5_000),
) -> DepthReport:
    """Measure how iterations go with difficulty, one step ahead from real observations.

    Args:
        model: A looped model; of an ensemble, the first member's loop is reported, beside what the
            members disagree on.
        data: Real experience it was not trained on; columns `difficulty/...` are its labels (see
            `loopwm_envs.TransitionDifficulty`). Steps where a label is not finite are left out.
        halt: Stop rule; by default `OutputDelta()`.
        max_iters: Most iterations; by default twice the typical depth.
        sampling: Which steps are looked at.

    Raises:
        ConfigError: If the model has no loop of its own.
        DataError: If fewer than 20 steps have all labels.
    """
    from loopwm.core.halt import OutputDelta

    whole, members = model, getattr(model, "members", None)
    model = with_loop(members[0] if members else model)
    labels = {name: column for name, column in data.info.items() if name.startswith(LABEL)}
    known = np.ones(len(data), bool)
    for column in labels.values():
        known &= np.isfinite(column.astype(np.float64))
    rows = window_rows(data, 1, 0, sampling, keep=known)
    if len(rows) < 20:
        raise DataError(f"a depth report needs at least 20 steps with all labels, got {len(rows)}")
    state, action = real_states(model, data, rows, 1)
    most = 2 * model.depth.typical
    with torch.no_grad():
        _, out = model.step(state, action, halt=halt or OutputDelta(), max_iters=max_iters)
    features = trace(model, state, action, most)
    before = state[0].expand(most, *state[0].shape)
    moved = model.normaliser.restore_obs(model.held(model.moved(before, features), before))
    squares = squared_errors(model, data, rows, moved.numpy())
    error = squared_errors(model, data, rows, out.next_obs.numpy())
    iterations = out.n_iters.numpy()
    quantities, speed = _quantities(model, data, rows, error, out.next_obs.numpy(), labels)
    if members:
        apart = whole.predict(data.obs[rows], data.action[rows]).disagreement
        quantities["disagreement"] = _size(apart / model.stats.change_std)
    episode = data.episode[rows]

    def related(quantity: ndarray, controls: Sequence[ndarray] = ()) -> Correlation:
        return rank_correlation(iterations, quantity, episode, controls)

    return DepthReport(
        depths=tuple(range(1, most + 1)),
        by_depth=tuple(np.sqrt(squares.mean(axis=1)).tolist()),
        rmse=float(np.sqrt(error.mean())),
        mean=float(iterations.mean()),
        histogram=tuple(np.bincount(iterations).tolist()),
        raw={n: related(q) for n, q in quantities.items()},
        matched={n: related(q, (speed,)) for n, q in quantities.items()},
        beyond={n: related(q, (speed, quantities[GUESS])) for n, q in quantities.items()},
        steps=len(rows),
        episodes=len(np.unique(episode)),
    )


def _quantities(
    model: "WorldModel",
    data: RolloutDataset,
    rows: Int[ndarray, " W"],
    error: Float[ndarray, " W"],
    predicted: Float[ndarray, "W O"],
    labels: Mapping[str, Shaped[ndarray, " N"]],
) -> tuple[dict[str, Float[ndarray, " W"]], Float[ndarray, " W"]]:
    """Return what iterations are compared with, and the speed that is held still."""
    std = model.stats.obs_std
    # Differences of small or unsigned integers would wrap around.
    first, last = (each[rows].astype(np.float64) for each in (data.obs, data.next_obs))
    obs = (first - model.stats.obs_mean) / std
    change = (last - first) / model.stats.change_std
    guess = (predicted - first) / model.stats.change_std
    # Where no dimension is named a velocity, all of them stand for the speed.
    speed = _size(obs[:, velocity_dims(data) or range(data.obs_dim)])
    inverse = np.linalg.pinv(np.atleast_2d(np.cov(obs.T)), hermitian=True)
    quantities = {
        "the model's own error": np.sqrt(error),
        "speed": speed,
        "size of the state": _size(obs),
        "change of the observation": _size(change),
        GUESS: _size(guess),
        "Mahalanobis distance": np.sqrt(np.einsum("wi,ij,wj->w", obs, inverse, obs).clip(0)),
    }
    found = {name.removeprefix(LABEL): column[rows] for name, column in labels.items()}
    return quantities | {name: each.astype(np.float64) for name, each in found.items()}, speed


def _size(values: Float[ndarray, "W O"]) -> Float[ndarray, " W"]:
    return np.sqrt(np.square(values, dtype=np.float64).mean(axis=1))
