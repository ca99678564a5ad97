"""Tables about the loop hold what its certificate and its iterations say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loopwm as lw
from loopwm.study.comparison import Group
from loopwm.study.efficiency import Cell
from loopwm.study.loops import certificates, models_of, ranges
from loopwm.study.windows import Sampling


def test_what_is_not_proven_is_left_empty(untrained: Any, world: Any) -> None:
    contractive = untrained(lw.WorldConfig(width=8, cell=lw.Contractive(rate=0.9)))
    sheet = certificates({"free": [untrained()], "proven": [contractive] * 2}, world.test)
    free, proven = sheet.rows
    assert free["rate"] is None
    middle, low, high = proven["rate"]
    assert low == middle == high <= 0.9 * (1 + 1e-6)
    assert proven["local_gain"][0] <= middle
    assert proven["state_norm"][0] <= proven["state_bound"][0]


def test_ranges_are_those_of_the_rows_and_errors_those_of_evaluation(
    untrained: Any, lived_by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(lw.WorldConfig(width=8, depth=lw.depth.Fixed(3), carry=False))
    data = lived_by(model)
    (row,) = ranges({"looped": [model]}, data).rows
    out = model.predict(data.obs, data.action, halt=lw.OutputDelta(0.05), max_iters=24)
    assert row["low"][0] == np.quantile(out.n_iters, 0.05)
    assert row["mean"][0] == pytest.approx(out.n_iters.mean())
    assert row["high"][0] == np.quantile(out.n_iters, 0.95)
    few = Sampling(ceiling_windows=0)
    once, twice = (
        lw.evaluate(model, data, (1, 15), halt=lw.Fixed(depth), sampling=few).rmse
        for depth in (3, 6)
    )
    assert row["twice"][0] == pytest.approx(twice[1] / once[1], rel=1e-5)
    assert row["far"][0] == pytest.approx(twice[15] / once[15], rel=1e-5)


def test_models_are_read_from_where_their_cells_left_them(untrained: Any, tmp_path: Path) -> None:
    model, cell = untrained(), Cell(task="linear", updates=7)
    model.save(tmp_path / "models" / cell.name)
    result = {"cell": {**vars(cell)}}
    (again,) = models_of(Group("looped", "looped", (result,), ()), tmp_path)
    np.testing.assert_array_equal(
        again.predict(np.zeros(3), np.zeros(2)).next_obs,
        model.predict(np.zeros(3), np.zeros(2)).next_obs,
    )
