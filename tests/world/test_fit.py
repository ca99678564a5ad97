"""Training learns a system that is known, and repeats itself bit for bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.data.store import RolloutDataset
from loopwm.errors import CheckpointError
from loopwm.world import course as course_module

pytestmark = pytest.mark.usefixtures("without_shape_checks")

SHORT = lw.FitConfig(
    updates=8,
    batch_size=16,
    horizon=3,
    horizon_warmup=0.5,
    device="cpu",
    threads=1,
    progress=False,
    validate_every=4,
    log_every=4,
)
SMALL = lw.WorldConfig(width=8, depth=lw.depth.Poisson(3))


def weights(model: Any) -> dict[str, torch.Tensor]:
    return model.state_dict()


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


def error(obs: np.ndarray, real: np.ndarray, model: Any) -> float:
    """Root mean square error in standard deviations of the one-step change."""
    return float(np.sqrt(np.mean(((obs - real) / model.stats.change_std) ** 2)))


@pytest.mark.parametrize(
    "config",
    [
        lw.WorldConfig(width=16, depth=lw.depth.Poisson(2)),
        lw.MLP(width=32, depth=2),
    ],
    ids=lambda config: type(config).__name__,
)
def test_training_learns_a_linear_system_and_beats_copying_the_last(data, unseen, config):
    setting = replace(
        SHORT, updates=200, batch_size=64, horizon=2, lr=1e-2, ema=0.95, validate_every=200
    )
    model = lw.fit(data, config, setting)
    starts = np.arange(0, len(unseen), 30)
    actions = unseen.action[starts[:, None] + np.arange(10)]
    path = model.imagine(unseen.obs[starts], actions)
    for k in (1, 10):
        real = unseen.next_obs[starts + k - 1]
        imagined = error(path.obs[:, k - 1], real, model)
        assert imagined < 0.2 * error(unseen.obs[starts], real, model)
    rewards = model.predict(unseen.obs, unseen.action).reward
    assert np.corrcoef(rewards, unseen.reward)[0, 1] > 0.98


def test_the_same_seed_gives_the_same_weights_bit_for_bit(data):
    before = torch.get_rng_state()
    first = lw.fit(data, SMALL, SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    assert equal(first, lw.fit(data, SMALL, SHORT))
    assert not equal(first, lw.fit(data, SMALL, replace(SHORT, seed=1)))


def test_a_trained_model_is_ready_to_predict_and_knows_its_training(data):
    model = lw.fit(data, SMALL, SHORT)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.config == SMALL
    assert model.meta.env_id == "linear"
    logged = {key for record in model.history for key in record}
    assert {"update", "loss", "error", "reward", "termination", "validation"} <= logged


def test_members_differ_and_begin_as_models_of_their_seeds(data):
    still = replace(SHORT, updates=1, lr=1e-30, ema=0.0, weight_decay=0.0)
    pair = lw.fit(data, SMALL, still, members=2, valid=data)
    assert isinstance(pair, lw.Ensemble)
    for member, seed in zip(pair.members, (0, 1000), strict=True):
        alone = lw.fit(data, SMALL, replace(still, seed=seed), valid=data)
        for name, value in weights(alone).items():
            torch.testing.assert_close(weights(member)[name], value, rtol=0, atol=1e-20)
    assert not equal(pair.members[0], pair.members[1])


def test_training_goes_on_from_a_model_with_its_statistics(data):
    model = lw.fit(data, SMALL, SHORT)
    more = data.extend(data.select_episodes([0, 1]))
    again = lw.fit(more, None, replace(SHORT, updates=1, lr=1e-12, ema=0.0), init=model)
    assert again.config == SMALL
    np.testing.assert_array_equal(again.stats.obs_mean, model.stats.obs_mean)
    for name, value in weights(model).items():
        torch.testing.assert_close(weights(again)[name], value, rtol=0, atol=1e-9)
    assert not equal(model, lw.fit(data, None, SHORT, init=model))


@pytest.mark.parametrize("margin", [0.7, None])
def test_training_goes_on_with_the_functions_and_the_margin_of_the_model(data, make, margin):
    def reward(obs: Any, action: Any, after: Any) -> Any:
        return obs[..., 0]

    one, two = (make(SMALL, data, seed).float() for seed in (0, 1))
    one.use(reward_fn=reward)
    one.margin = margin
    pair = lw.fit(data, None, replace(SHORT, updates=1), init=lw.Ensemble([one, two]), members=2)
    assert isinstance(pair, lw.Ensemble)
    found = [(each.reward_fn, each.termination_fn, each.margin) for each in pair.members]
    assert found == [(reward, None, margin), (None, None, 0.1)]


def test_models_are_trained_in_float32_whatever_torchs_own_type_is(data):
    quick, before = replace(SHORT, updates=1), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = lw.fit(data, SMALL, quick)
    finally:
        torch.set_default_dtype(before)
    assert {each.dtype for each in weights(model).values() if each.is_floating_point()} == {
        torch.float32
    }


def test_an_ensemble_goes_on_member_by_member(data):
    pair = lw.fit(data, SMALL, SHORT, members=2)
    again = lw.fit(data, None, replace(SHORT, updates=1, lr=1e-12, ema=0.0), init=pair, members=2)
    assert isinstance(pair, lw.Ensemble)
    assert isinstance(again, lw.Ensemble)
    for ours, theirs in zip(again.members, pair.members, strict=True):
        torch.testing.assert_close(
            weights(ours)["dynamics.enter.weight"], weights(theirs)["dynamics.enter.weight"]
        )


def test_the_horizon_grows_to_its_end(data, monkeypatch):
    seen: list[int] = []
    real = course_module.sequence_loss

    def watched(model: Any, batch: Any, *rest: Any) -> Any:
        seen.append(batch.action.shape[1])
        assert batch.obs.shape[1] == seen[-1] + 1
        return real(model, batch, *rest)

    monkeypatch.setattr(course_module, "sequence_loss", watched)
    lw.fit(data, SMALL, SHORT)
    assert seen == [SHORT.horizon_at(update) for update in range(8)]
    assert (seen[0], seen[-1]) == (1, 3)


def test_the_context_comes_before_the_horizon(data, monkeypatch):
    seen: list[int] = []
    real = course_module.sequence_loss

    def watched(model: Any, batch: Any, *rest: Any) -> Any:
        seen.append(batch.action.shape[1])
        return real(model, batch, *rest)

    monkeypatch.setattr(course_module, "sequence_loss", watched)
    lw.fit(data, replace(SMALL, objective=lw.Objective(context=5)), SHORT)
    assert seen == [4 + SHORT.horizon_at(update) for update in range(8)]


def test_held_out_episodes_are_not_trained_on(data, monkeypatch):
    used: list[RolloutDataset] = []
    real = course_module.Windows

    def watched(dataset: RolloutDataset, *rest: Any) -> Any:
        used.append(dataset)
        return real(dataset, *rest)

    monkeypatch.setattr(course_module, "Windows", watched)
    lw.fit(data, SMALL, SHORT)
    train, valid = (set(map(tuple, each.obs.tolist())) for each in used)
    assert not train & valid
    assert len(train | valid) == len(data)


def test_the_last_window_held_out_is_the_last_there_is(data, make, monkeypatch):
    count = 2**24 + 4

    class Many:
        def __init__(self, *_: Any) -> None: ...

        def __len__(self) -> int:
            return count

        def at(self, rows: torch.Tensor) -> list[int]:
            return rows.tolist()

    monkeypatch.setattr(course_module, "Windows", Many)
    rows: Any = course_module._held_out(data, make(SMALL, data), 3, torch.device("cpu"))
    assert len(rows) == len(set(rows)) == 2048
    assert (rows[0], rows[-1]) == (0, count - 1)


def test_one_episode_is_trained_on_without_validation(data):
    model = lw.fit(data.select_episodes([0]), SMALL, SHORT)
    assert not any("validation" in record for record in model.history)


@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, cell=lw.Bounded(gain=1.0)), lw.GRU(width=8)],
    ids=["looped", "renewal", "GRU"],
)
def test_training_in_bfloat16_stays_close_to_float32(data, config):
    exact = lw.fit(data, config, SHORT)
    rough = lw.fit(data, config, replace(SHORT, precision="bf16"))
    assert all(p.dtype == torch.float32 for p in rough.parameters())
    # Eight updates of Adam at 1e-3 move a weight by 0.008 at most.
    for name, p in exact.named_parameters():
        torch.testing.assert_close(weights(rough)[name], p.data, rtol=0, atol=0.02)


def test_a_gaussian_head_is_calibrated_on_the_held_out_data(data):
    model = lw.fit(data, replace(SMALL, head=lw.Gaussian()), SHORT)
    held_out = data.split(0.95, seed=0)[1]
    out = model.predict(held_out.obs, held_out.action)
    z = (out.next_obs - held_out.next_obs) / out.std
    np.testing.assert_allclose(np.sqrt((z**2).mean(0)), 1, rtol=1e-3)


def test_a_finished_run_is_taken_up_only_with_its_own_data(data, tmp_path):
    first = lw.fit(data, SMALL, SHORT, run_dir=tmp_path)
    assert equal(first, lw.fit(data, SMALL, SHORT, run_dir=tmp_path))
    with pytest.raises(CheckpointError, match="data"):
        lw.fit(data.select_episodes(range(7)), SMALL, SHORT, run_dir=tmp_path)


def test_a_run_is_taken_up_only_with_all_that_it_was_trained_on(data, unseen, tmp_path):
    quick, config = replace(SHORT, updates=1), lw.MLP(width=8, depth=1)
    start, other = (lw.fit(data, config, replace(quick, seed=seed)) for seed in (1, 2))

    def again(**changed: Any) -> Any:
        arguments = {"data": data, "valid": unseen, "init": start, **changed}
        return lw.fit(config=config, fit_config=quick, run_dir=tmp_path, **arguments)

    first = again()
    assert equal(first, again())

    def other_meta(**changes: Any) -> RolloutDataset:
        return replace(data, meta=replace(data.meta, **changes))

    cases: dict[str, Any] = {
        r"\.init was \d+ and is now None": {"init": None},
        r"\.init was \d+ and is now \d+\.": {"init": other},
        r"\.valid\.checksum": {"valid": data},
        r"\.data\.labels": {
            "data": replace(data, terminated=data.truncated, truncated=data.terminated)
        },
        r"data\.labels": {"data": replace(data, info={"can_terminate": np.zeros(len(data), bool)})},
        r"\.data\.angles": {"data": other_meta(angles=(1,)), "init": None},
        r"\.data\.action_low was '\[-1": {
            "data": other_meta(action_low=(-2.0, -1.0)),
            "init": None,
        },
    }
    for named, changed in cases.items():
        with pytest.raises(CheckpointError, match=rf"run with other settings: .*{named}"):
            again(**changed)


def endless(data: lw.RolloutDataset, ends: bool) -> lw.RolloutDataset:
    """Return data that could end, or could not."""
    can = np.full(len(data), ends)
    return replace(data, info={**data.info, "can_terminate": can})


def own_head(d_in: int, d_out: int) -> torch.nn.Module:
    return torch.nn.Linear(d_in, d_out)


@pytest.mark.parametrize("heads", [{}, {"change": own_head}, {"reward": own_head}])
def test_where_no_data_teaches_an_end_nothing_ends_whatever_other_heads_there_are(data, heads):
    model = lw.fit(endless(data, False), replace(SMALL, heads=heads), SHORT)
    assert model.predict(data.obs[:50], data.action[:50]).terminated.max() < 1e-6


def test_a_head_of_the_users_own_that_no_data_teaches_is_said_to_be_untrained(data):
    with pytest.warns(UserWarning, match=r"heads\['termination'\] is not trained"):
        lw.fit(endless(data, False), replace(SMALL, heads={"termination": own_head}), SHORT)


def test_ends_are_learned_once_data_teaches_them(data):
    model = lw.fit(endless(data, False), SMALL, SHORT)
    still = lw.fit(endless(data, False), None, SHORT, init=model)
    assert still.predict(data.obs[:50], data.action[:50]).terminated.max() < 1e-6
    taught = endless(data, True)
    taught.terminated[:] = False
    taught.terminated[taught.bounds[1:] - 1] = True
    again = lw.fit(taught, None, SHORT, init=model)
    assert again.predict(data.obs[:50], data.action[:50]).terminated.min() > 1e-4
