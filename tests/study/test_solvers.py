"""Iterations to rest: closed form on a linear loop, and the settings put back afterwards."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import loopwm as lw
from loopwm.core.anderson import Anderson
from loopwm.core.loop import LoopedCore
from loopwm.core.rows import relative_change
from loopwm.study import solvers
from loopwm.study.solvers import TOLERANCES, Way, evaluations_to, residual_sheet, running

RATE = 0.7


class Shrinking(nn.Module):
    """Refine by `h+ = RATE * h + e`, at rest at `e / (1 - RATE)`."""

    num_conditions = 1

    def condition(self, e: Tensor) -> tuple[Tensor, ...]:
        return (e,)

    def constrain(self) -> tuple[Tensor, ...]:
        return ()

    def forward(self, h: Tensor, conditioning: Any, weights: Any = None) -> Tensor:
        return RATE * h + conditioning[0]


def pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    h, e = (torch.randn(6, 1, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return 10 * h, e


def test_iterations_of_a_linear_loop_are_those_of_the_closed_form():
    h, e = pairs()
    rest, start = e / (1 - RATE), h
    expected = np.full((len(TOLERANCES), 6), 65)
    for t in reversed(range(1, 65)):
        now, following = (rest + RATE**n * (start - rest) for n in (t, t + 1))
        residual = (following - now).norm(dim=(1, 2)) / following.norm(dim=(1, 2))
        for index, tol in enumerate(TOLERANCES):
            expected[index, (residual <= tol).numpy()] = t
    np.testing.assert_array_equal(evaluations_to(LoopedCore(Shrinking()), h, e), expected)


def test_extrapolation_solves_a_linear_loop_in_a_few_evaluations():
    core, (h, e) = LoopedCore(Shrinking()), pairs()
    plain = evaluations_to(core, h, e, most=12)
    core.solver = Anderson(ridge=1e-12)
    # Along the line to the rest two evaluations say all there is; the third state lies on it.
    assert evaluations_to(core, h, e, most=12).max() <= 3 < plain.min()


@pytest.mark.parametrize("solver", [None, Anderson()])
def test_what_is_counted_is_what_inference_runs(untrained: Any, world: Any, solver: Any):
    model = untrained(lw.WorldConfig(width=8))
    way = Way("looped", "", warm=True, solver=solver)
    h, e = solvers._inside(model, way, world.test)
    with running(model, way), torch.no_grad():
        counts = evaluations_to(model.core, h, e, most=12)
        for depth in (1, 5, 12):
            state = model.core((h,), e, depth).state[0]
            residual = relative_change(model.core.refine(state, e), state)
            for each, tol in zip(counts, TOLERANCES, strict=True):
                assert (residual.numpy()[each == depth] <= tol).all()
                assert (residual.numpy()[each > depth] > tol).all()


def test_a_loop_that_does_not_rest_in_time_counts_one_more_than_the_most():
    h, e = pairs()
    assert (evaluations_to(LoopedCore(Shrinking()), 1e9 * h, e, most=3) == 4).all()


def test_the_settings_of_a_model_are_put_back(untrained: Any):
    model = untrained(lw.WorldConfig(width=8))
    way = Way("looped", "bounded", warm=False, solver=Anderson())
    with running(model, way):
        assert model.core.solver == Anderson()
        assert not model.dynamics.warm
    assert model.core.solver is None
    assert model.dynamics.warm


def test_a_cold_start_is_the_learned_one_and_a_warm_one_the_carried(untrained: Any, world: Any):
    model = untrained(lw.WorldConfig(width=8))
    cold, _ = solvers._inside(model, Way("looped", "", warm=False), world.test)
    warm, _ = solvers._inside(model, Way("looped", "", warm=True), world.test)
    assert (cold == model.dynamics.origin).all()
    assert (warm != cold).any(dim=-1).all()


def test_the_tables_hold_a_row_for_each_way(
    untrained: Any, world: Any, monkeypatch: pytest.MonkeyPatch
):
    contractive = untrained(lw.WorldConfig(width=8, cell=lw.Contractive(rate=0.5)))
    ways = tuple(Way("settled", "contractive", warm, None) for warm in (True, False))
    monkeypatch.setattr(solvers, "WAYS", ways)
    models = {"settled": [contractive]}
    warm, cold = residual_sheet(models, world.test).rows
    assert warm["start"] == "carried"
    assert cold["start"] == "learned"
    for row in (warm, cold):
        # At rate 1/2 a residual below 1e-4 takes some fourteen halvings, and none stays above.
        assert row["tol_0"][0] < row["tol_1"][0] < row["tol_2"][0] < 20
        assert row["never"] == [0.0, 0.0, 0.0]
    rows = solvers.solver_sheet(models, world.test, budgets=(1, 24), steps=(1,)).rows
    # At rest, where it began no longer matters.
    assert rows[0]["rmse_1_24"] == pytest.approx(rows[1]["rmse_1_24"], rel=1e-5)
    assert rows[0]["rmse_1_1"] != pytest.approx(rows[1]["rmse_1_1"], rel=1e-3)
