"""How fast a trained loop comes to rest: from the carried state or not, extrapolated or not."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from loopwm.core.anderson import Anderson
from loopwm.core.cell import Conditioning
from loopwm.core.halt import Fixed
from loopwm.core.loop import LoopedCore
from loopwm.core.program import State
from loopwm.core.rows import relative_change
from loopwm.data.store import RolloutDataset
from loopwm.study.comparison import spread
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import Contestant, race
from loopwm.study.trace import real_states, squared_errors
from loopwm.study.windows import Sampling, window_rows
from loopwm.world.model import WorldModel

TOLERANCES = (1e-2, 1e-3, 1e-4)
MOST = 64
BUDGETS = (2, 4, 12)
STEPS = (1, 15, 50)
ROWS, BEFORE = 512, 4  # states measured at, and the real steps that lead to each
TIMED = 8
WINDOWS = 500  # of real experience, for errors


@dataclass(frozen=True)
class Way:
    """Say how a trained loop is run.

    Attributes:
        arm: The models.
        model: What tables call them.
        warm: Whether the loop of a step starts from the carried state.
        solver: What extrapolates, or None for the plain loop.
    """

    arm: str
    model: str
    warm: bool
    solver: Anderson | None = None

    @property
    def row(self) -> dict[str, str]:
        """Return the first cells of its row."""
        start = "carried" if self.warm else "learned"
        solver = "none" if self.solver is None else f"Anderson({self.solver.memory})"
        return {"model": self.model, "start": start, "solver": solver}


WAYS = (
    *(
        Way(arm, name, warm, solver)
        for arm, name in (
            ("settled", "contractive, rate 0.8"),
            ("contractive-0.99", "contractive, rate 0.99"),
            ("looped", "bounded (default)"),
        )
        for warm in (True, False)
        for solver in (None, Anderson())
    ),
    Way("settled-cold", "contractive, trained from the learned start", warm=False),
    Way("cold", "bounded, trained from the learned start", warm=False),
)
_COLUMNS = (Column("model"), Column("start"), Column("solver"))


def residual_sheet(models: Mapping[str, Sequence[WorldModel]], data: RolloutDataset) -> Sheet:
    """Make the table of cell evaluations until `||F(h) - h|| / ||F(h)||` is within a tolerance.

    Mean over states inside real episodes, then over seeds [lowest, highest].

    Args:
        models: Trained models by arm, a seed each.
        data: Real experience.
    """
    rows = []
    for way in WAYS:
        found = [_counts(model, way, data) for model in models[way.arm]]
        row: dict[str, Any] = dict(way.row)
        for index, _ in enumerate(TOLERANCES):
            row[f"tol_{index}"] = spread([float(each[index].mean()) for each in found])
        row["never"] = spread([float((each[1] > MOST).mean()) for each in found])
        row["ms"] = _milliseconds(models[way.arm][0], way, data)
        rows.append(row)
    columns = (
        *_COLUMNS,
        *(Column(f"tol_{index}", f"to {tol:g}") for index, tol in enumerate(TOLERANCES)),
        Column("never", f"share not at {TOLERANCES[1]:g} after {MOST}"),
        Column("ms", f"CPU ms, {TIMED} iterations of {ROWS} rows"),
    )
    title = f"iterations to a relative residual; {MOST + 1} counts where {MOST} do not suffice"
    return Sheet(title, columns, tuple(rows))


def solver_sheet(
    models: Mapping[str, Sequence[WorldModel]],
    data: RolloutDataset,
    budgets: Sequence[int] = BUDGETS,
    steps: Sequence[int] = STEPS,
) -> Sheet:
    """Make the table of open-loop RMSE by the number of iterations that a step may take.

    Every step takes as many, also those with real observations that lead to the first one.

    Args:
        models: Trained models by arm, a seed each.
        data: Real experience.
        budgets: Iterations.
        steps: Open-loop steps.
    """
    rows = []
    for way in WAYS:
        row: dict[str, Any] = dict(way.row)
        for k in steps:
            for budget in budgets:
                errors = [_rmse(model, way, data, k, budget) for model in models[way.arm]]
                row[f"rmse_{k}_{budget}"] = spread(errors)
        rows.append(row)
    columns = (
        *_COLUMNS,
        *(Column(f"rmse_{k}_{n}", f"k={k}, {n} iterations") for k in steps for n in budgets),
    )
    return Sheet("RMSE by iterations, start and solver", columns, tuple(rows))


@contextmanager
def running(model: WorldModel, way: Way) -> Iterator[None]:
    """Let a model run in some way while the block does."""
    dynamics: Any = model.dynamics
    before = dynamics.warm, dynamics.core.solver
    dynamics.warm, dynamics.core.solver = way.warm, way.solver
    try:
        yield
    finally:
        dynamics.warm, dynamics.core.solver = before


@torch.no_grad()
def evaluations_to(
    core: LoopedCore, h: Float[Tensor, "B L D"], e: Float[Tensor, "B L D"], most: int = MOST
) -> Int[ndarray, "T B"]:
    """Count for each row the evaluations after which its residual is first within each tolerance.

    Args:
        core: The looped core, with or without a solver.
        h: Starts.
        e: Injections.
        most: Most evaluations; one more is returned where they do not suffice.
    """
    counts = np.full((len(TOLERANCES), len(h)), most + 1)
    weights, fixed = core.cell.constrain(), core.program.prepare(core.cell, e)

    def iterate(fixed: Conditioning, *states: Tensor) -> State:
        return core.program.iterate(core.cell, states, fixed, weights)

    step, state = iterate, (h,)
    if core.solver is not None:
        step, state = partial(core.solver.step, iterate), core.solver.begin((h,))
    for count in range(1, most + 1):
        state = step(fixed, *state)
        residual = relative_change(iterate(fixed, state[0])[0], state[0]).numpy()
        for each, tol in zip(counts, TOLERANCES, strict=True):
            each[(residual <= tol) & (each > most)] = count
    return counts


def _counts(model: WorldModel, way: Way, data: RolloutDataset) -> Int[ndarray, "T B"]:
    h, e = _inside(model, way, data)
    with running(model, way):
        return evaluations_to(model.core, h, e)


def _milliseconds(model: WorldModel, way: Way, data: RolloutDataset) -> float:
    h, e = _inside(model, way, data)
    with running(model, way), torch.no_grad():
        (timing,) = race([Contestant("", lambda: model.core((h,), e, TIMED), 1)], 15)
    return 1e3 * float(np.median(timing.cpu))


def _rmse(model: WorldModel, way: Way, data: RolloutDataset, steps: int, budget: int) -> float:
    # Where an episode begins every start is the learned one.
    rows = window_rows(data, steps, BEFORE, Sampling(max_windows=WINDOWS))
    how = Imagination(context=BEFORE + 1, halt=Fixed(budget))
    with running(model, way):
        seen = imagine_windows(model, data, rows, steps, how)
    squares = squared_errors(model, data, rows, seen.obs[:, -1], steps)
    return float(np.sqrt(squares.mean()))


def _inside(model: WorldModel, way: Way, data: RolloutDataset) -> tuple[Tensor, Tensor]:
    """Return starts and injections of steps inside real episodes."""
    dynamics: Any = model.dynamics
    rows = window_rows(data, 1, BEFORE, Sampling(max_windows=ROWS))
    with torch.no_grad(), running(model, way):
        state, action = real_states(model, data, rows, BEFORE + 1)
        shown = model.shown(state, model.normaliser.action(action))
        h = state[3] if way.warm else dynamics.initial(len(rows))[0]
        return h, dynamics.injection(state[3:], shown)
