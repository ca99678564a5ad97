"""Results come back as what went in: numpy or torch, its floating type, its leading shape."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.errors import DataError

KINDS = ["looped", "GRU", "ensemble", "discrete"]


@pytest.fixture(scope="module", params=KINDS)
def trained(request, make, kinds, data, discrete_data) -> tuple[Any, np.ndarray, np.ndarray]:
    """Give a float32 model, as training leaves it, with observations and actions of 6 rows."""
    chosen = discrete_data if request.param == "discrete" else data
    kind = request.param if request.param == "GRU" else "looped, Gaussian"
    model = make(kinds[kind], chosen).float()
    if request.param == "ensemble":
        model = lw.Ensemble([model, make(kinds[kind], chosen, seed=3).float()])
    return model, chosen.obs[:6], chosen.action[:18].reshape(6, 3, *chosen.action.shape[1:])


def close(ours: Any, theirs: Any) -> None:
    """Two float32 computations of the same rows agree; observations reach hundreds."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def arrays(result: Any) -> dict[str, Any]:
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in values.items() if value is not None}


def results(model: Any, obs: Any, actions: Any) -> list[dict[str, Any]]:
    axis = obs.ndim - 1
    first = actions[(slice(None),) * axis + (0,)]

    def policy(seen: Any) -> Any:
        assert type(seen) is type(obs)
        assert seen.dtype == obs.dtype
        assert seen.shape == obs.shape
        return first

    return [
        arrays(model.predict(obs, first)),
        arrays(model.imagine(obs, actions)),
        arrays(model.imagine(obs, actions, decode="last")),
        arrays(model.imagine(obs, actions, decode="reward")),
        arrays(model.imagine(obs, policy=policy, horizon=3)),
    ]


def floats(action: np.ndarray, dtype: type) -> np.ndarray:
    return action.astype(dtype) if action.dtype.kind == "f" else action


