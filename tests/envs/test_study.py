"""The study of ball chains: what it measures, how it matches, and that all of it runs."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from loopwm.core.count import parameters
from loopwm.core.halt import Fixed, OutputDelta
from loopwm.errors import StoreError
from loopwm.study.recipe import Options
from loopwm_envs import (
    Transitions,
    extrapolation,
    halting,
    sample_balanced,
    spending,
    study,
    transitions,
)
from loopwm_envs.arms import ARMS, make_model
from loopwm_envs.extrapolation import CHAIN, Cell, dataset, errors, run_cell
from loopwm_envs.matching import beyond, matched, ratio_sheet
from loopwm_envs.neighbours import NeighbourCell


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the study so small that it runs in seconds."""
    for name, rows in (("shallow_set", 40), ("balanced_set", 4)):
        made = partial(getattr(extrapolation, name), rows)
        for module in (extrapolation, study):
            monkeypatch.setattr(module, name, made)
    monkeypatch.setattr(extrapolation, "SNAPSHOTS", 2)
    monkeypatch.setattr(transitions, "BATCH", 512)
    cells = [Cell(arm, updates=4, batch=8, rows=200) for arm in ARMS]
    monkeypatch.setattr(study, "planned", lambda: cells)
    monkeypatch.setattr(study, "SEEDS", (0,))
    monkeypatch.setattr(study, "VANISH", (1,))
    monkeypatch.setattr(study, "FIXED", (2,))
    monkeypatch.setattr(study, "TOLERANCES", (0.1,))
    monkeypatch.setattr(halting, "deployed", partial(halting.deployed, 40))
    monkeypatch.setattr(halting, "BATCHES", (2_000,))
    # An untrained loop need not settle, and then no tolerance is loose enough.
    monkeypatch.setattr(spending, "REGRET", 10.0)


def test_a_dataset_holds_each_transition_as_an_episode_of_its_own() -> None:
    given = sample_balanced(np.random.default_rng(0), 5, depths=(0, 2))
    data = dataset(given)
    assert data.num_episodes == len(data) == 10
    assert (data.obs == given.state).all()
    assert (data.next_obs == given.next_state).all()


@pytest.mark.parametrize("arm", [name for name, arm in ARMS.items() if arm.share])
def test_stacks_have_the_share_of_the_parameters_that_they_are_named_after(arm: str) -> None:
    stack, loop = ARMS[arm], parameters(NeighbourCell(ARMS["looped"].width))
    cells = stack.blocks * parameters(NeighbourCell(stack.width))
    assert abs(cells / loop / stack.share - 1) < 0.06


