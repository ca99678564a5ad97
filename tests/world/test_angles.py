"""A model is shown where an unlimited angle points: turns that it has made change nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.core.certificate import box_bound
from loopwm.errors import DataError
from loopwm.study.reference import fit_linear
from loopwm.world.proof import _injection

KINDS = ["looped", "looped, frames", "looped, Gaussian", "untied", "MLP", "GRU"]


def turned(obs: np.ndarray, angles: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return observations with whole turns added, and what was added."""
    turns = np.zeros_like(obs)
    turns[:, list(angles)] = 2 * np.pi * np.array([3, -7])
    return obs + turns, turns


@pytest.mark.parametrize("kind", KINDS)
def test_whole_turns_are_carried_along_and_change_nothing_else(
    make: Any, kinds: Any, turning_data: Any, kind: str
) -> None:
    model = make(kinds[kind], turning_data)
    obs = turning_data.obs[:5]
    actions = turning_data.action[np.arange(5)[:, None] + np.arange(6)]
    far, turns = turned(obs, turning_data.meta.angles)
    one, two = model.imagine(obs, actions), model.imagine(far, actions)
    np.testing.assert_allclose(two.obs, one.obs + turns[:, None], rtol=1e-5, atol=1e-5)
    for name in ("reward", "terminated", "std"):
        if getattr(one, name) is not None:
            # The normaliser's statistics are float32.
            np.testing.assert_allclose(
                getattr(two, name), getattr(one, name), rtol=1e-4, atol=1e-5, err_msg=name
            )


def test_the_other_dimensions_do_not_turn(make: Any, kinds: Any, turning_data: Any) -> None:
    model, obs = make(kinds["looped"], turning_data), turning_data.obs[:5].copy()
    before = model.predict(obs, turning_data.action[:5]).reward
    obs[:, 1] += 2 * np.pi
    assert np.abs(model.predict(obs, turning_data.action[:5]).reward - before).max() > 1e-3


def test_the_linear_reference_sees_what_the_models_see(turning_data: Any) -> None:
    model = fit_linear(turning_data)
    obs, action = turning_data.obs[:5], torch.as_tensor(turning_data.action[:5])
    far, turns = turned(obs, turning_data.meta.angles)
    _, one = model.step(model.start(torch.as_tensor(obs)), action)
    _, two = model.step(model.start(torch.as_tensor(far)), action)
    np.testing.assert_allclose(two.next_obs.numpy(), one.next_obs.numpy() + turns, atol=1e-9)
    np.testing.assert_allclose(two.reward, one.reward, atol=1e-9)


def test_an_encoder_of_the_users_sees_sine_and_cosine(make: Any, turning_data: Any) -> None:
    widths: list[tuple[int, int]] = []

    def encoder(seen: int, width: int) -> torch.nn.Module:
        widths.append((seen, width))
        return torch.nn.Linear(seen, width)

    model = make(lw.WorldConfig(width=8, encoder=encoder), turning_data)
    assert widths == [(turning_data.obs_dim + 2, 8)]
    far, turns = turned(turning_data.obs[:5], turning_data.meta.angles)
    one = model.predict(turning_data.obs[:5], turning_data.action[:5])
    two = model.predict(far, turning_data.action[:5])
    np.testing.assert_allclose(two.next_obs, one.next_obs + turns, rtol=1e-5, atol=1e-5)


def test_training_does_not_go_on_with_data_of_other_angles(
    make: Any, kinds: Any, data: Any, turning_data: Any
) -> None:
    with pytest.raises(DataError, match="for angles"):
        lw.fit(data, init=make(kinds["looped"], turning_data).float())


def test_the_certificate_counts_sine_and_cosine_as_at_most_one(
    make: Any, turning_data: Any
) -> None:
    config = lw.WorldConfig(width=8, cell=lw.Contractive(), carry=False, frames=2)
    model = make(config, turning_data)
    generator = torch.Generator().manual_seed(0)
    obs = 50 * torch.randn(10_000, 3, generator=generator, dtype=torch.float64)
    shown = model.shown(model.first_state(obs), torch.ones(len(obs), 2))
    # A frame: the straight dimension, two sines, two cosines.
    limits = torch.tensor([10.0, 1, 1, 1, 1] * 2 + [1] * 3)
    largest = shown.abs().amax(0)
    torch.testing.assert_close(largest[:10], limits[:10].double(), rtol=0.02, atol=0)
    assert largest[10:].max() <= 1
    enter = model.dynamics.enter
    bound = _injection(model, model.dynamics)
    assert bound == pytest.approx(box_bound(enter.weight, enter.bias, limits))
    assert enter(shown).norm(dim=1).max() <= bound


def test_angles_travel_with_the_model(make: Any, kinds: Any, turning_data: Any, tmp_path: Any):
    model = make(kinds["MLP"], turning_data).float()
    model.save(tmp_path / "model")
    again = lw.load(tmp_path / "model")
    obs = replace(turning_data).obs[:3].astype(np.float32)
    action = turning_data.action[:3]
    np.testing.assert_array_equal(
        again.predict(obs, action).next_obs, model.predict(obs, action).next_obs
    )
