"""The study of depth labels steps of every part and correlates what the reports correlate."""

import numpy as np
import pytest

import loopwm as lw
from loopwm.data.normalise import Statistics
from loopwm.study.depth import depth_report
from loopwm.study.registry import find_recipe
from loopwm.study.windows import Sampling
from loopwm.world.build import build
from loopwm_envs import depth_study
from loopwm_envs.depth_study import labelled, sheets


@pytest.fixture(scope="module")
def data() -> lw.RolloutDataset:
    return labelled("HalfCheetah-v5", 320)


def test_every_part_is_labelled(data: lw.RolloutDataset) -> None:
    assert data.meta.parts == ("excitation", "early", "middle", "late")
    np.testing.assert_array_equal(np.bincount(data.info["part"]), [80] * 4)
    impulse = data.info["difficulty/impulse"]
    assert np.isfinite(impulse).all()
    assert impulse.std() > 0


def test_correlations_are_those_of_the_reports_of_each_seed(data: lw.RolloutDataset) -> None:
    models = [
        build(lw.WorldConfig(width=8), data.meta, Statistics.of(data), seed).requires_grad_(False)
        for seed in range(2)
    ]
    over_seeds, first, errors = sheets(models, data)
    whole = Sampling(max_windows=len(data))
    reports = [depth_report(model, data, depth_study.RULE, sampling=whole) for model in models]
    rows = {row["quantity"]: row for row in over_seeds.rows}
    for name in ("the model's own error", "impulse"):
        values = [report.beyond[name].value for report in reports]
        middle, low, high = rows[name]["beyond"]
        assert (low, high) == pytest.approx((min(values), max(values)))
        assert middle == pytest.approx(sum(values) / 2)
    assert first.title.startswith("first seed")
    assert len(errors.rows) == 2 * models[0].depth.typical + 1
    assert rows["disagreement"]["raw"] is not None


def test_both_tasks_are_declared() -> None:
    assert find_recipe("depth-hopper", {}) is depth_study.HOPPER
    assert find_recipe("depth-halfcheetah", {}) is depth_study.HALFCHEETAH