def test_cells_of_other_models_or_measurements_have_other_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell, asked = Cell(), study.Spending(Cell(), timed=True)
    cells, spent = {cell.name}, {asked.name}
    looped = replace(ARMS["looped"], measured=(8,))
    for module, name, value in (
        (extrapolation, "SNAPSHOTS", 3),
        (extrapolation, "TRAINED", 2),
        (extrapolation, "WIDTH", 16),
        (extrapolation, "ARMS", ARMS | {"looped": looped}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            cells.add(cell.name)
    assert len(cells) == 5
    for name, value in (("REGRET", 0.02), ("MOST", 16), ("TOLERANCES", (0.1,))):
        with monkeypatch.context() as patch:
            patch.setattr(study, name, value)
            spent.add(asked.name)
    assert len(spent) == 4


def test_guessing_the_mean_change_of_a_depth_errs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    test = sample_balanced(np.random.default_rng(0), 50, depths=(0, 3))
    model = make_model(ARMS["looped"], dataset(test), 0)

    def mean_change(_: object, given: Transitions, iterations: int) -> np.ndarray:
        change, guess = given.next_state - given.state, given.state.copy()
        for depth in np.unique(given.depth):
            guess[given.depth == depth] += change[given.depth == depth].mean(axis=0)
        return guess

    monkeypatch.setattr(extrapolation, "predicted", mean_change)
    found = errors(model, 8, test.rows(test.depth == 3), test)
    np.testing.assert_allclose(found["valid"], 1)
    np.testing.assert_allclose(list(found["depths"].values()), 1)
    monkeypatch.setattr(extrapolation, "predicted", lambda _, given, __: given.next_state)
    assert errors(model, 8, test, test)["valid"] == 0


def result(arm: str, seed: int, *points: tuple[float, float]) -> dict[str, Any]:
    checkpoints = [
        {"8": {"valid": valid, "depths": {str(d): far for d in range(9)}}} for valid, far in points
    ]
    return {"cell": {"arm": arm, "seed": seed}, "checkpoints": checkpoints}


def test_matched_checkpoints_are_the_ones_nearest_to_what_all_arms_reach() -> None:
    results = {
        "looped": result("looped", 0, (0.5, 1.0), (0.11, 0.4), (0.04, 0.3)),
        "small": result("small", 0, (0.6, 2.0), (0.1, 0.9), (0.12, 0.8)),
        "large": result("large", 0, (0.3, 1.5), (0.09, 0.7), (0.01, 0.1)),
    }
    found = matched(results, list(results), 8)
    assert {arm: each["valid"] for arm, each in found.items()} == {
        "looped": 0.11,
        "small": 0.1,
        "large": 0.09,
    }
    labels = {arm: arm.upper() for arm in results}
    sheet = ratio_sheet("", [found, found], labels, "looped")
    assert [row["model"] for row in sheet.rows] == ["SMALL", "LARGE"]
    np.testing.assert_allclose(sheet.rows[0]["depth_4"], 0.9 / 0.4)
    np.testing.assert_allclose(beyond(found["large"]), 0.7)


def test_the_sign_test_is_that_of_the_binomial() -> None:
    rng = np.random.default_rng(0)
    for share in (0.5, 0.53):
        signs = np.where(rng.random(5_000) < share, 1, -1) * rng.integers(0, 3, 5_000)
        up, down = int((signs > 0).sum()), int((signs < 0).sum())
        exact = stats.binomtest(up, up + down).pvalue
        assert spending.sign_test(signs) == pytest.approx(exact, rel=0.1)
    assert spending.sign_test(np.zeros(5, int)) == 1


def test_a_loop_that_counts_collisions_is_found_to_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def counts(_: object, given: Transitions, *__: object) -> tuple[np.ndarray, np.ndarray]:
        flight = CHAIN.advance(given.position, given.velocity)
        return flight.count, given.next_state

    given = sample_balanced(np.random.default_rng(0), 60, depths=range(1, 6))
    model = make_model(ARMS["looped"], dataset(given), 0)
    monkeypatch.setattr(spending, "spent", counts)
    for vanish in (1, 2):
        (row,) = spending.pair_rows(model, given, [OutputDelta()], vanish)
        assert row["fewer"] >= vanish
        assert (row["down"], row["up"], row["control"]) == (1, 0, 0)
        assert row["controls"] > 0
        assert row["p"] < 1e-9
    (row,) = spending.depth_rows(model, given, [OutputDelta()])
    ranks = [stats.rankdata(each) for each in (given.count, given.depth)]
    expected = np.corrcoef(ranks)[0, 1]
    np.testing.assert_allclose(row["raw"], expected, atol=1e-6)
    assert 0 < row["all"] < row["raw"]
    assert row["depth_5"] == given.count[given.depth == 5].mean()


def test_chains_that_a_move_has_spread_beyond_a_range_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[float] = []

    def notes(_: object, given: Transitions, *__: object) -> tuple[np.ndarray, np.ndarray]:
        seen.append(float(np.abs(given.position).max()))
        return given.count, given.next_state

    given = sample_balanced(np.random.default_rng(0), 60, depths=range(1, 6))
    model = make_model(ARMS["looped"], dataset(given), 0)
    monkeypatch.setattr(spending, "spent", notes)
    (free,) = spending.pair_rows(model, given, [OutputDelta()], 2)
    assert max(seen) > 3
    seen.clear()
    (row,) = spending.pair_rows(model, given, [OutputDelta()], 2, within=3.0)
    assert max(seen) <= 3
    assert 0 < row["pairs"] < free["pairs"]
    assert 0 < row["controls"] < free["controls"]


@pytest.mark.usefixtures("small")
def test_a_cell_repeats_and_its_model_is_kept(tmp_path: Path) -> None:
    cell = Cell(updates=4, batch=8, rows=200)
    first, second = (run_cell(cell, tmp_path / name) for name in "ab")
    assert first["checkpoints"] == second["checkpoints"]
    assert [each["update"] for each in first["checkpoints"]] == [2, 4]
    model = extrapolation.recall(cell, tmp_path / "a")
    again = errors(model, 8, extrapolation.shallow_set(), extrapolation.balanced_set())
    assert again == first["checkpoints"][-1]["8"]
    with pytest.raises(StoreError):
        extrapolation.recall(Cell(seed=5, rows=200), tmp_path / "a")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_whole_study_runs_and_goes_on_where_it_was(tmp_path: Path) -> None:
    options = Options(tmp_path / "work", figures=tmp_path / "figures")
    seeds, method, sheets = study.compute(options)
    assert seeds == (0,)
    assert method
    titles = [sheet.title for sheet in sheets]
    assert len(set(titles)) == len(titles)
    assert (tmp_path / "figures" / "ballchain.png").read_bytes().startswith(b"\x89PNG")
    for sheet in sheets:
        for row in sheet.rows:
            assert {column.key for column in sheet.columns} <= row.keys()
    lines: list[str] = []
    study.compute(Options(tmp_path / "work", report=lines.append))
    assert not [line for line in lines if " of " in line]


def test_stopping_early_is_compared_with_the_least_depth_that_errs_as_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = sample_balanced(np.random.default_rng(0), 20, depths=(1,))
    model = make_model(ARMS["looped"], dataset(given), 0)
    rule = spending.Calibration(OutputDelta(0.1), 9, 32, 0.01, ())

    def halving(
        _: object, given: Transitions, halt: OutputDelta | Fixed, most: int = 32
    ) -> tuple[np.ndarray, np.ndarray]:
        depth = 5 if isinstance(halt, OutputDelta) else halt.iterations
        off = model.stats.change_std * 0.5**depth
        return np.full(len(given), 4), given.next_state + off

    monkeypatch.setattr(halting, "spent", halving)
    row = halting.halting_row(model, rule, given)
    assert (row["equal"], row["iterations"]) == (5, 4.0)
    np.testing.assert_allclose([row["rmse"], row["equal_rmse"]], 0.5**5, rtol=1e-6)
    np.testing.assert_allclose(row["full"], 0.5**32, rtol=1e-3)
