"""Predict is start and step; imagine is start and H steps; every kind of model, every array."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw


def close(ours: Any, theirs: Any, name: str = "") -> None:
    """Two arrays of float64 models agree to rounding."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=name)


def same(ours: Any, theirs: Any) -> None:
    """Every field of two results agrees, and is missing in both or neither."""
    for field in fields(ours):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        assert (a is None) == (b is None), field.name
        if a is not None:
            close(a, b, field.name)


def step_by_step(given: Any, feedback: str | None = None, **options: Any) -> lw.Trajectory:
    """Imagine by the verbs alone."""
    state, steps = given.model.start(given.obs), []
    for action in np.moveaxis(given.actions, 1, 0):
        state, out = given.model.step(state, action, feedback=feedback, **options)
        steps.append(out)
    stacked = {
        f.name: None
        if getattr(steps[0], f.name) is None
        else np.stack([getattr(out, f.name) for out in steps], axis=1)
        for f in fields(steps[0])
    }
    return lw.Trajectory(obs=stacked.pop("next_obs"), **stacked)


def test_predict_is_start_and_step(given):
    _, step = given.model.step(given.model.start(given.obs), given.action)
    same(given.model.predict(given.obs, given.action), step)


def test_predict_under_a_stop_rule_is_start_and_step_under_it(given):
    options: dict[str, Any] = {"halt": lw.OutputDelta(tol=0.05), "max_iters": 9}
    _, step = given.model.step(given.model.start(given.obs), given.action, **options)
    same(given.model.predict(given.obs, given.action, **options), step)


@pytest.mark.parametrize("options", [{}, {"halt": lw.OutputDelta(0.05)}], ids=["", "halting"])
def test_imagine_is_start_and_a_step_for_every_action(given, options):
    for feedback in given.feedbacks:
        imagined = given.model.imagine(given.obs, given.actions, feedback=feedback, **options)
        expected = step_by_step(given, feedback, **options)
        same(imagined, expected)


def test_the_configuration_says_what_is_fed_back_unless_told_otherwise(make, kinds, data):
    obs, actions = data.obs[:3], data.action[:12].reshape(3, 4, 2)
    for kind, default in [("looped", "observation"), ("looped, latent", "latent")]:
        model = make(kinds[kind], data)
        same(model.imagine(obs, actions), model.imagine(obs, actions, feedback=default))
        state, again = model.start(obs), model.start(obs)
        for k in range(2):
            state, ours = model.step(state, actions[:, k])
            again, theirs = model.step(again, actions[:, k], feedback=default)
            same(ours, theirs)


def test_imagining_on_from_a_warm_state_equals_stepping_on(given):
    state = given.model.start(given.obs)
    for k in range(2):
        state = given.model.observe(state, given.actions[:, k], given.observed[:, k])
    imagined = given.model.imagine(state=state, actions=given.actions[:, 2:])
    for k in range(2, 4):
        state, out = given.model.step(state, given.actions[:, k])
        close(imagined.obs[:, k - 2], out.next_obs)
        close(imagined.reward[:, k - 2], out.reward)


def test_shapes_and_types_are_the_documented_ones(given):
    rows, horizon, width = *given.actions.shape[:2], given.obs.shape[1]
    out = given.model.predict(given.obs, given.action)
    assert out.next_obs.shape == (rows, width)
    for name in ("reward", "terminated", "residual", "n_iters", "settled"):
        assert getattr(out, name).shape == (rows,)
    assert (out.n_iters.dtype, out.settled.dtype) == (np.int64, np.bool_)
    assert ((out.terminated > 0) & (out.terminated < 1)).all()
    assert (out.std is not None) == ("Gaussian" in given.name)
    assert (out.disagreement is not None) == ("ensemble" in given.name)
    path = given.model.imagine(given.obs, given.actions)
    assert path.obs.shape == (rows, horizon, width)
    for name in ("reward", "terminated", "residual", "n_iters", "settled", "alive"):
        assert getattr(path, name).shape == (rows, horizon)
    assert (path.n_iters.dtype, path.settled.dtype) == (np.int64, np.bool_)


def test_rows_are_independent_of_their_batch(given):
    whole = given.model.imagine(given.obs, given.actions)
    for row in range(len(given.obs)):
        alone = given.model.imagine(given.obs[row], given.actions[row])
        close(alone.obs, whole.obs[row])
        close(alone.reward, whole.reward[row])


def test_states_can_be_indexed_by_rows(given):
    state = given.model.start(given.obs)
    state = given.model.observe(state, given.action, given.observed[:, 0])
    assert all(len(tensor) == len(given.obs) for tensor in state)
    rows = torch.tensor([3, 0, 3])
    some = tuple(tensor[rows] for tensor in state)
    ours = given.model.imagine(state=some, actions=given.actions[rows])
    whole = given.model.imagine(state=state, actions=given.actions)
    close(ours.obs, whole.obs[rows])
    close(ours.terminated, whole.terminated[rows])


def test_every_kind_satisfies_the_protocol_of_world_models(given):
    assert isinstance(given.model, lw.WorldModelLike)


def test_verbs_change_neither_weights_nor_the_state_they_are_given(given):
    weights = {name: value.clone() for name, value in given.model.state_dict().items()}
    state = given.model.start(given.obs)
    before = [tensor.clone() for tensor in state]
    given.model.step(state, given.action)
    given.model.observe(state, given.action, given.observed[:, 0])
    given.model.imagine(state=state, actions=given.actions)
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))
    after = given.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())


def test_a_policy_is_asked_at_every_imagined_observation(given):
    asked: list[Any] = []

    def policy(obs: Any) -> Any:
        asked.append(obs)
        return given.actions[:, len(asked) - 1]

    ours = given.model.imagine(given.obs, policy=policy, horizon=3)
    theirs = given.model.imagine(given.obs, given.actions[:, :3])
    same(ours, theirs)
    assert len(asked) == 3
    for seen, imagined in zip(asked[1:], np.moveaxis(theirs.obs, 1, 0), strict=False):
        assert isinstance(seen, np.ndarray)
        close(seen, imagined)


def test_alive_is_the_running_survival(given):
    path = given.model.imagine(given.obs, given.actions)
    survival = np.ones(len(given.obs))
    for k in range(path.terminated.shape[1]):
        survival = survival * (1 - path.terminated[:, k])
        close(path.alive[:, k], survival)
