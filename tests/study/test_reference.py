"""The references are what they claim: nothing changes, least squares, the simulator itself."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from loopwm.data.collect import collect
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset
from loopwm.study.prediction import evaluate
from loopwm.study.reference import CopyLast, fit_linear
from loopwm.study.windows import Sampling
from loopwm.world.protocol import WorldModelLike


def test_the_references_have_the_verbs_of_a_world_model(world: Any) -> None:
    assert isinstance(CopyLast(world.model().stats), WorldModelLike)
    assert isinstance(fit_linear(world.train), WorldModelLike)


def test_the_regression_equals_numpys_least_squares(world: Any) -> None:
    rng = np.random.default_rng(0)
    noisy = world.train.next_obs + 0.1 * rng.normal(size=world.train.obs.shape)
    ends = world.train.terminated | world.train.truncated
    # Noise may only enter where no later row has to continue from it.
    noisy[~ends] = world.train.next_obs[~ends]
    train = replace(world.train, next_obs=noisy, reward=world.train.reward**2)
    inputs = np.column_stack([train.obs, train.action, np.ones(len(train))])
    targets = np.column_stack([train.next_obs - train.obs, train.reward, train.terminated])
    expected = np.linalg.lstsq(inputs, targets)[0]
    np.testing.assert_allclose(fit_linear(train, ridge=0.0).weight, expected, atol=1e-9)


def test_a_constant_dimension_does_not_make_the_regression_singular(world: Any) -> None:
    def pad(obs: np.ndarray) -> np.ndarray:
        return np.column_stack([obs, np.full(len(obs), 3.0)])

    train = replace(world.train, obs=pad(world.train.obs), next_obs=pad(world.train.next_obs))
    model = fit_linear(train)
    state = model.start(torch.as_tensor(train.obs[:5]))
    _, out = model.step(state, torch.as_tensor(train.action[:5]))
    np.testing.assert_allclose(out.next_obs, train.next_obs[:5], atol=1e-5)


def test_discrete_actions_enter_the_regression_one_by_one(world: Any) -> None:
    rng = np.random.default_rng(0)
    action = rng.integers(0, 3, len(world.train))
    reward = np.array([1.0, -2.0, 5.0])[action]
    meta = replace(world.train.meta, num_actions=3, action_low=None, action_high=None)
    train = replace(world.train, action=action, reward=reward, meta=meta)
    model = fit_linear(train)
    state = model.start(torch.as_tensor(train.obs))
    _, out = model.step(state, torch.as_tensor(action))
    np.testing.assert_allclose(out.reward, reward, atol=1e-4)


def test_copy_last_repeats_what_it_saw_last_and_the_mean_reward(world: Any) -> None:
    model = CopyLast(world.model().stats)
    state = model.start(torch.zeros(2, 3))
    state = model.observe(state, torch.zeros(2, 2), torch.ones(2, 3))
    _, out = model.step(state, torch.zeros(2, 2))
    assert torch.equal(out.next_obs, torch.ones(2, 3))
    np.testing.assert_allclose(out.reward, world.train.reward.mean(), rtol=1e-6)


@pytest.fixture(scope="module")
def cheetah() -> RolloutDataset:
    return collect("HalfCheetah-v5", 400, seed=0, progress=False)


def test_the_ceiling_begins_at_the_models_error_and_goes_on_with_the_simulator(
    cheetah: RolloutDataset,
) -> None:
    sampling = Sampling(max_windows=20, ceiling_windows=20)
    report = evaluate(fit_linear(cheetah), cheetah, (1, 5), train=cheetah, sampling=sampling)
    ceiling = report.references["ceiling"]
    assert ceiling.rmse[1] == pytest.approx(report.rmse[1], rel=1e-6)
    assert 0 < ceiling.rmse[5] < report.rmse[5]
    assert "one-step prediction" in report.notes["ceiling"]


def test_a_perfect_first_step_leaves_the_ceiling_without_error(cheetah: RolloutDataset) -> None:
    class Oracle(CopyLast):
        def step(self, state: Any, action: torch.Tensor) -> Any:
            rows = (cheetah.obs.astype(np.float32)[:, None] == state[0].numpy()).all(2).argmax(0)
            _, out = super().step(state, action)
            return state, replace(out, next_obs=torch.as_tensor(cheetah.next_obs[rows]))

    model = Oracle(fit_linear(cheetah).stats)
    sampling = Sampling(max_windows=10, ceiling_windows=10)
    report = evaluate(model, cheetah, (10,), sampling=sampling)
    # What remains is the contact solver's warm start, which observations do not hold.
    assert report.references["ceiling"].rmse[10] < 1e-6


def test_the_regression_does_not_depend_on_how_many_rows_are_taken_at_a_time(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_linear(world.test).weight
    monkeypatch.setattr("loopwm.study.reference._BLOCK", 7)
    torch.testing.assert_close(fit_linear(world.test).weight, whole, rtol=1e-9, atol=1e-12)


def test_the_regression_takes_little_memory_beside_the_data() -> None:
    seen = np.random.default_rng(0).normal(size=(60_001, 20))
    data = RolloutDataset.from_arrays(
        obs=seen[:-1],
        action=np.zeros((60_000, 1)),
        reward=np.zeros(60_000),
        terminated=np.zeros(60_000, bool),
        next_obs=seen[1:],
        meta=DatasetMeta("cheetah", action_low=(-1.0,), action_high=(1.0,)),
    )
    largest = max(each.numel() for each in tensors_made(lambda: fit_linear(data)))
    assert largest < 2 * 8_192 * 25


def tensors_made(run: Any) -> list[torch.Tensor]:
    made: list[torch.Tensor] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            out = func(*args, **(kwargs or {}))
            made.extend(each for each in (out,) if isinstance(each, torch.Tensor))
            return out

    with Watch():
        run()
    return made
