"""The depth report holds what the model did, step by step, beside what the data say of the step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import loopwm as lw
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError
from loopwm.study.canvas import png
from loopwm.study.correlation import Correlation
from loopwm.study.depth import DepthReport, depth_report
from loopwm.study.plot import plot_depth
from loopwm.world.build import build


@pytest.fixture(scope="module")
def model(untrained: Any) -> Any:
    return untrained(lw.WorldConfig(width=8, depth=lw.depth.Fixed(3), carry=False))


@pytest.fixture(scope="module")
def data(model: Any, lived_by: Any) -> RolloutDataset:
    lived = lived_by(model)
    rng = np.random.default_rng(0)
    labels = {"difficulty/noise": rng.normal(size=len(lived))}
    out = model.predict(lived.obs, lived.action, halt=lw.OutputDelta(0.3), max_iters=6)
    labels["difficulty/known"] = out.n_iters + 0.1 * rng.normal(size=len(lived))
    labels["difficulty/known"][:5] = np.nan
    return replace(lived, info={**lived.info, **labels})


@pytest.fixture(scope="module")
def report(model: Any, data: RolloutDataset) -> DepthReport:
    return depth_report(model, data, lw.OutputDelta(0.3), 6)


def test_iterations_and_errors_are_those_of_prediction(
    model: Any, data: RolloutDataset, report: DepthReport
) -> None:
    data = replace(data)
    out = model.predict(data.obs[5:], data.action[5:], halt=lw.OutputDelta(0.3), max_iters=6)
    # Steps whose label is not a number are left out.
    assert report.steps == len(data) - 5
    assert report.mean == pytest.approx(out.n_iters.mean())
    assert sum(report.histogram) == report.steps
    assert report.histogram[2] == (out.n_iters == 2).sum()
    for depth in (1, 4, 6):
        fixed = model.predict(data.obs[5:], data.action[5:], halt=lw.Fixed(depth)).next_obs
        miss = (fixed - data.next_obs[5:]) / model.stats.obs_std
        error = report.by_depth[report.depths.index(depth)]
        assert error == pytest.approx(np.sqrt((miss**2).mean()), rel=1e-5)


def test_what_follows_the_iterations_is_found_and_what_does_not_is_not(
    model: Any, data: RolloutDataset, report: DepthReport
) -> None:
    out = model.predict(data.obs[5:], data.action[5:], halt=lw.OutputDelta(0.3), max_iters=6)
    known = stats.spearmanr(out.n_iters, data.info["difficulty/known"][5:])[0]
    assert report.raw["known"].value == pytest.approx(known)
    assert report.matched["known"].low > 0.5
    assert report.raw["noise"].low < 0 < report.raw["noise"].high
    miss = (out.next_obs - data.next_obs[5:]) / model.stats.obs_std
    error = stats.spearmanr(out.n_iters, np.sqrt((miss**2).mean(axis=1)))[0]
    assert report.raw["the model's own error"].value == pytest.approx(error, abs=1e-6)
    assert np.isnan(report.matched["speed"].value)


def test_tables_and_figure_show_the_report(report: DepthReport) -> None:
    errors, steps, related = report.sheets()
    assert len(errors.rows) == len(report.depths) + 1
    assert sum(float(row["share"].rstrip("%")) for row in steps.rows) == pytest.approx(100, abs=1)
    rows = {row["quantity"]: row for row in related.rows}
    assert rows["speed"]["matched"] is None
    assert rows["known"]["raw"][0] == report.raw["known"].value
    assert png(plot_depth(report, title="test"))[:4] == b"\x89PNG"


def test_of_an_ensemble_it_is_the_first_loop_beside_the_disagreement_of_all(
    model: Any, data: RolloutDataset, report: DepthReport, untrained: Any
) -> None:
    other = untrained(lw.WorldConfig(width=8, depth=lw.depth.Fixed(3), carry=False))
    with torch.no_grad():
        torch.nn.init.normal_(other.heads.change.weight, generator=torch.Generator().manual_seed(2))
    both = depth_report(lw.Ensemble([model, other]), data, lw.OutputDelta(0.3), 6)
    assert both.by_depth == report.by_depth
    assert both.raw.keys() - report.raw.keys() == {"disagreement"}
    used = slice(5, None)
    a, b = (m.predict(data.obs[used], data.action[used]).next_obs for m in (model, other))
    apart = (((a - b) / 2 / model.stats.change_std) ** 2).mean(axis=1)
    out = model.predict(data.obs[used], data.action[used], halt=lw.OutputDelta(0.3), max_iters=6)
    assert both.raw["disagreement"].value == pytest.approx(
        stats.spearmanr(out.n_iters, apart)[0], abs=1e-3
    )


def test_a_figure_without_a_correlation_at_matched_speed_is_drawn(report: DepthReport) -> None:
    unknown = Correlation(np.nan, np.nan, np.nan)
    bare = replace(report, matched=dict.fromkeys(report.matched, unknown))
    assert all(each.ends is None for each in bare.matched.values())
    assert png(plot_depth(bare))[:4] == b"\x89PNG"


def test_a_world_of_one_observed_number_is_reported_too(world: Any) -> None:
    flat = world.test.keep_obs([0])
    config = lw.WorldConfig(width=8, depth=lw.depth.Fixed(3), carry=False)
    model = build(config, flat.meta, Statistics.of(flat), 0).requires_grad_(False).eval()
    report = depth_report(model, flat, lw.OutputDelta(0.3), 6)
    out = model.predict(flat.obs, flat.action, halt=lw.OutputDelta(0.3), max_iters=6)
    miss = (out.next_obs - flat.next_obs) / model.stats.obs_std
    assert report.rmse == pytest.approx(np.sqrt((miss**2).mean()), rel=1e-5)
    assert report.mean == pytest.approx(out.n_iters.mean())


def test_what_cannot_be_reported_is_refused(
    model: Any, data: RolloutDataset, untrained: Any
) -> None:
    with pytest.raises(ConfigError, match="no looped core"):
        depth_report(untrained(lw.MLP(width=8)), data)
    missing = {"difficulty/known": np.full(len(data), np.nan)}
    with pytest.raises(DataError, match="got 0"):
        depth_report(model, replace(data, info=missing))
