"""The table of solvers: evaluations counted by hand, errors that fall with the tolerance."""

from dataclasses import replace
from typing import Any

import pytest

import loopwm as lw
from loopwm.study import flows
from loopwm.study.flows import EXACT, solved_by, solver_sheet

# The bounded cell starts, untrained, where its normalisation is not smooth.
CONFIG = lw.WorldConfig(width=8, depth=lw.depth.Fixed(8), cell=lw.Contractive(rate=0.9))


@pytest.fixture(scope="module")
def rows(untrained: Any, world: Any) -> dict[str, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "ROUNDS", 1)
        found = solver_sheet("a loop", [untrained(CONFIG)], world.test, steps=(1,)).rows
    return {row["solver"]: dict(row) for row in found}


def test_evaluations_are_those_of_the_method_times_its_steps(rows: dict[str, dict[str, Any]]):
    expected = {
        "the loop (Euler, step 1)": 8,
        "Euler, step 1/2": 16,
        "Euler, step 1/4": 32,
        "midpoint, step 1": 16,
        "rk4, step 1": 32,
    }
    assert {name: rows[name]["evaluations"][0] for name in expected} == expected


def test_a_tighter_solver_is_nearer_to_the_flow_and_evaluates_more(rows: dict[str, dict[str, Any]]):
    by_step = ["the loop (Euler, step 1)", "Euler, step 1/2", "Euler, step 1/4", "rk4, step 1"]
    off = [rows[name]["off"][0] for name in by_step]
    assert off == sorted(off, reverse=True)
    assert off[-1] < 0.01 * off[0]
    tight, loose = rows["dopri5, 0.0001"], rows["dopri5, 0.1"]
    assert tight["off"][0] < 1e-4
    assert tight["evaluations"][0] > loose["evaluations"][0]
    assert all(row["ms"] > 0 for row in rows.values())


def test_errors_of_the_loop_are_those_of_evaluation(
    rows: dict[str, dict[str, Any]], untrained: Any, world: Any
):
    model = untrained(CONFIG)
    expected = lw.evaluate(model, world.test, (1,)).rmse[1]
    assert rows["the loop (Euler, step 1)"]["rmse_1"][0] == pytest.approx(expected, rel=1e-5)


def test_an_update_costs_more_where_the_solver_evaluates_more(
    untrained: Any, world: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(flows, "ROUNDS", 2)
    monkeypatch.setattr(flows, "WINDOWS", 16)
    models = {
        f"{step:g}": untrained(
            replace(CONFIG, depth=lw.depth.Flow(lw.depth.Fixed(4), method="euler", step=step))
        )
        for step in (1.0, 0.25)
    }
    coarse, fine = flows.update_sheet(models, world.test).rows
    assert (coarse["model"], fine["model"]) == ("1", "0.25")
    assert 0 < coarse["ms"][0] < fine["ms"][0]
    assert fine["kept"] > 2 * coarse["kept"]


def test_the_solver_of_a_model_is_put_back(untrained: Any, world: Any):
    model = untrained(lw.WorldConfig(width=8))
    with solved_by(model, EXACT):
        assert model.core.flow is EXACT
    assert model.core.flow is None
    seen, evaluations = flows._imagined(model, EXACT, world.test, 1)
    assert len(seen) == len(evaluations)
    assert model.core.flow is None
