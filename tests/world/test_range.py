"""Imagination that is fed back stays where the training data were, whatever the weights."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import loopwm as lw
from loopwm.data.normalise import Statistics
from loopwm.errors import ConfigError
from loopwm.world.normaliser import Normaliser

REPEATABLE = settings(max_examples=50, deadline=None, derandomize=True, database=None)
MODELS = ["looped", "MLP", "untied", "GRU"]


def reach(data: Any, margin: float) -> tuple[np.ndarray, np.ndarray]:
    both = np.concatenate([data.obs, data.next_obs])
    low, high, std = both.min(axis=0), both.max(axis=0), data.obs.std(axis=0)
    width = np.maximum(high - low, std)
    return low - margin * width, high + margin * width


def wild(model: Any, scale: float) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scale", [3.0, 1e3])
@pytest.mark.usefixtures("without_shape_checks")  # of a thousand steps alike
def test_a_thousand_steps_of_wild_weights_stay_in_reach(make, kinds, data, name, scale):
    model = wild(make(kinds[name], data), scale)
    obs = data.obs[::40]
    actions = np.tile(data.action[:10], (len(obs), 100, 1))
    held = model.imagine(obs, actions).obs
    low, high = reach(data, 0.1)
    slack = 1e-5 * (high - low)
    assert np.isfinite(held).all()
    assert (held >= low - slack).all()
    assert (held <= high + slack).all()
    model.margin = None
    free = model.imagine(obs, actions).obs
    assert not ((free >= low - slack) & (free <= high + slack)).all()


def test_what_stays_in_the_range_is_not_touched(make, kinds, data):
    model = make(kinds["looped"], data)
    held = model.predict(data.obs, data.action).next_obs
    model.margin = None
    free = model.predict(data.obs, data.action).next_obs
    low, high = reach(data, 0.1)
    inside = ((free > low) & (free < high)).all(axis=1)
    assert inside.sum() > len(data) / 2
    np.testing.assert_array_equal(held[inside], free[inside])


def test_latent_imagination_is_not_held(make, kinds, data):
    model = wild(make(kinds["looped"], data), 3.0)
    obs, actions = data.obs[:4], np.tile(data.action[:10], (4, 5, 1))
    held = model.imagine(obs, actions, feedback="latent").obs
    model.margin = None
    np.testing.assert_array_equal(held, model.imagine(obs, actions, feedback="latent").obs)


def test_steps_one_by_one_are_held_as_imagination_is(make, kinds, data):
    model = wild(make(kinds["looped"], data), 3.0)
    obs, actions = data.obs[:4], data.action[np.arange(4)[:, None] + np.arange(6)]
    state, seen = model.start(obs), []
    for k in range(6):
        state, out = model.step(state, actions[:, k])
        seen.append(out.next_obs)
    np.testing.assert_allclose(np.stack(seen, 1), model.imagine(obs, actions).obs, rtol=1e-9)


@given(
    before=st.floats(-50, 50),
    to=st.floats(-1e6, 1e6),
    ends=st.tuples(st.floats(-5, 5), st.floats(-5, 5)).map(sorted),
    margin=st.floats(0, 2),
)
@REPEATABLE
def test_a_step_lands_in_reach_or_no_further_out_than_it_began(before, to, ends, margin):
    low, high = ends
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    statistics = Statistics(
        *(zero, one, zero, one, np.array(0.0, np.float32), np.array(1.0, np.float32)),
        obs_low=np.array([low], np.float32),
        obs_high=np.array([high], np.float32),
    )
    normaliser = Normaliser(statistics, 1, discrete=False).double()
    low, high = (float(end[0]) for end in (statistics.obs_low, statistics.obs_high))

    def tensor(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    landed = float(normaliser.within(tensor(to), tensor(before), margin))
    wide = margin * max(high - low, 1.0) + 1e-5
    assert min(low - wide, before) <= landed <= max(high + wide, before)
    # Nothing is moved that was allowed, and what is moved goes to the nearest point allowed.
    if min(low - wide, before) + 2e-5 < to < max(high + wide, before) - 2e-5:
        assert landed == to
    if landed != to:
        assert landed == pytest.approx(min(low - wide, before), abs=3e-5) or landed == (
            pytest.approx(max(high + wide, before), abs=3e-5)
        )


@pytest.mark.parametrize("name", MODELS)
def test_no_margin_holds_to_the_range_itself_and_angles_to_nothing(make, kinds, turning_data, name):
    model = wild(make(replace(kinds[name], margin=0.0), turning_data), 3.0)
    obs, actions = turning_data.obs[:4], np.tile(turning_data.action[:10], (4, 5, 1))
    held = model.imagine(obs, actions).obs
    low, high = reach(turning_data, 0.0)
    assert np.isfinite(held).all()
    slack = 1e-5 * (high - low)[1]
    assert (held[..., 1] >= low[1] - slack).all()
    assert (held[..., 1] <= high[1] + slack).all()
    assert ((held[..., 0] < low[0]) | (held[..., 0] > high[0])).any()


def test_training_on_further_data_widens_the_range(data):
    quick = lw.FitConfig(updates=2, batch_size=8, progress=False)
    model = lw.fit(data, lw.WorldConfig(width=8), quick, valid=data)
    further = replace(data, next_obs=data.next_obs * 3, obs=data.obs * 3)
    again = lw.fit(further, fit_config=quick, init=model, valid=data)
    low, high = reach(further, 0)
    np.testing.assert_allclose(
        again.stats.obs_high, np.maximum(high, model.stats.obs_high), rtol=1e-6
    )
    np.testing.assert_allclose(again.stats.obs_low, np.minimum(low, model.stats.obs_low), rtol=1e-6)
    np.testing.assert_array_equal(again.stats.obs_std, model.stats.obs_std)
    restored = again.normaliser.restore_obs(again.normaliser.obs_high).numpy()
    np.testing.assert_allclose(restored, again.stats.obs_high, rtol=1e-4)


def test_a_saved_model_keeps_its_range(make, kinds, data, tmp_path):
    model = make(kinds["looped"], data).float()
    model.save(tmp_path / "model")
    again = lw.load(tmp_path / "model")
    np.testing.assert_array_equal(again.normaliser.obs_low, model.normaliser.obs_low)
    assert again.margin == model.margin == 0.1


@pytest.mark.parametrize("config", [lw.WorldConfig, lw.MLP, lw.Untied, lw.GRU])
def test_a_margin_below_zero_is_refused(config):
    with pytest.raises(ConfigError, match=f"{config.__name__}.margin .* -0.5"):
        config(margin=-0.5)
    with pytest.raises(ConfigError, match="margin"):
        config(margin=float("nan"))
    assert config(margin=None).margin is None
