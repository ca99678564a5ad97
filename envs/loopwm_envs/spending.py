"""How a trained loop spends its iterations on chains: by depth, by counterfactual, in seconds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from loopwm.core.halt import Fixed, OutputDelta
from loopwm.study.calibrate import Calibration, calibrate
from loopwm.study.comparison import spread
from loopwm.study.correlation import rank_correlation
from loopwm.study.results import Column, Sheet
from loopwm.world.model import WorldModel
from loopwm_envs.counterfactual import Counterfactual, without_collision
from loopwm_envs.extrapolation import CHAIN, dataset
from loopwm_envs.transitions import Transitions, simulate

MOST = 32
REGRET = 0.01


def calibrated(model: WorldModel, given: Transitions) -> Calibration:
    """Choose the tolerance that loses at most 1% against `MOST` iterations."""
    return calibrate(model, dataset(given), REGRET, horizons=(1,), max_iters=MOST)


def inputs(given: Transitions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return transitions as a model takes them: observations, and actions that are nothing."""
    return torch.as_tensor(given.state, dtype=torch.float32), torch.zeros(len(given), 1)


@torch.no_grad()
def spent(
    model: WorldModel, given: Transitions, halt: OutputDelta | Fixed, most: int = MOST
) -> tuple[Int[ndarray, " N"], Float[ndarray, "N O"]]:
    """Return the iterations that each transition takes, and the next states predicted.

    Args:
        model: A looped model.
        given: The transitions.
        halt: The stop rule, or a fixed depth.
        most: Most iterations.
    """
    out = model.predict(*inputs(given), halt=halt, max_iters=most)
    return out.n_iters.numpy(), out.next_obs.numpy()


def depth_rows(
    model: WorldModel, given: Transitions, halts: Sequence[OutputDelta], most: int = MOST
) -> list[dict[str, Any]]:
    """Relate iterations to causal depth, one row for each tolerance.

    Held still, in turn: nothing; the speed; the speed, the smallest gap and the spread of the
    balls. Deeper chains are faster and denser, and a loop might count that instead.

    Args:
        model: A looped model.
        given: Transitions of balanced causal depth.
        halts: The tolerances.
        most: Most iterations.
    """
    speed = np.sqrt(np.square(given.velocity).mean(axis=1))
    gap, size = np.diff(given.position).min(axis=1), given.position.std(axis=1)
    ways = {"raw": (), "speed": (speed,), "all": (speed, gap, size)}
    rows = []
    for halt in halts:
        count = spent(model, given, halt, most)[0]
        related = {
            name: _known(rank_correlation(count, given.depth, np.arange(len(given)), held).value)
            for name, held in ways.items()
        }
        means = {
            f"depth_{depth}": float(count[given.depth == depth].mean())
            for depth in np.unique(given.depth)
        }
        rows.append({"tol": halt.tol, **related, **means})
    return rows


def depth_sheet(title: str, seeds: Sequence[Sequence[dict[str, Any]]]) -> Sheet:
    """Make the table of `depth_rows`, mean over seeds [lowest, highest].

    Args:
        title: Heading.
        seeds: Rows of each seed, the calibrated tolerance first, then the same ones for all.
    """
    rows = [
        {key: _over_seeds([each[key] for each in found]) for key in found[0]}
        for found in zip(*seeds, strict=True)
    ]
    labels = {"tol": "tolerance (first: calibrated)", "raw": "rank correlation with causal depth"}
    labels |= {"speed": "given the speed", "all": "given speed, smallest gap, spread of the balls"}
    labels |= {key: key.replace("_", " ") for key in rows[0] if key.startswith("depth_")}
    return Sheet(title, tuple(Column(*each) for each in labels.items()), tuple(rows))


def pair_rows(
    model: WorldModel,
    given: Transitions,
    halts: Sequence[OutputDelta],
    vanish: int,
    within: float = math.inf,
    most: int = MOST,
) -> list[dict[str, Any]]:
    """Compare iterations before and after moving one ball so that collisions vanish.

    The control moves the same ball as far the other way, in those pairs in which no collision
    comes or goes by that.

    Args:
        model: A looped model.
        given: Transitions of balanced causal depth.
        halts: The tolerances, one row each.
        vanish: Collisions that vanish at least.
        within: Pairs are left out whose moved ball ends farther from the middle of the line.
        most: Most iterations.
    """
    pair = without_collision(given, CHAIN, vanish)
    pair = pair.rows(np.abs(pair.transitions.position).max(axis=1) <= within)
    before = given.rows(pair.row)
    falls = pair.transitions.depth < before.depth
    same, other = _moved_back(before, pair)
    rows = []
    for halt in halts:
        count = spent(model, before, halt, most)[0]
        fewer = count - spent(model, pair.transitions, halt, most)[0]
        control = count[same] - spent(model, other, halt, most)[0]
        rows.append(
            {
                "tol": halt.tol,
                "vanish": vanish,
                "pairs": len(fewer),
                "before": float(count.mean()),
                "fewer": float(fewer.mean()),
                "falls": _known(fewer[falls].mean()) if falls.any() else None,
                "down": float((fewer > 0).mean()),
                "up": float((fewer < 0).mean()),
                "p": sign_test(fewer),
                "controls": len(control),
                "control": _known(control.mean()) if len(control) else None,
            }
        )
    return rows


def _moved_back(before: Transitions, pair: Counterfactual) -> tuple[ndarray, Transitions]:
    """Return the rows whose collisions a move the other way leaves alone, and what it makes."""
    position = before.position.copy()
    position[np.arange(len(position)), pair.ball] -= pair.shift
    ordered = np.flatnonzero((np.diff(position) >= 0).all(axis=1))
    other = simulate(CHAIN, position[ordered], before.velocity[ordered])
    same = (other.count == before.count[ordered]) & (other.depth == before.depth[ordered])
    return ordered[same], other.rows(same)


def sign_test(differences: Int[ndarray, " N"]) -> float:
    """Return how likely signs as uneven as these are by chance, two-sided, for many of them."""
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return math.erfc(abs(up - down) / math.sqrt(2 * max(1, up + down)))


def pair_sheet(seeds: Sequence[Sequence[dict[str, Any]]]) -> Sheet:
    """Make the table of `pair_rows`, mean over seeds [lowest, highest]; of p, the largest.

    Args:
        seeds: Rows of each seed, in the same order.
    """
    rows = []
    for found in zip(*seeds, strict=True):
        row: dict[str, Any] = {key: _over_seeds([each[key] for each in found]) for key in found[0]}
        same = {key: found[0][key] for key in ("vanish", "pairs", "controls")}
        rows.append(row | same | {"p": max(each["p"] for each in found)})
    labels = {
        "vanish": "collisions that vanish, at least",
        "tol": "tolerance",
        "pairs": "pairs",
        "before": "iterations before",
        "fewer": "fewer after",
        "falls": "fewer where the causal depth falls",
        "down": "share of pairs with fewer",
        "up": "with more",
        "p": "p, sign test",
        "controls": "control pairs",
        "control": "fewer in the control",
    }
    columns = tuple(Column(*each) for each in labels.items())
    return Sheet("one ball moved so that collisions vanish", columns, tuple(rows))


def _known(value: float | np.floating) -> float | None:
    """Return a number, or None for NaN: iterations that never vary correlate with nothing."""
    return None if np.isnan(value) else float(value)


def _over_seeds(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return spread(known) if len(known) == len(values) else None