def test_the_order_of_bytes_makes_no_difference(trained):
    model, obs, actions = trained
    swapped = (each.astype(each.dtype.newbyteorder()) for each in (obs, actions))
    theirs = arrays(model.imagine(obs, actions))
    for name, ours in arrays(model.imagine(*swapped)).items():
        np.testing.assert_array_equal(ours, theirs[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_numpy_in_is_numpy_out_of_the_same_floating_type(trained, dtype):
    model, obs, actions = trained
    for found in results(model, obs.astype(dtype), floats(actions, dtype)):
        for name, value in found.items():
            assert isinstance(value, np.ndarray), name
            assert value.dtype == {"n_iters": np.int64, "settled": np.bool_}.get(name, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_in_is_torch_out_of_the_same_floating_type(trained, dtype):
    model, obs, actions = trained
    obs, actions = torch.as_tensor(obs.astype(dtype)), torch.as_tensor(floats(actions, dtype))
    for found in results(model, obs, actions):
        for name, value in found.items():
            assert isinstance(value, torch.Tensor), name
            assert value.dtype == {"n_iters": torch.int64, "settled": torch.bool}.get(
                name, obs.dtype
            )


@pytest.mark.parametrize("lead", [(), (6,), (2, 3), (1, 6, 1)], ids=str)
def test_any_leading_shape_comes_back(trained, lead):
    model, obs, actions = trained
    rows = 6 if lead else 1
    flat = results(model, obs[:rows], actions[:rows])
    shaped = results(
        model,
        obs[:rows].reshape(*lead, *obs.shape[1:]),
        actions[:rows].reshape(*lead, *actions.shape[1:]),
    )
    for ours, theirs in zip(shaped, flat, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value.shape == (*lead, *theirs[name].shape[1:]), name
            close(value.reshape(theirs[name].shape), theirs[name])


def test_step_answers_in_the_kind_of_the_action(trained):
    model, obs, actions = trained
    state = model.start(torch.as_tensor(obs))
    _, out = model.step(state, actions[:, 0])
    assert all(isinstance(value, np.ndarray) for value in arrays(out).values())
    _, out = model.step(state, torch.as_tensor(actions[:, 0]))
    assert all(isinstance(value, torch.Tensor) for value in arrays(out).values())


def test_lists_integers_and_borrowed_memory_are_taken_as_they_are(trained):
    model, obs, actions = trained
    obs, action = obs.astype(np.float32), floats(actions[:, 0], np.float32)
    expected = model.predict(obs, action).next_obs
    frozen, reversed_twice = obs.copy(), obs[::-1].copy()[::-1]
    frozen.setflags(write=False)
    assert not reversed_twice.flags["C_CONTIGUOUS"]
    for same in (frozen, reversed_twice, np.asfortranarray(obs), obs.tolist(), [*obs]):
        close(model.predict(same, action).next_obs, expected)
    close(model.predict(obs, action.tolist()).next_obs, expected)
    whole = np.round(obs).astype(np.int64)
    ours, theirs = model.predict(whole, action), model.predict(whole.astype(np.float32), action)
    assert ours.next_obs.dtype == np.float32
    close(ours.next_obs, theirs.next_obs)


def test_a_model_in_bfloat16_answers_actions_that_are_numpys_indices(make, kinds, discrete_data):
    model = make(kinds["looped"], discrete_data).bfloat16()
    actions = discrete_data.action[:12].reshape(4, 3)
    state = model.start(discrete_data.obs[:4])
    _, out = model.step(state, actions[:, 0])
    _, theirs = model.step(state, torch.as_tensor(actions[:, 0]))
    path = model.imagine(state=state, actions=actions)
    for found in (out.reward, out.next_obs, path.reward):
        assert found.dtype == np.float32
    assert theirs.reward.dtype == torch.bfloat16
    np.testing.assert_array_equal(out.reward, theirs.reward.float())
    pair = lw.Ensemble([model, make(kinds["looped"], discrete_data).bfloat16()])
    _, both = pair.step(pair.start(discrete_data.obs[:4]), actions[:, 0])
    assert both.reward.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_indices_without_a_sign_are_indices(make, kinds, discrete_data, dtype):
    model, obs = make(kinds["looped"], discrete_data), discrete_data.obs[:4]
    action = np.arange(4)
    expected = model.predict(obs, action).next_obs
    unsigned = action.astype(dtype)
    np.testing.assert_array_equal(model.predict(obs, unsigned).next_obs, expected)
    seen = model.predict(torch.as_tensor(obs), torch.as_tensor(unsigned)).next_obs
    np.testing.assert_array_equal(seen, expected)
    for wrong in (4, np.iinfo(dtype).max):
        with pytest.raises(DataError, match=rf"must hold integers in 0\.\.3, got {wrong}"):
            model.predict(obs[:1], np.array([wrong], dtype))


def test_numbers_that_the_models_type_cannot_hold_are_refused(make, kinds, data):
    model = make(kinds["looped"], data)
    obs, action = data.obs[:4].copy(), data.action[:4]
    obs[2, 1] = 1e39
    assert np.isfinite(model.predict(obs, action).next_obs).all()
    model.float()
    for call in (model.start, lambda each: model.predict(each, action)):
        with pytest.raises(DataError, match=r"obs holds .* beyond the range of torch\.float32"):
            call(obs)


def test_inputs_are_left_as_they_were(trained):
    model, obs, actions = trained
    before = obs.copy(), actions.copy()
    results(model, obs, actions)
    np.testing.assert_array_equal(obs, before[0])
    np.testing.assert_array_equal(actions, before[1])


def test_predictions_are_differentiable_in_observation_and_action(make, kinds, data):
    model = make(kinds["looped"], data)
    obs = torch.as_tensor(data.obs[:1]).requires_grad_()
    actions = torch.as_tensor(data.action[:2].reshape(1, 2, 2)).requires_grad_()

    def returns(obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return model.imagine(obs, actions).reward.sum(1)

    assert torch.autograd.gradcheck(returns, (obs, actions), eps=1e-6, atol=1e-6)


def test_an_empty_batch_gives_empty_results(make, kinds, data):
    model, obs, actions = make(kinds["looped"], data), data.obs, data.action[None]
    halted = arrays(model.predict(obs[:0], data.action[:0], halt=lw.OutputDelta()))
    assert all(len(value) == 0 for value in halted.values())
    for found in results(model, obs[:0], actions[:0, :3]):
        assert all(len(value) == 0 for value in found.values())
