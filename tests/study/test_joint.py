"""The comparison of joint with separate training: cells that train alike, tables worked out."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from loopwm.study import joint as study
from loopwm.study.datasets import Split
from loopwm.study.joint import ARMS, SHOWN, JointCell, sheets, train
from loopwm.study.results import Sheet
from loopwm.train.config import FitConfig

pytest.importorskip("numba")


@pytest.fixture(scope="module")
def found(world: Any) -> dict[str, Any]:
    """Give the results of tiny cells of two seeds."""
    data = Split(world.train, world.test, world.test, world.test)
    cells = [JointCell(arm, seed, updates=3, batch=8, slots=6) for seed in (0, 1) for arm in ARMS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "TEST", 12)
        patch.setattr(study, "HORIZONS", (1, 5))
        return {
            cell.name: {
                "cell": {"arm": cell.arm, "seed": cell.seed},
                "label": ARMS[cell.arm],
                **train(cell, data, None),
            }
            for cell in cells
        }


def test_cells_are_named_by_all_that_they_depend_on():
    base = JointCell("joint")
    others: list[dict[str, Any]] = [
        {"arm": "world"},
        {"seed": 1},
        {"task": "Walker2d-v5"},
        {"rows": 7},
        {"updates": 7},
        {"batch": 7},
        {"slots": 7},
        {"lr": 7.0},
    ]
    names = {base.name, *(replace(base, **changes).name for changes in others)}
    assert len(names) == 1 + len(others)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORE", replace(study.CORE, multiple=16)),
        ("WIDTH", 32),
        ("CLUES", 7),
        ("TEST", 12),
        ("STEPS", 4),
        ("FitConfig", partial(FitConfig, weight_decay=0.5)),
    ],
)
def test_cells_are_named_after_what_is_the_same_for_all(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
):
    before = JointCell("joint").name
    monkeypatch.setattr(study, name, value)
    assert JointCell("joint").name != before


def test_each_arm_is_measured_on_what_it_learned(found: dict[str, Any]):
    for each in found.values():
        arm = each["cell"]["arm"]
        assert ("report" in each) == (arm != "puzzles")
        assert ("right" in each) == (arm != "world")
        assert bool(each["shared"]) == (arm == "joint")
        for marks in each.get("right", {}).values():
            assert len(marks) == 12
            assert set(marks) <= {0, 1}


def tables(found: dict[str, Any]) -> list[Sheet]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "HORIZONS", (1, 5))
        return sheets(found)


def test_the_share_is_at_least_four_fifths_of_both(found: dict[str, Any]):
    rows = tables(found)[3].rows
    assert [row["model"] for row in rows] == ["world model", "reasoner"]
    assert all(80 <= row["share"] < 100 for row in rows)


def test_errors_are_compared_seed_by_seed(found: dict[str, Any]):
    rows = {row["k"]: row for row in tables(found)[1].rows}
    ratios = []
    for seed in (0, 1):
        errors = {
            each["cell"]["arm"]: each["report"]["rmse"]
            for each in found.values()
            if each["cell"]["seed"] == seed and "report" in each
        }
        first = {
            arm: next(v for k, v in rmse.items() if int(k) == 5) for arm, rmse in errors.items()
        }
        ratios.append(first["joint"] / first["world"])
    mean, low, high = rows[5]["seeds"]
    assert (low, high) == pytest.approx((min(ratios), max(ratios)))
    assert mean == pytest.approx(sum(ratios) / 2)
    assert rows[5]["ratio"][1] <= rows[5]["ratio"][0] <= rows[5]["ratio"][2]


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [([1, 1, 1, 1, 0], "a gain"), ([0, 0, 0, 0, 0], "neither"), ([1, 0, 0, 0, 0], "neither")],
)
def test_answers_are_compared_puzzle_by_puzzle(
    found: dict[str, Any], ours: list[int], verdict: str
):
    marked = {
        name: {**each, "right": dict.fromkeys(map(str, SHOWN), mark)}
        for name, each in found.items()
        for mark in [ours if each["cell"]["arm"] == "joint" else [0, 0, 0, 0, 0]]
        if "right" in each
    }
    for row in tables(marked)[2].rows:
        share = 100 * sum(ours) / 5
        assert row["joint"] == pytest.approx([share] * 3)
        assert row["puzzles"] == [0.0] * 3
        assert row["gain"][0] == pytest.approx(share)
        assert row["seeds"] == pytest.approx([share] * 3)
        assert row["verdict"] == verdict


def test_a_loss_is_called_one_only_if_every_seed_and_the_whole_interval_say_so():
    assert study._verdict([1.2, 1.1, 1.3], [1.2, 1.05, 1.3], 1.0) == "a loss"
    assert study._verdict([1.2, 1.1, 1.3], [1.2, 0.99, 1.3], 1.0) == "neither"
    assert study._verdict([0.8, 0.7, 0.9], [0.8, 0.7, 0.95], 1.0) == "a gain"
    assert study._verdict([0.8, 0.7, 1.01], [0.8, 0.7, 0.95], 1.0) == "neither"
