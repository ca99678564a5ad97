"""What cannot be trained on is refused before training begins."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.data.meta import DatasetMeta
from loopwm.data.replay import Windows
from loopwm.data.store import RolloutDataset
from loopwm.errors import CheckpointError, ConfigError, DataError, NumericalError
from loopwm.world.objective import calibrate_spread

pytestmark = pytest.mark.usefixtures("without_shape_checks")

SHORT = lw.FitConfig(updates=1, batch_size=16, horizon=3, device="cpu", threads=1, progress=False)
SMALL = lw.WorldConfig(width=8, depth=lw.depth.Poisson(3))


def test_contradicting_arguments_are_refused(data):
    model = lw.fit(data, SMALL, SHORT)
    with pytest.raises(ConfigError, match="members must be at least 1, got 0"):
        lw.fit(data, SMALL, SHORT, members=0)
    with pytest.raises(ConfigError, match="config= differs from that of init="):
        lw.fit(data, lw.GRU(), SHORT, init=model)
    with pytest.raises(ConfigError, match="members=3, but init has"):
        lw.fit(data, None, SHORT, init=model, members=3)
    with pytest.raises(DataError, match="init predicts 3 observation dimensions, the data has 2"):
        lw.fit(data.keep_obs([0, 1]), None, SHORT, init=model)
    with pytest.raises(ConfigError, match=r"config must be one of WorldConfig, .* got FitConfig"):
        lw.fit(data, SHORT)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("without_shape_checks")
def test_what_stands_in_anothers_place_is_named(data: Any):
    with pytest.raises(ConfigError, match=r"data must be a dataset, got str: read one by"):
        lw.fit("runs/data", SMALL, SHORT)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"fit_config must be a lw\.FitConfig\(\), got WorldCo"):
        lw.fit(data, SMALL, SMALL)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"members must be a whole number, got 1\.5"):
        lw.fit(data, SMALL, SHORT, members=1.5)  # pyright: ignore[reportArgumentType]
    model = lw.fit(data, SMALL, SHORT)
    with pytest.raises(ConfigError, match="test must be a dataset, got str"):
        lw.evaluate(model, "runs/data")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"model must have the verbs .* got str; read a saved"):
        lw.evaluate("runs/model", data)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"horizons must be several steps, .* got 5"):
        lw.evaluate(model, data, 5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"horizons must be a whole number, got 1\.5"):
        lw.evaluate(model, data, (1.5,))  # pyright: ignore[reportArgumentType]
    layer = torch.nn.Linear(3, 16)
    with pytest.raises(ConfigError, match=r"encoder must be a function that returns a module"):
        lw.WorldConfig(encoder=layer)
    with pytest.raises(ConfigError, match=r"heads\['reward'\] must be a function that returns"):
        lw.WorldConfig(heads={"reward": layer})


def test_data_without_action_bounds_is_refused(data):
    bare = replace(data, meta=DatasetMeta())
    with pytest.raises(DataError, match="does not say its action bounds: give from_arrays meta="):
        lw.fit(bare, SMALL, SHORT)


@pytest.mark.parametrize("members", [1, 2])
def test_leading_axes_of_another_shape_are_no_partners(data: Any, members: int):
    model = lw.fit(data, SMALL, SHORT, members=members)
    obs, action = data.obs[:8].reshape(2, 4, -1), data.action[:8].reshape(4, 2, -1)
    with pytest.raises(DataError, match=r"the same leading axes, got \(2, 4\) and \(4, 2\)"):
        model.predict(obs, action)
    actions = data.action[:24].reshape(8, 3, -1)
    with pytest.raises(DataError, match=r"obs and actions must have .* \(2, 4\) and \(8,\)"):
        model.imagine(obs, actions)
    with pytest.raises(ConfigError, match="horizon=2 goes with policy="):
        model.imagine(data.obs[:8], actions, horizon=2)


def test_a_model_does_not_go_on_with_other_actions(make, data, discrete_data):
    model = make(SMALL, data).float()
    wide = replace(data, meta=replace(data.meta, action_high=(4.0, 3.0)))
    narrow = replace(data.meta, action_low=(-1.0,), action_high=(3.0,))
    with pytest.raises(DataError, match=r"action_high=\(3\.0, 3\.0\), .* has \(4\.0, 3\.0\)"):
        lw.fit(wide, None, SHORT, init=model)
    with pytest.raises(DataError, match=r"action_low=\(-1\.0, -1\.0\), .* has \(-1\.0,\)"):
        lw.fit(replace(data, action=data.action[:, :1], meta=narrow), None, SHORT, init=model)
    with pytest.raises(DataError, match="init has num_actions=None, the data 4"):
        lw.fit(discrete_data, None, SHORT, init=model)


def test_held_out_data_of_other_spaces_is_refused_before_training(data, discrete_data):
    few = replace(discrete_data, action=discrete_data.action % 2)
    few = replace(few, meta=replace(few.meta, num_actions=2))
    for ours, theirs in (
        (data, data.keep_obs([0, 1])),
        (data, discrete_data),
        (few, discrete_data),
    ):
        with pytest.raises(
            DataError, match=r"valid=RolloutDataset.* other observations or actions"
        ):
            lw.fit(ours, SMALL, SHORT, valid=theirs)
    lw.fit(discrete_data, SMALL, SHORT, valid=few)


def test_data_without_a_step_to_imagine_is_refused_before_training(data, unseen):
    def context(steps: int) -> lw.WorldConfig:
        return replace(SMALL, objective=lw.Objective(context=steps))

    with pytest.raises(DataError, match=r"window of the data .* longest has 30 .*context=31\)"):
        lw.fit(data, context(31), SHORT, valid=unseen)
    rows = np.arange(len(data))
    brief = replace(
        data, episode=rows // 6, truncated=rows % 6 == 5, terminated=np.zeros(len(data), bool)
    )
    with pytest.raises(DataError, match=r"window of the held-out data .*longest has 6 .*context=7"):
        lw.fit(data, context(7), SHORT, valid=brief)
    model = lw.fit(data, context(6), SHORT, valid=brief)
    assert model.history[-1]["validation"] > 0


def test_what_float32_cannot_tell_apart_is_refused_before_training(data):
    def moved(offset: float) -> RolloutDataset:
        shift = np.array([0.0, 0.0, offset])
        return replace(data, obs=data.obs + shift, next_obs=data.next_obs + shift)

    with pytest.raises(
        DataError, match=r"dimension 2 is as large as 5005\.02, .*subtract its offset"
    ):
        lw.fit(moved(5e3), SMALL, SHORT)
    lw.fit(moved(5.0), SMALL, SHORT)
    # A constant loses nothing, and what came in float32 has lost it before.
    still = moved(0.0)
    still.obs[:, 2] = still.next_obs[:, 2] = 1e9
    lw.fit(still, SMALL, SHORT)
    single = moved(5e3)
    single = replace(
        single, obs=single.obs.astype(np.float32), next_obs=single.next_obs.astype(np.float32)
    )
    lw.fit(single, SMALL, SHORT)


def test_an_action_with_one_value_only_is_kept_in_its_unit(make, data):
    meta = replace(data.meta, action_low=(-1.0, 2.0), action_high=(3.0, 2.0))
    action = np.column_stack([data.action[:, 0], np.full(len(data), 2.0)])
    model = make(SMALL, replace(data, action=action, meta=meta))
    scaled = model.normaliser.action(torch.as_tensor(action))
    assert scaled.isfinite().all()
    assert (scaled[:, 1] == 0).all()
    np.testing.assert_allclose(model.normaliser.restore_action(scaled), action)
    assert np.isfinite(model.predict(data.obs, action).next_obs).all()


def test_held_out_data_must_be_a_dataset_too(data):
    with pytest.raises(ConfigError, match="valid must be a dataset, got str"):
        lw.fit(data, SMALL, SHORT, valid="x")  # pyright: ignore[reportArgumentType]


def test_another_margin_of_init_is_another_run(data, tmp_path):
    init = lw.fit(data, SMALL, SHORT)
    assert isinstance(init, lw.WorldModel)
    lw.fit(data, None, SHORT, init=init, run_dir=tmp_path)
    init.margin = None
    with pytest.raises(CheckpointError, match="init"):
        lw.fit(data, None, SHORT, init=init, run_dir=tmp_path)


def test_a_spread_that_cannot_be_calibrated_reaches_no_model(make, data):
    model = make(replace(SMALL, head=lw.Gaussian()), data).float()
    model.heads.change.bias.data[0] = float("nan")
    batch = Windows(data, 4).at(torch.tensor([0, 5, 9]))
    before = model.heads.spread_scale.clone()
    with pytest.raises(NumericalError, match="cannot be calibrated"):
        calibrate_spread(model, batch)
    assert torch.equal(model.heads.spread_scale, before)


def test_a_model_goes_on_with_recordings_that_use_less_of_its_actions_and_keeps_its_bounds(data):
    def derived(largest: float) -> RolloutDataset:
        action = np.clip(data.action, -largest, largest)
        width = data.action.shape[1]
        bounds = {"action_low": (-largest,) * width, "action_high": (largest,) * width}
        meta = replace(data.meta, **bounds, bounds_derived=True)
        return replace(data, action=action, meta=meta)

    model = lw.fit(derived(0.8), SMALL, SHORT)
    narrower = lw.fit(derived(0.3), None, SHORT, init=model)
    assert isinstance(narrower, lw.WorldModel)
    assert narrower.meta.action_high == model.meta.action_high
    lw.fit(derived(0.6), None, SHORT, init=narrower)
    with pytest.raises(DataError, match="was taken from its rows"):
        lw.fit(derived(0.9), None, SHORT, init=narrower)
