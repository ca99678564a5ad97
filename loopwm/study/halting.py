"""Does stopping early pay, and is it the stopping that pays? Rules and controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from loopwm.core.halt import Fixed, OutputDelta, Residual
from loopwm.data.store import RolloutDataset
from loopwm.seed import numpy_rng
from loopwm.study.calibrate import Calibration, calibrate
from loopwm.study.gate import fit_gate
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.results import Column, Sheet
from loopwm.study.trace import real_states, squared_errors, trace
from loopwm.study.windows import Sampling, window_rows
from loopwm.world.dynamics import Run

if TYPE_CHECKING:
    from loopwm.study.datasets import Split
    from loopwm.world.model import WorldModel

HORIZONS = (1, 15)
EQUAL = 1.01
WORDS = {
    "staged": "OutputDelta, tested once",
    "first": "fixed, fewer after the first step",
}


@dataclass(frozen=True)
class Outcome:
    """Hold what one way of stopping costs, by horizon.

    Attributes:
        iterations: Mean iterations per step.
        rmse: Error in standard deviations of the observation; of the oracle, that of one step.
    """

    iterations: dict[int, float]
    rmse: dict[int, float]


def calibrated(model: "WorldModel", data: "Split", regret: float = 0.01) -> dict[str, Calibration]:
    """Calibrate each way to stop early on the validation set.

    Args:
        model: A looped model.
        data: Training set for the gate, validation set for tolerances.
        regret: Loss of accuracy that calibration may allow.

    Returns:
        Calibrations by name: each rule; `staged`, OutputDelta that asks once, after the iteration
        at which that saves most; `first`, as many iterations for the first step as any row needs,
        and for those that follow as many as they all need.
    """

    def found(rule: Any) -> Calibration:
        return calibrate(model, data.valid, regret, rule=rule, horizons=HORIZONS)

    every = found(OutputDelta())
    stages = range(1, max(2, every.max_iters))
    staged = [found(OutputDelta(stages=(stage,))) for stage in stages]
    return {
        "OutputDelta": every,
        "staged": max(staged, key=lambda each: each.saved),
        "Residual": found(Residual()),
        "gate": found(fit_gate(model, data.train)),
        "first": found(Fixed()),
    }


def outcomes(
    model: "WorldModel", test: RolloutDataset, rules: Mapping[str, Calibration]
) -> dict[str, Outcome]:
    """Measure fixed depths, calibrated rules, and what tells their merit from chance.

    Args:
        model: A looped model.
        test: Real experience for the numbers.
        rules: Calibrated rules by name; one is "OutputDelta".

    Returns:
        Outcomes by name: `fixed T`; each rule; `random`, the same numbers of iterations as
        OutputDelta's, dealt to other rows at each step; `oracle`, the least error at k = 1 that
        any choice of depths with OutputDelta's mean reaches, knowing the truth.
    """
    rows = {k: window_rows(test, k, 0, Sampling()) for k in HORIZONS}
    found = {
        f"fixed {depth}": _imagined(model, test, rows, Fixed(depth), depth)
        for depth in ladder(model.depth.typical)
    }
    for name, chosen in rules.items():
        found[name] = _imagined(model, test, rows, chosen.halt, chosen.max_iters)
    found["random"] = _dealt(model, test, rows, rules["OutputDelta"])
    found["oracle"] = _oracle(model, test, rows[1], found["OutputDelta"].iterations[1])
    return found


def ladder(typical: int) -> list[int]:
    """List the fixed depths that are measured: each up to the typical one, then 1.5, 2, 3 times."""
    return [*range(1, typical + 1), typical * 3 // 2, 2 * typical, 3 * typical]


def equal_depth(found: Mapping[str, Outcome], typical: int, rule: str) -> int:
    """Return the least fixed depth of equal error, up to the typical one.

    It errs at each horizon at most 1% more than the rule, or than the typical depth where that errs
    more than the rule: what no depth reaches is not asked for.
    """
    usual, chosen = found[f"fixed {typical}"].rmse, found[rule].rmse
    allowed = {k: EQUAL * max(usual[k], chosen[k]) for k in HORIZONS}
    return next(
        depth
        for depth in range(1, typical + 1)
        if all(found[f"fixed {depth}"].rmse[k] <= allowed[k] for k in HORIZONS)
    )


def outcome_sheet(seeds: Sequence[Mapping[str, Outcome]], label: str = "") -> Sheet:
    """Make the table of iterations and errors, mean over seeds [lowest, highest].

    Args:
        seeds: What `outcomes` returned for each seed.
        label: Whose they are.
    """
    columns = [Column("way", "iterations by")]
    columns += [Column(f"iterations_{k}", f"mean iterations, k={k}") for k in HORIZONS]
    columns += [Column(f"rmse_{k}", f"RMSE, k={k}") for k in HORIZONS]
    rows = []
    for way in seeds[0]:
        row: dict[str, Any] = {"way": WORDS.get(way, way)}
        for k in HORIZONS:
            for name in ("iterations", "rmse"):
                values = [getattr(each[way], name).get(k) for each in seeds]
                known = [value for value in values if value is not None]
                span = [float(np.mean(known)), min(known), max(known)] if known else None
                row[f"{name}_{k}"] = span
        rows.append(row)
    return Sheet(f"iterations and error{label and f': {label}'}", tuple(columns), tuple(rows))


def _imagined(
    model: "WorldModel",
    data: RolloutDataset,
    rows: Mapping[int, Int[ndarray, " W"]],
    halt: Any,
    most: int,
) -> Outcome:
    how = Imagination(halt=halt, max_iters=most)
    seen = {k: imagine_windows(model, data, each, k, how) for k, each in rows.items()}
    return Outcome(
        iterations={k: float(each.n_iters.mean()) for k, each in seen.items()},
        rmse={
            k: _root(squared_errors(model, data, rows[k], each.obs[:, -1], k))
            for k, each in seen.items()
        },
    )


def _dealt(
    model: "WorldModel",
    data: RolloutDataset,
    rows: Mapping[int, Int[ndarray, " W"]],
    rule: Calibration,
) -> Outcome:
    """Give at each step the rule's numbers of iterations to rows at random."""
    how = Imagination(**rule.options)
    iterations, rmse = {}, {}
    for k, each in rows.items():
        counts = imagine_windows(model, data, each, k, how).n_iters
        dealt = numpy_rng(0, "dealt", k).permuted(counts, axis=0)
        iterations[k] = float(dealt.mean())
        rmse[k] = _root(squared_errors(model, data, each, _imagine_to(model, data, each, dealt), k))
    return Outcome(iterations, rmse)


