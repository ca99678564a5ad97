"""An ensemble is the mean of its members, each imagining by itself, and their spread."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import loopwm as lw
from loopwm.errors import ConfigError


@pytest.fixture(scope="module")
def members(make, kinds, data) -> list[Any]:
    return [make(kinds["looped, Gaussian"], data, seed) for seed in range(3)]


@pytest.fixture(scope="module")
def ensemble(members) -> lw.Ensemble:
    return lw.Ensemble(members)


@pytest.fixture(scope="module")
def inputs(data) -> tuple[np.ndarray, np.ndarray]:
    return data.obs[:4], data.action[:20].reshape(4, 5, 2)


def check(ours: Any, alone: list[Any], observed: str) -> None:
    seen = np.stack([getattr(each, observed) for each in alone])
    for name in (observed, "reward", "terminated", "residual"):
        mean = np.mean([getattr(each, name) for each in alone], axis=0)
        np.testing.assert_allclose(getattr(ours, name), mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.disagreement, seen.std(axis=0, ddof=1), rtol=1e-7)
    # The variance of an equal mixture: the mean variance, and the variance of the means.
    spread = np.mean([each.std**2 for each in alone], axis=0) + seen.var(axis=0)
    np.testing.assert_allclose(ours.std, np.sqrt(spread), rtol=1e-7)
    counts = np.mean([each.n_iters for each in alone], axis=0)
    np.testing.assert_array_equal(ours.n_iters, np.ceil(counts))
    np.testing.assert_array_equal(ours.settled, np.all([each.settled for each in alone], axis=0))


@pytest.mark.parametrize("options", [{}, {"halt": lw.OutputDelta(0.05)}], ids=["fixed", "halting"])
def test_a_prediction_is_the_members_mean_and_spread(ensemble, members, inputs, options):
    obs, actions = inputs
    alone = [member.predict(obs, actions[:, 0], **options) for member in members]
    check(ensemble.predict(obs, actions[:, 0], **options), alone, "next_obs")


@pytest.mark.parametrize("feedback", ["observation", "latent"])
def test_members_imagine_each_from_its_own_predictions(ensemble, members, inputs, feedback):
    obs, actions = inputs
    alone = [member.imagine(obs, actions, feedback=feedback) for member in members]
    check(ensemble.imagine(obs, actions, feedback=feedback), alone, "obs")
    distance = np.abs(alone[0].obs - alone[1].obs).mean((0, 2))
    assert distance[-1] > distance[0]


def test_members_observe_each_for_itself(ensemble, members, inputs, data):
    obs, actions = inputs
    state = ensemble.observe(ensemble.start(obs), actions[:, 0], data.obs[1:5])
    alone = [m.observe(m.start(obs), actions[:, 0], data.obs[1:5]) for m in members]
    for ours, theirs in zip(state, [t for own in alone for t in own], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_functions_of_the_users_reach_every_member(make, kinds, data, inputs):
    obs, actions = inputs
    pair = lw.Ensemble([make(kinds["MLP"], data, seed) for seed in (0, 1)])
    learned = pair.imagine(obs, actions)
    assert pair.use(reward_fn=lambda obs, action, after: 7 + 0 * obs[..., 0]) is pair
    pair.use(termination_fn=lambda obs, action, after: obs[..., 0] < np.inf)
    for model in (pair, *pair.members):
        seen = model.imagine(obs, actions)
        np.testing.assert_array_equal(seen.reward, 7)
        np.testing.assert_array_equal(seen.terminated, 1)
    back = pair.use(reward_fn=None).imagine(obs, actions)
    np.testing.assert_array_equal(back.reward, learned.reward)
    np.testing.assert_array_equal(back.terminated, 1)


def test_a_policy_begins_at_observations_and_has_all_steps_decoded(ensemble, inputs):
    obs, actions = inputs
    options: dict[str, Any] = {"policy": lambda seen: actions[:, 0], "horizon": 3}
    named = ensemble.imagine(obs, decode="all", **options)
    np.testing.assert_array_equal(named.obs, ensemble.imagine(obs, **options).obs)
    with pytest.raises(ConfigError, match="decodes \"all\" steps, got 'last'"):
        ensemble.imagine(obs, decode="last", **options)
    with pytest.raises(ConfigError, match="needs obs or state, exactly one of them"):
        ensemble.imagine(obs, state=ensemble.start(obs), **options)


def test_equal_members_never_disagree(make, kinds, data, inputs):
    obs, actions = inputs
    twins = lw.Ensemble([make(kinds["looped"], data), make(kinds["looped"], data)])
    np.testing.assert_array_equal(twins.imagine(obs, actions).disagreement, 0)


def test_an_ensemble_counts_all_its_parameters(ensemble, members):
    assert ensemble.num_parameters == 3 * members[0].num_parameters
    assert ensemble.core_parameters == 3 * members[0].core_parameters


def test_members_that_differ_are_no_ensemble(make, kinds, data, turning_data, discrete_data):
    first = make(kinds["MLP"], data)
    few = data.keep_obs([0, 1])
    narrow = replace(
        data,
        action=data.action[:, :1],
        meta=replace(data.meta, action_low=(-1.0,), action_high=(3.0,)),
    )
    different = {
        "config": make(kinds["looped"], data),
        "observation dimensions": make(kinds["MLP"], few),
        "number of discrete actions": make(kinds["MLP"], discrete_data),
        "action dimensions": make(kinds["MLP"], narrow),
        "angles": make(kinds["MLP"], turning_data),
    }
    for name, other in different.items():
        with pytest.raises(ConfigError, match=f"must be alike, but the {name} of member 2 is"):
            lw.Ensemble([first, first, other])


def test_one_member_is_no_ensemble(members):
    with pytest.raises(ConfigError, match="at least two members, got 1"):
        lw.Ensemble(members[:1])
