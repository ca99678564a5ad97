"""The lines that the README shows first, on real rollouts."""

from pathlib import Path

import numpy as np
import pytest

import loopwm as lw

QUICK = lw.FitConfig(updates=3, batch_size=16, seed=0)


@pytest.mark.parametrize("config", [lw.WorldConfig(width=16), lw.MLP(width=16, depth=2)])
def test_a_model_of_real_rollouts_is_the_same_after_saving_and_loading(
    config: lw.WorldConfig | lw.MLP, hopper: lw.RolloutDataset, tmp_path: Path
):
    train, test = hopper.split(0.9, seed=0)
    model = lw.fit(train, config, QUICK)
    model.save(tmp_path / "model")
    again = lw.load(tmp_path / "model")
    obs, action = test.obs[:5], test.action[:5]
    before, after = model.predict(obs, action), again.predict(obs, action)
    np.testing.assert_array_equal(before.next_obs, after.next_obs)
    np.testing.assert_array_equal(before.reward, after.reward)
    assert not [file for file in (tmp_path / "model").rglob("*") if file.suffix in {".pt", ".pkl"}]


def test_the_same_seed_trains_the_same_model(pendulum: lw.RolloutDataset):
    first, second = (lw.fit(pendulum, lw.WorldConfig(width=16), QUICK) for _ in range(2))
    obs, actions = pendulum.obs[:2], np.stack([pendulum.action[:4], pendulum.action[4:8]])
    np.testing.assert_array_equal(first.imagine(obs, actions).obs, second.imagine(obs, actions).obs)


def test_evaluation_reports_every_horizon_with_its_interval(pendulum: lw.RolloutDataset):
    train, test = pendulum.split(0.7, seed=0)
    report = lw.evaluate(lw.fit(train, lw.WorldConfig(width=16), QUICK), test, horizons=(1, 5))
    for k in (1, 5):
        low, high = report.interval[k]
        # One test episode leaves nothing to resample: both ends are the RMSE, but for rounding.
        assert low == pytest.approx(report.rmse[k]) == high
        assert low > 0
