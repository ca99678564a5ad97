"""A model's certificate holds over whole imagined lives, and says where nothing is proven."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.core.anderson import Anderson
from loopwm.core.certificate import local_gain
from loopwm.core.config import PostNorm
from loopwm.errors import ConfigError, DataError
from loopwm.world.proof import _injection


def wild(model: Any, scale: float) -> Any:
    with torch.no_grad():
        for parameter in model.dynamics.parameters():
            parameter.mul_(scale)
    return model


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")  # of 10,000 steps alike
# Not of post-norm cells, each of whose refinements ends within the bound, wherever it began.
@pytest.mark.parametrize("kind", ["looped", "looped, renewal", "looped, contractive"])
def test_ten_thousand_steps_of_latent_carry_stay_within_the_bound(make, kinds, data, kind):
    model = wild(make(kinds[kind], data), 30.0)
    proof = model.certificate()
    assert proof.state_bound is not None
    far = data.obs[:4] + 100 * data.obs.std(axis=0)
    state = model.start(np.concatenate([data.obs[:4], far]))
    actions = torch.as_tensor(model.normaliser.action(torch.as_tensor(data.action)))
    largest = 0.0
    with torch.no_grad():
        for t in range(10_000):
            action = actions[t % len(actions)].expand(8, -1)
            out = model.advance(state, action, model.plan(lw.Fixed(2)))
            state = model.next_state(state, state[0], torch.zeros_like(state[1]), out.carry)
            largest = max(largest, float(state[3].norm(dim=-1).max()))
    assert 0 < largest <= proof.state_bound * (1 + 1e-9)


def test_the_rate_is_that_of_the_configuration_and_above_what_is_measured(make, kinds, data):
    model = make(kinds["looped, contractive"], data)
    for proof in (model.certificate(), model.certificate(data.obs[:20], data.action[:20])):
        assert proof.rate == pytest.approx(0.9, rel=1e-9)
        assert 0 < proof.local_gain <= proof.rate
        assert proof.dtype == "float64"
        assert 0 < proof.state_norm <= proof.state_bound
        assert any("clipped at 10" in each for each in proof.assumptions)


def test_two_beginnings_meet_at_the_same_prediction(make, kinds, data):
    model = make(kinds["looped, contractive"], data)
    state = model.start(data.obs[:8])
    other = (*state[:3], state[3] + 50.0)
    e = model.dynamics.injection((state[3],), model.shown(state, torch.zeros(8, 2).double()))
    with torch.no_grad():
        one, two = (model.core((each[3],), e, 400).state[0] for each in (state, other))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_of_the_bounded_cell_no_rate_is_proven(make, kinds, data):
    proof = make(kinds["looped"], data).certificate()
    assert proof.rate is None
    assert proof.slack is None
    assert proof.local_gain > 0
    assert "nothing proven" in str(proof)


def test_of_the_post_norm_cell_a_bound_is_proven_that_needs_nothing_of_the_input(make, kinds, data):
    model = make(kinds["looped, post-norm"], data)
    model.dynamics.origin.data.zero_()
    proof = model.certificate()
    assert proof.cell == "PostNormCell"
    assert (proof.rate, proof.slack) == (None, None)
    assert proof.state_bound == pytest.approx(8**0.5)
    assert proof.assumptions == ("exact arithmetic",)
    assert 0 < proof.state_norm <= proof.state_bound
    # The gain is that of the Jacobian, found column by column.
    carry, shown = (torch.randn(1, 1, 8).double(),), torch.randn(1, 6).double()
    e = model.dynamics.injection(carry, shown)
    columns = torch.autograd.functional.jacobian(lambda h: model.core.refine(h, e), carry[0])
    true = float(torch.linalg.matrix_norm(columns.reshape(8, 8), 2))
    assert float(local_gain(model.core.cell, carry[0], e, steps=300)) == pytest.approx(true)
    with pytest.raises(ConfigError, match=r"Certified needs a proven rate.*Contractive"):
        model.predict(data.obs[:4], data.action[:4], halt=lw.Certified())


def test_a_bound_that_needs_nothing_of_the_input_holds_with_an_encoder_of_ones_own(make, data):
    own = {"width": 8, "encoder": lambda inputs, width: torch.nn.Linear(inputs, width)}
    for cell in (PostNorm(None, multiple=4), lw.Bounded(gain=1.0)):
        assert make(lw.WorldConfig(**own, cell=cell), data).certificate().state_bound is not None


def test_an_encoder_of_ones_own_leaves_the_state_unbounded(make, kinds, data):
    proof = make(kinds["looped, own modules"], data).certificate()
    assert proof.state_bound is None
    assert proof.state_norm > 0


def test_actions_without_bounds_leave_the_state_unbounded(make, kinds, data, discrete_data):
    endless = replace(data.meta, action_low=(-1.0, -np.inf), action_high=(1.0, np.inf))
    free = replace(data, meta=endless)
    proof = make(kinds["looped"], free).certificate()
    assert (proof.state_bound, proof.slack) == (None, None)
    # Cells whose bound needs nothing of the input, and actions that are indices, keep theirs.
    assert make(kinds["looped, renewal"], free).certificate().state_bound is not None
    assert make(kinds["looped"], discrete_data).certificate().state_bound is not None


def test_a_bound_is_computed_where_the_weights_are(make, kinds, data):
    model = make(kinds["looped"], data)
    bound = _injection(model, model.dynamics)
    # On "meta" nothing can be mixed with the weights.
    with torch.device("meta"):
        assert _injection(model, model.dynamics) == bound


def test_a_proof_of_the_plain_loop_is_not_given_to_a_solver(make, kinds, data):
    model = make(kinds["looped, contractive"], data)
    obs, action = data.obs[:4], data.action[:4]
    assert model.predict(obs, action, halt=lw.Certified(), max_iters=200).settled.all()
    model.core.solver = Anderson()
    with pytest.raises(ConfigError, match=r"set core\.solver to None, or stop by OutputDelta"):
        model.predict(obs, action, halt=lw.Certified(), max_iters=200)


def test_of_states_that_are_a_solvers_nothing_is_stated(make, data):
    config = lw.WorldConfig(width=8, cell=lw.Contractive(rate=0.7))
    flow = lw.depth.Flow(method="euler", step=1.0)
    solved, flowing = make(config, data), make(replace(config, depth=flow), data)
    assert None not in (solved.certificate().rate, solved.certificate().state_bound)
    solved.core.solver = Anderson()
    for proof in (solved.certificate(), flowing.certificate()):
        assert (proof.rate, proof.state_bound, proof.slack) == (None, None, None)
        assert any("solver" in each for each in proof.assumptions)
        assert proof.local_gain > 0
        assert proof.state_norm > 0


def test_where_the_injection_enters_once_the_gain_is_that_of_the_loop_without_it(make, kinds, data):
    model = make(kinds["looped, injected once"], data)
    obs, action = torch.as_tensor(data.obs[:9]), torch.as_tensor(data.action[:9])
    state, _ = model.step(model.start(obs), action)
    after, _ = model.step(state, action)
    e = model.dynamics.injection(state[3:], model.shown(state, model.normaliser.action(action)))
    under, without = (
        float(local_gain(model.core.cell, after[3], each).max()) for each in (e, 0 * e)
    )
    assert model.certificate(obs, action).local_gain == pytest.approx(without, rel=1e-9)
    assert under != pytest.approx(without)


def test_discrete_actions_are_measured_as_the_model_meets_them(make, kinds, discrete_data):
    model, seen = make(kinds["looped"], discrete_data), []
    model.dynamics.enter.register_forward_hook(lambda _, x, out: seen.append(x[0][:, -5:-1]))
    model.certificate()
    for action in seen:
        assert ((action == 0) | (action == 1)).all()
        assert (action.sum(1) == 1).all()
        assert (action.sum(0) > 0).all()


@pytest.mark.parametrize("kind", ["MLP", "GRU", "untied"])
def test_of_a_model_without_a_loop_nothing_is_claimed(make, kinds, data, kind):
    proof = make(kinds[kind], data).certificate()
    assert (proof.rate, proof.state_bound, proof.local_gain) == (None, None, None)
    assert proof.assumptions == ("no loop: nothing is repeated",)


def test_a_certificate_leaves_the_model_as_it_was(make, kinds, data):
    model = make(kinds["looped, contractive"], data).train()
    before = model.predict(data.obs[:4], data.action[:4]).next_obs
    model.certificate()
    assert model.core.cell.training
    np.testing.assert_array_equal(model.predict(data.obs[:4], data.action[:4]).next_obs, before)


def test_half_of_what_is_needed_to_measure_is_refused(make, kinds, data):
    model = make(kinds["looped"], data)
    with pytest.raises(ConfigError, match="obs and action, or neither"):
        model.certificate(obs=data.obs[:4])
    with pytest.raises(DataError, match="action has 3 rows"):
        model.certificate(data.obs[:4], data.action[:3])


def test_a_contractive_model_trains_saves_and_keeps_its_proof(data, tmp_path):
    config = lw.WorldConfig(width=8, cell=lw.Contractive(rate=0.8))
    quick = lw.FitConfig(updates=60, batch_size=32, progress=False)
    model = lw.fit(data, config, quick)
    assert isinstance(model, lw.WorldModel)
    model.save(tmp_path / "model")
    again = lw.load(tmp_path / "model")
    assert isinstance(again, lw.WorldModel)
    assert again.config == config
    assert again.certificate() == model.certificate()
    errors = [each["error"] for each in model.history if "error" in each]
    rate = model.certificate().rate
    assert rate is not None
    assert 0.4 < rate <= 0.8 * (1 + 1e-5)
    assert all(np.isfinite(errors))


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_a_certified_stop_is_as_close_to_the_fixed_point_as_it_says(make, data, rate):
    model = make(lw.WorldConfig(width=8, cell=lw.Contractive(rate=rate)), data)
    obs, action = data.obs[:60], data.action[:60]
    settled = model.predict(obs, action, halt=lw.Fixed(2000)).next_obs / model.stats.change_std
    counts = []
    for tol in (0.3, 0.03, 0.003):
        out = model.predict(obs, action, halt=lw.Certified(tol), max_iters=500)
        error = np.sqrt(np.mean((out.next_obs / model.stats.change_std - settled) ** 2, axis=1))
        assert out.settled.all()
        assert (error <= tol).all()
        counts.append(float(out.n_iters.mean()))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_certified_stop_needs_a_proof(make, kinds, data):
    model = make(kinds["looped"], data)
    with pytest.raises(ConfigError, match=r"Certified needs a proven rate.*Contractive"):
        model.predict(data.obs[:4], data.action[:4], halt=lw.Certified())
    own = lw.WorldConfig(
        width=8, cell=lw.Contractive(), heads={"change": lambda d, out: torch.nn.Linear(d, out)}
    )
    assert make(own, data).predict(data.obs[:4], data.action[:4], halt=lw.Certified()) is not None
    half = make(lw.WorldConfig(width=8, cell=lw.Contractive()), data).bfloat16()
    with pytest.raises(ConfigError, match="proves nothing in bfloat16"):
        half.predict(data.obs[:4], data.action[:4], halt=lw.Certified())
    with pytest.raises(ConfigError, match="tol must be above 0"):
        lw.Certified(tol=0)
    with pytest.raises(ConfigError, match="patience must be at least 1"):
        lw.Certified(patience=0)
    with pytest.raises(ConfigError, match="needs a proven rate"):
        lw.Certified().signal(torch.zeros(1, 1, 8), None)
