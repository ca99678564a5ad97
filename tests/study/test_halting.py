"""Controls of stopping early are what they are called."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import loopwm as lw
from loopwm.data.store import RolloutDataset
from loopwm.study import halting, halting_time
from loopwm.study.calibrate import Calibration, calibrate
from loopwm.study.datasets import Split
from loopwm.study.halting import (
    Outcome,
    calibrated,
    equal_depth,
    ladder,
    least_error,
    outcome_sheet,
    outcomes,
)
from loopwm.study.halting_time import speed_sheet, speeds

HORIZONS = (1, 3)


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Measure at horizons that are quick to imagine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halting, "HORIZONS", HORIZONS)
        patch.setattr(halting_time, "HORIZONS", HORIZONS)
        yield


@pytest.fixture(scope="module")
def model(untrained: Any) -> Any:
    return untrained(lw.WorldConfig(width=8, depth=lw.depth.Fixed(4), carry=False))


@pytest.fixture(scope="module")
def data(model: Any, lived_by: Any) -> RolloutDataset:
    return lived_by(model)


@pytest.fixture(scope="module")
def rules(model: Any, world: Any, data: RolloutDataset) -> dict[str, Calibration]:
    return calibrated(model, Split(world.train, data, data, data), regret=0.05)


@pytest.fixture(scope="module")
def found(model: Any, data: RolloutDataset, rules: Any) -> dict[str, Outcome]:
    return outcomes(model, data, rules)


def test_every_way_is_measured_and_controls_use_the_rules_iterations(
    found: dict[str, Outcome],
) -> None:
    assert [f"fixed {depth}" for depth in (1, 2, 3, 4, 6, 8, 12)] == list(found)[:7]
    assert ladder(4) == [1, 2, 3, 4, 6, 8, 12]
    rule, dealt, oracle = (found[name] for name in ("OutputDelta", "random", "oracle"))
    assert dealt.iterations == rule.iterations
    assert set(dealt.rmse) == set(HORIZONS)
    assert oracle.iterations[1] <= rule.iterations[1]
    assert 1 < rule.iterations[1] < 4
    assert oracle.rmse[1] < rule.rmse[1] < dealt.rmse[1]


def test_the_one_test_stands_where_it_saves_most(
    model: Any, data: RolloutDataset, rules: dict[str, Calibration]
) -> None:
    def saved(stage: int) -> float:
        rule = lw.OutputDelta(stages=(stage,))
        return calibrate(model, data, 0.05, rule=rule, horizons=HORIZONS).saved

    each = [saved(stage) for stage in range(1, rules["OutputDelta"].max_iters)]
    assert len(set(each)) > 1
    assert rules["staged"].saved == max(each)


def test_fixed_depths_err_as_evaluation_says(found: Any, model: Any, data: RolloutDataset) -> None:
    report = lw.evaluate(model, data, HORIZONS, halt=lw.Fixed(2))
    for k in HORIZONS:
        assert found["fixed 2"].rmse[k] == pytest.approx(report.rmse[k], rel=1e-5)


def test_the_oracle_has_the_least_error_of_all_choices_with_its_mean() -> None:
    rng = np.random.default_rng(0)
    squares = rng.exponential(size=(3, 5))
    every = np.stack(np.meshgrid(*[range(1, 4)] * 5), axis=-1).reshape(-1, 5)
    for mean in (1.0, 1.4, 2.0, 2.6, 3.0):
        chosen = least_error(squares, mean)
        assert chosen.mean() <= mean
        fair = every[every.sum(axis=1) == chosen.sum()]
        errors = squares[fair - 1, np.arange(5)].sum(axis=1)
        assert squares[chosen - 1, np.arange(5)].sum() == pytest.approx(errors.min())


def test_the_depth_of_equal_error_is_the_least_that_suffices() -> None:
    def outcome(rmse: float) -> Outcome:
        return Outcome({1: 1.0, 3: 1.0}, {1: rmse, 3: rmse})

    found = {f"fixed {t}": outcome(r) for t, r in ((1, 2.0), (2, 1.2), (3, 1.005), (4, 1.0))}
    assert equal_depth(found | {"OutputDelta": outcome(1.0)}, 4, "OutputDelta") == 3
    assert equal_depth(found | {"OutputDelta": outcome(1.19)}, 4, "OutputDelta") == 2
    # A rule that happens to err less than every depth is compared with the typical one.
    assert equal_depth(found | {"OutputDelta": outcome(0.5)}, 4, "OutputDelta") == 3


def test_tables_hold_what_was_measured(
    found: dict[str, Outcome],
    rules: dict[str, Calibration],
    model: Any,
    data: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sheet = outcome_sheet([found, found])
    assert [row["way"] for row in sheet.rows][:7] == list(found)[:7]
    assert len(sheet.rows) == len(found)
    assert sheet.rows[0]["rmse_1"] == [found["fixed 1"].rmse[1]] * 3
    assert sheet.rows[-1]["rmse_3"] is None
    monkeypatch.setattr("loopwm.study.halting_time.BATCHES", (4, 8))
    raced = {name: rules[name] for name in ("OutputDelta", "first")}
    rows = speeds(model, data, raced, {"OutputDelta": 3, "first": 2})
    assert [row["batch"] for row in rows] == [4, 8, 4, 8]
    assert [row["equal"] for row in rows] == [3, 3, 2, 2]
    assert all(1 <= row["iterations"] <= rules["OutputDelta"].max_iters for row in rows)
    assert rows[0]["saved"] == 1 - rows[0]["iterations"] / 4
    assert rows[0]["faster"] == rows[0]["early"] / rows[0]["fixed"]
    faster = rows[0] | {"faster": 2 * rows[0]["faster"], "share": None, "equal": 4}
    merged = speed_sheet([rows, [faster, *rows[1:]]]).rows
    assert [row["batch"] for row in merged] == [4, 8, 4, 8]
    assert merged[0]["equal"] == "3, 4"
    low = rows[0]["faster"]
    assert merged[0]["faster"] == pytest.approx([1.5 * low, low, 2 * low])
    assert merged[0]["share"][0] == rows[0]["share"]
