"""Training windows that begin with several real observations."""

import dataclasses

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.data.normalise import Statistics
from loopwm.data.replay import Windows
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.train.config import FitConfig
from loopwm.world.build import build
from loopwm.world.model import WorldModel
from loopwm.world.objective import sequence_loss, validation_error


def noise_world(seed: int = 0) -> RolloutDataset:
    """Roll out the positions of drifting points: the next change repeats the last one."""
    rng = np.random.default_rng(seed)
    obs, nxt, episode = [], [], []
    for number in range(24):
        speed = rng.normal(size=1)
        x = 3 * rng.normal(size=1)
        for _ in range(12):
            obs.append(x)
            x = x + speed
            nxt.append(x)
            episode.append(number)
    rows = len(obs)
    ends = np.diff(np.array(episode), append=-1) != 0
    return RolloutDataset.from_arrays(
        obs=np.array(obs),
        next_obs=np.array(nxt),
        action=np.zeros((rows, 1), np.float32),
        reward=np.zeros(rows),
        terminated=np.zeros(rows, bool),
        truncated=ends,
        episode=np.array(episode),
        meta=dataclasses.replace(
            lw.collect("Pendulum-v1", steps=2).meta, action_low=(-1.0,), action_high=(1.0,)
        ),
    )


def carrying(context: int) -> tuple[WorldModel, RolloutDataset]:
    data = noise_world()
    config = lw.WorldConfig(
        width=8, depth=lw.depth.Fixed(2), objective=lw.Objective(intermediate=0.0, context=context)
    )
    return build(config, data.meta, Statistics.of(data), seed=0).requires_grad_(False), data


def test_loss_predicts_each_given_step_from_the_real_observation_before_it() -> None:
    model, data = carrying(context=3)
    batch = Windows(data, 4).at(torch.arange(0, 200, 7))
    _, metrics = sequence_loss(model.eval(), batch, torch.Generator().manual_seed(0))
    halt = lw.Fixed(2)
    state, errors = model.start(batch.obs[:, 0]), []
    for k in range(4):
        before = state
        state, out = model.step(before, batch.action[:, k], halt=halt)
        errors.append((out.next_obs - batch.obs[:, k + 1]) / model.normaliser.change_std)
        if k + 1 < 3:
            state = model.observe(before, batch.action[:, k], batch.obs[:, k + 1], halt=halt)
    error = torch.stack(errors, dim=1).square().mean(-1)
    expected = torch.sqrt((error * batch.valid).sum() / batch.valid.sum())
    assert float(metrics["error"]) == pytest.approx(float(expected), rel=1e-5)


def test_validation_begins_after_the_given_observations() -> None:
    model, data = carrying(context=4)
    batch = Windows(data, 4).at(torch.arange(12))
    state = model.start(batch.obs[:, 0])
    for k in range(3):
        state = model.observe(state, batch.action[:, k], batch.obs[:, k + 1])
    _, out = model.step(state, batch.action[:, 3])
    error = ((out.next_obs - batch.obs[:, 4]) / model.normaliser.change_std).square().mean(-1)
    valid = batch.valid[:, 3]
    expected = float(torch.sqrt((error * valid).sum() / valid.sum()))
    assert validation_error(model, batch) == pytest.approx(expected, rel=1e-5)


def test_carried_state_gathers_a_speed_that_no_single_observation_shows() -> None:
    data, test = noise_world(0), noise_world(1)
    fit = FitConfig(updates=300, batch_size=64, lr=1e-2, horizon=1, ema=0.9, progress=False)
    config = lw.WorldConfig(
        width=16,
        depth=lw.depth.Fixed(2),
        objective=lw.Objective(intermediate=0.0, context=4),
    )
    model = lw.fit(data, config, fit)
    assert isinstance(model, WorldModel)
    batch = Windows(test, 4).at(torch.arange(0, 288, 12))
    # Without memory, the best linear guess of the next change is its regression on the position.
    position, change = batch.obs[:, 3, 0].numpy(), (batch.obs[:, 4] - batch.obs[:, 3])[:, 0].numpy()
    slope, offset = np.polyfit(position, change, 1)
    memoryless = (change - slope * position - offset).std() / float(model.stats.change_std[0])
    assert validation_error(model, batch) < 0.7 * memoryless


def test_context_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Objective.context must be at least 1, got 0"):
        lw.Objective(context=0)