@torch.no_grad()
def _imagine_to(
    model: "WorldModel",
    data: RolloutDataset,
    rows: Int[ndarray, " W"],
    depths: Int[ndarray, "W H"],
) -> Float[ndarray, "W O"]:
    """Return the observation after H steps, of each row and step refined as often as is said."""
    state, _ = real_states(model, data, rows, 1)
    for step, depth in enumerate(depths.T):
        _, action = real_states(model, data, rows + step, 1)
        out = model.advance(state, model.normaliser.action(action), Run(torch.as_tensor(depth)))
        obs = model.held(model.moved(state[0], out.feature), state[0])
        state = model.next_state(state, obs, torch.ones_like(state[1]), out.carry)
    return model.normaliser.restore_obs(state[0]).numpy()


def _oracle(
    model: "WorldModel", data: RolloutDataset, rows: Int[ndarray, " W"], mean: float
) -> Outcome:
    state, action = real_states(model, data, rows, 1)
    features = trace(model, state, action, model.depth.typical)
    before = state[0].expand(len(features), *state[0].shape)
    obs = model.normaliser.restore_obs(model.held(model.moved(before, features), before))
    squares = squared_errors(model, data, rows, obs.numpy())
    chosen = least_error(squares, mean)
    least = squares[chosen - 1, np.arange(len(rows))]
    return Outcome({1: float(chosen.mean())}, {1: float(np.sqrt(least.mean()))})


def least_error(squares: Float[ndarray, "T W"], mean: float) -> Int[ndarray, " W"]:
    """Choose each row's depth so that the mean error is least for a mean depth of at most `mean`.

    Args:
        squares: Squared error of each row after 1, ..., T iterations.
        mean: Largest mean depth, at least 1.

    Returns:
        Depths in 1..T; the choice is the best one for its own mean depth.
    """
    depths = np.arange(1, len(squares) + 1)[:, None]
    # What an iteration costs, from nothing to more than any is worth.
    low, high = 0.0, float(squares.max()) + 1.0
    for _ in range(100):
        price = (low + high) / 2
        chosen = (squares + price * depths).argmin(axis=0) + 1
        low, high = (low, price) if chosen.mean() <= mean else (price, high)
    return (squares + high * depths).argmin(axis=0) + 1


def _root(squares: Float[ndarray, " W"]) -> float:
    return float(np.sqrt(squares.mean()))
