"""The study of stopping early on chains: it runs, resumes, and its controls are what they say."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopwm.core.halt import Fixed, OutputDelta
from loopwm.study.calibrate import Calibration
from loopwm.study.recipe import Options
from loopwm.train.config import Muon
from loopwm.world.model import WorldModel
from loopwm_envs import halting, stopping, stopping_study
from loopwm_envs.extrapolation import CHAIN, dataset
from loopwm_envs.spending import spent
from loopwm_envs.stopping import Cell, make_model, measured
from loopwm_envs.transitions import Transitions, sample_transitions

SMALL = {"updates": 4, "batch": 8, "rows": 300, "width": 8, "expand": 2}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the study so small that it runs in seconds."""
    monkeypatch.setattr(stopping_study, "SEEDS", (0, 1))
    monkeypatch.setattr(stopping, "ROWS", 400)
    monkeypatch.setattr(stopping, "PER_DEPTH", 8)
    monkeypatch.setattr(stopping, "VANISH", (1,))
    monkeypatch.setattr(stopping, "STAGES", ((2,), (3, 5)))
    monkeypatch.setattr(stopping_study, "Cell", partial(Cell, **SMALL))
    monkeypatch.setattr(halting, "BATCHES", (500,))
    # An untrained loop need not settle, and then no tolerance is loose enough.
    monkeypatch.setattr(stopping, "REGRETS", (9.0, 10.0))


def drawn(rows: int) -> Transitions:
    return sample_transitions(np.random.default_rng(3), rows, CHAIN)


def test_the_study_runs_and_a_finished_part_is_not_computed_again(small, tmp_path: Path):
    options = Options(work=tmp_path, figures=tmp_path / "figures")
    seeds, method, sheets = stopping_study.compute(options)
    assert seeds == (0, 1)
    assert method == stopping_study.METHOD
    outcomes, depths, related, pairs, seconds, sizes = sheets
    ways = [row["way"] for row in outcomes.rows]
    assert ways[-6:-2] == [*("OutputDelta, 900%", "random", "oracle", "tested once or twice, 900%")]
    assert [row["depth"] for row in depths.rows] == list(range(9))
    assert 0.9 < sum(row["share"] for row in depths.rows) <= 1
    assert [row["tol"][0] for row in related.rows][1:] == [0.05]
    assert [row["vanish"] for row in pairs.rows] == [1, 1]
    assert [row["batch"] for row in seconds.rows] == [500] * 4
    assert all(row["faster"][0] > 0 for row in seconds.rows)
    assert sizes.rows[0]["parameters"] > 0
    assert (tmp_path / "figures" / "ballchain-stopping.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((tmp_path / "ballchain" / "running").iterdir())
    begun: list[str] = []
    stopping_study.compute(Options(work=tmp_path, report=begun.append))
    assert not begun


def test_weights_that_are_kept_are_measured_without_training(small, tmp_path: Path, monkeypatch):
    cell = Cell(**SMALL)
    first = stopping.run_cell(cell, tmp_path)
    monkeypatch.setattr(stopping, "train", None)
    again = stopping.run_cell(cell, tmp_path)
    assert again["outcomes"] == first["outcomes"]
    assert again["depths"] == first["depths"]


def stops_at(tol: float, most: int = 16) -> Calibration:
    """Return a rule that nothing was calibrated for."""
    return Calibration(OutputDelta(tol), most, 16, 0.01, ())


def untrained() -> WorldModel:
    model = make_model(Cell(**SMALL), dataset(drawn(300)))
    return model.requires_grad_(False).eval()


def test_controls_are_those_of_a_plain_loop_over_rows():
    test, model = drawn(150), untrained()
    rules = {"OutputDelta": stops_at(0.003), "staged": stops_at(0.03)}
    found, equal = measured(model, test, rules)
    squares = np.empty((24, len(test)))
    for depth in range(1, 25):
        predicted = spent(model, test, Fixed(depth))[1]
        for row in range(len(test)):
            error = (predicted[row] - test.next_state[row]) / model.stats.change_std
            squares[depth - 1, row] = np.mean(error**2)
    errors = np.sqrt(squares.mean(axis=1))
    assert found["fixed 7"] == pytest.approx((7, errors[6]))
    for name, rule in rules.items():
        assert isinstance(rule.halt, OutputDelta)
        count = spent(model, test, rule.halt, rule.max_iters)[0]
        assert len(np.unique(count)) > 2
        own = np.sqrt(np.mean([squares[each - 1, row] for row, each in enumerate(count)]))
        assert found[name] == pytest.approx((count.mean(), own), rel=1e-5)
        near = [depth for depth in range(1, 25) if errors[depth - 1] <= 1.01 * own]
        assert equal[name] == near[0]
    count = spent(model, test, OutputDelta(0.003), 16)[0]
    chosen = found["oracle"]
    assert chosen[0] <= count.mean()
    assert chosen[1] < found["OutputDelta"][1]
    # Dealt to other rows: as many of each number, and another error.
    assert found["random"][0] == pytest.approx(count.mean())
    assert found["random"][1] != pytest.approx(found["OutputDelta"][1], rel=1e-6)


def test_a_rule_better_than_every_depth_is_set_beside_the_best_of_them(
    monkeypatch: pytest.MonkeyPatch,
):
    test, model = drawn(60), untrained()

    def knows(_: object, given: Transitions, halt: object, *__: int) -> tuple[Any, Any]:
        off = 1 / halt.iterations if isinstance(halt, Fixed) else 0
        return np.full(len(given), 3), given.next_state + off * model.stats.change_std

    monkeypatch.setattr(stopping, "spent", knows)
    found, equal = measured(model, test, {"OutputDelta": stops_at(0.003)})
    assert found["fixed 4"] == pytest.approx((4, 0.25))
    assert found["OutputDelta"] == pytest.approx((3, 0), abs=1e-9)
    assert equal["OutputDelta"] == 24


def test_iterations_are_counted_up_to_the_rules_most(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stopping, "PER_DEPTH", 6)
    monkeypatch.setattr(stopping, "VANISH", (1,))
    found = stopping.followed(untrained(), stops_at(1e-6, most=4))
    assert found["related"][0]["depth_3"] == found["pairs"][0]["before"] == 4


def test_a_wider_gated_layer_has_its_share_of_weights_and_starts_no_other_latent():
    data = dataset(drawn(300))
    narrow, wide = (
        make_model(Cell(**SMALL | {"expand": expand}), data).state_dict() for expand in (1, 3)
    )
    assert wide["dynamics.core.cell.from_state.weight"].shape == (2 * 3 * 8, 3 * 8)
    assert wide["dynamics.core.cell.leave.weight"].shape == (8, 3 * 8)
    torch.testing.assert_close(narrow["dynamics.enter.weight"], wide["dynamics.enter.weight"])


def test_cells_of_other_settings_have_other_names_and_weights_those_of_their_training(
    monkeypatch: pytest.MonkeyPatch,
):
    cells = (Cell(), Cell(seed=1), Cell(expand=2), Cell(width=32))
    assert len({cell.name for cell in cells}) == len({cell.model for cell in cells}) == 4
    name, weights = Cell().name, Cell().model
    monkeypatch.setattr(stopping, "LIMIT", 12)
    assert (Cell().name != name, Cell().model) == (True, weights)
    monkeypatch.setattr(stopping, "Muon", lambda: Muon(momentum=0.5))
    assert Cell().model != weights
