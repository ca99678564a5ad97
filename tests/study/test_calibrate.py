"""The calibrated tolerance loses what was allowed and no more; the gate predicts what is left."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.core.gate import Gate
from loopwm.core.gate import features as gate_features
from loopwm.errors import ConfigError, DataError
from loopwm.study.calibrate import TIGHTEST, Tried
from loopwm.study.gate import fit_gate
from loopwm.study.trace import real_states, trace
from loopwm.study.windows import Sampling

FEW = Sampling(max_windows=80, ceiling_windows=0)


@pytest.mark.parametrize("rule", [lw.OutputDelta(), lw.Residual(patience=2)], ids=repr)
def test_the_loosest_tolerance_that_keeps_the_regret_is_chosen(
    world: Any, untrained: Any, lived_by: Any, rule: Any
) -> None:
    model = untrained()
    data = lived_by(model)
    chosen = lw.calibrate(model, data, 0.05, rule=rule, horizons=(1, 5), sampling=FEW)
    full = lw.evaluate(model, data, (1, 5), sampling=FEW, halt=lw.Fixed(8))
    early = lw.evaluate(
        *(model, data, (1, 5)), sampling=FEW, halt=chosen.halt, max_iters=chosen.max_iters
    )
    for k in (1, 5):
        assert early.rmse[k] / full.rmse[k] == pytest.approx(chosen.tried[-1].ratio[k], rel=1e-6)
        assert early.rmse[k] <= 1.05 * full.rmse[k]
        assert early.iterations[k] == pytest.approx(chosen.tried[-1].iterations[k])
    assert [max(each.ratio.values()) > 1.05 for each in chosen.tried[:-1]] == (
        [True] * (len(chosen.tried) - 1)
    )
    assert chosen.halt == chosen.tried[-1].halt == replace(rule, tol=chosen.halt.tol)
    # An eighth of an octave looser, and it would not have done.
    looser = chosen.tried[-2].halt
    assert not isinstance(looser, lw.Fixed)
    assert 1 < looser.tol / chosen.halt.tol < 1.1
    assert 1 < chosen.max_iters <= chosen.reference == 8
    capped, less = (
        lw.evaluate(model, data, (1, 5), sampling=FEW, halt=lw.Fixed(depth))
        for depth in (chosen.max_iters, chosen.max_iters - 1)
    )
    assert all(capped.rmse[k] <= 1.025 * full.rmse[k] for k in (1, 5))
    assert any(less.rmse[k] > 1.025 * full.rmse[k] for k in (1, 5))
    assert 0 < chosen.saved < 1
    assert str(chosen).count("\n") == len(chosen.tried) + 1


def test_iterations_of_the_steps_that_follow_the_first_are_calibrated_too(
    world: Any, untrained: Any, lived_by: Any
) -> None:
    model = untrained(lw.WorldConfig(width=16))
    data = lived_by(model)
    chosen = lw.calibrate(model, data, 0.05, rule=lw.Fixed(), horizons=(1, 5), sampling=FEW)
    every = lw.calibrate(model, data, 0.05, horizons=(1, 5), sampling=FEW)
    assert isinstance(chosen.halt, lw.Fixed)
    assert chosen.halt.first == chosen.max_iters == every.max_iters
    assert 1 <= chosen.halt.iterations < chosen.max_iters
    full = lw.evaluate(model, data, (1, 5), sampling=FEW, halt=lw.Fixed(8))
    few = lw.evaluate(model, data, (1, 5), sampling=FEW, **chosen.options)
    assert all(few.rmse[k] <= 1.05 * full.rmse[k] for k in (1, 5))
    assert few.iterations[5] == pytest.approx((chosen.max_iters + 4 * chosen.halt.iterations) / 5)
    # One iteration less in the steps that follow would lose too much.
    assert max(chosen.tried[-2].ratio.values()) > 1.05
    assert "first" in str(chosen)
    assert f"then {chosen.halt.iterations}" in str(chosen)


def test_steps_that_need_as_many_as_the_first_get_as_many(
    world: Any, untrained: Any, lived_by: Any
) -> None:
    model = untrained(lw.WorldConfig(width=16))
    few = Sampling(max_windows=20, ceiling_windows=0)
    chosen = lw.calibrate(
        model, lived_by(model), 1e-6, rule=lw.Fixed(), horizons=(1, 5), sampling=few
    )
    assert chosen.halt == lw.Fixed(chosen.max_iters, first=chosen.max_iters)


def test_a_larger_regret_needs_fewer_iterations(world: Any, untrained: Any, lived_by: Any) -> None:
    model = untrained()
    data = lived_by(model)
    saved = [
        lw.calibrate(model, data, regret, horizons=(1, 5), sampling=FEW).saved
        for regret in (2.0, 0.1, 0.001)
    ]
    assert saved == sorted(saved, reverse=True)
    assert saved[0] > saved[-1]


def test_certified_rules_are_calibrated_where_something_is_proven(
    world: Any, untrained: Any, lived_by: Any
) -> None:
    config = lw.WorldConfig(width=16, cell=lw.Contractive(rate=0.5))
    chosen = lw.calibrate(
        untrained(config), world.test, rule=lw.Certified(), horizons=(1,), sampling=FEW
    )
    assert chosen.halt.tol > TIGHTEST
    with pytest.raises(ConfigError, match="proven rate"):
        lw.calibrate(untrained(), world.test, rule=lw.Certified(), horizons=(1,))


def test_what_cannot_be_calibrated_is_refused(world: Any, untrained: Any, lived_by: Any) -> None:
    model = untrained()
    with pytest.raises(ConfigError, match="regret must be above 0, got 0"):
        lw.calibrate(model, world.test, 0.0)
    with pytest.raises(ConfigError, match="no looped core"):
        lw.calibrate(untrained(lw.MLP(width=8)), world.test)
    with pytest.raises(ConfigError, match="needs a step that follows the first"):
        lw.calibrate(model, world.test, rule=lw.Fixed(), horizons=(1,))
    with pytest.raises(ConfigError, match=r"ensemble of 2.*one of its members"):
        lw.calibrate(lw.Ensemble([model, model]), world.test)
    with pytest.raises(DataError, match=r"\[500\] steps"):
        lw.calibrate(model, world.test, horizons=(1, 500))
    # A rule that always lets go after one iteration never gets there.
    hasty = Gate(torch.eye(1, 19)[0] * -100, 3)
    with pytest.raises(ConfigError, match=r"regret=0.01; allow more"):
        lw.calibrate(model, lived_by(model), rule=hasty, sampling=FEW, horizons=(1,))


@pytest.mark.parametrize("spoilt", [np.inf, np.nan])
def test_of_an_error_that_is_not_finite_no_share_can_be_lost(
    world: Any, untrained: Any, spoilt: float
) -> None:
    model = untrained(lw.WorldConfig(width=16, carry=False, margin=None))
    model.heads.change.bias.data.fill_(spoilt)
    with pytest.raises(DataError, match=r"no share can be lost at \[1\] steps"):
        lw.calibrate(model, world.test, horizons=(1,), sampling=FEW)


def test_where_one_horizon_has_no_ratio_no_loss_is_known() -> None:
    for ratio in ({1: 1.0, 5: np.nan}, {1: np.nan, 5: 1.0}):
        assert np.isnan(Tried(lw.OutputDelta(), {1: 2.0, 5: 2.0}, ratio).loss)


def test_a_trace_is_what_inference_decodes_at_each_depth(
    world: Any, untrained: Any, lived_by: Any
) -> None:
    model = untrained()
    rows = np.arange(3, 6)
    state, action = real_states(model, world.test, rows, 3)
    features = trace(model, state, action, 4)
    for t in range(1, 5):
        _, out = model.step(state, action, halt=lw.Fixed(t))
        moved = model.moved(state[0], features[t - 1])
        held = model.normaliser.restore_obs(model.held(moved, state[0]))
        torch.testing.assert_close(out.next_obs, held)


def test_a_fitted_gate_predicts_what_the_loop_still_changes(
    world: Any, untrained: Any, lived_by: Any
) -> None:
    model = untrained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gate = fit_gate(model, world.train, tol=0.1, max_iters=12, sampling=FEW)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    rows = np.arange(0, 30)
    features = trace(model, *real_states(model, world.test, rows, 1), 12)
    decoded = model.heads.change(features)
    left = (decoded[-1] - decoded[1:-1]).square().mean(-1).sqrt().log()
    signal = torch.cat([decoded, features], dim=-1)
    predicted = gate_features(signal[1:-1], signal[:-2], model.obs_dim) @ gate.weight
    together = np.corrcoef(predicted.flatten().numpy(), left.flatten().numpy())[0, 1]
    # Rows of a linear map this small settle much alike: what is told apart is iterations.
    assert together > 0.8
    out = model.predict(world.test.obs[:30], world.test.action[:30], halt=gate, max_iters=12)
    assert 1 < out.n_iters.mean() < 12


def test_a_gate_is_fitted_to_steps_that_stand_alone(untrained: Any, lived_by: Any) -> None:
    model = untrained()
    data = lived_by(model)
    alone = lw.RolloutDataset.from_arrays(
        obs=data.obs[:60],
        action=data.action[:60],
        reward=data.reward[:60],
        next_obs=data.next_obs[:60],
        terminated=np.zeros(60, bool),
        truncated=np.ones(60, bool),
        meta=data.meta,
    )
    gate = fit_gate(model, alone, max_iters=6, sampling=FEW)
    assert gate.weight.isfinite().all()
