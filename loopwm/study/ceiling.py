"""The best that a model with a given one-step error could do: the simulator goes on from there."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from loopwm.data.simulator import check_simulable, simulate
from loopwm.data.store import RolloutDataset
from loopwm.seed import numpy_rng
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.summary import WindowErrors
from loopwm.study.windows import draw_rows

if TYPE_CHECKING:
    from loopwm.world.protocol import WorldModelLike


def ceiling_windows(
    model: "WorldModelLike",
    test: RolloutDataset,
    rows: dict[int, Int[ndarray, " W"]],
    how: Imagination,
    most: int,
) -> list[WindowErrors]:
    """Restart the simulator from the model's one-step predictions and measure its error.

    The first step of each window is the model's; every later one is the simulator's, under the
    same actions. What error remains at step k is the system's own amplification of a one-step
    error, which no improvement of later steps removes.

    Args:
        model: Anything with the verbs start, observe and step.
        test: Real experience.
        rows: First rows of the windows, by horizon.
        how: What the model sees before the first step.
        most: Most windows for each horizon, at least 1.

    Returns:
        Errors by horizon.

    Raises:
        LoopwmError: If the simulator cannot be set to an observation.
    """
    check_simulable(test.meta)
    chosen = {k: draw_rows(each, most, numpy_rng(0, "ceiling", k)) for k, each in rows.items()}
    return [_measure(model, test, each, k, how) for k, each in chosen.items()]


def _measure(
    model: "WorldModelLike",
    test: RolloutDataset,
    rows: Int[ndarray, " W"],
    horizon: int,
    how: Imagination,
) -> WindowErrors:
    if len(rows) == 0:
        return WindowErrors.none(horizon, test.obs_dim)
    first = imagine_windows(model, test, rows, 1, how).obs[:, 0].astype(np.float64)
    obs = first
    if horizon > 1:
        steps = rows[:, None] + np.arange(1, horizon)
        obs = simulate(test.meta, first, test.action[steps])[:, -1]
    last = rows + horizon - 1
    part = test.info.get("part")
    return WindowErrors(
        horizon=horizon,
        episode=test.episode[rows],
        part=None if part is None else part[rows].astype(np.int64),
        error=obs - test.next_obs[last],
        reward_error=np.full(len(rows), np.nan),
        iterations=np.full(len(rows), np.nan),
        settled=np.full(len(rows), np.nan),
    )
