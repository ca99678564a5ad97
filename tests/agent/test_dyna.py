"""Dyna mixes what it lived through with what its model imagines, and says how well it fares."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from loopwm.agent.config import MPC, Dyna, Refit, SoftActorCritic
from loopwm.agent.life import Life
from loopwm.agent.mpc import MPCLearner
from loopwm.agent.refits import Refits
from loopwm.core.depth import Fixed
from loopwm.errors import ConfigError, EnvironmentUnsupported
from loopwm.train.config import FitConfig
from loopwm.world.config import WorldConfig
from tests.agent.worlds import Levers, PointEnv

pytest.importorskip("stable_baselines3")
from loopwm.agent.dyna import DynaLearner
from loopwm.agent.soft import (
    load_tensors,
    save_tensors,
    soft_actor_critic_for,
)

TINY = Refit(
    model=WorldConfig(width=8, depth=Fixed(1)),
    fit=FitConfig(updates=5, batch_size=16, horizon=1, progress=False),
    updates=3,
    first=20,
    every=10,
)
SMALL = SoftActorCritic(updates=3, batch_size=20, actor=(8,), critic=(8,))
DYNA = Dyna(refit=TINY, learner=SMALL, horizon=4, rollouts=2, keep=2, real_share=0.25)


def life(steps: int = 20) -> Life:
    found, rng = Life(PointEnv, seed=0), np.random.default_rng(0)
    for _ in range(steps):
        found.step(rng.uniform(-1, 1, 1).astype(np.float32))
    return found


def learner(config: Dyna = DYNA) -> DynaLearner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DynaLearner(config, life(1).meta, 1, Refits(config.refit, 0), 0)


def test_a_refit_imagines_the_stated_number_of_steps_from_real_states():
    dyna, data = learner(), life().dataset()
    record = dyna.refit(data)
    assert dyna.imagined.size == 2 * 10 * 4
    names = {"model_error", "imagined_reward", "imagined_ends", "imagined_broken"}
    assert record.keys() == names
    assert record["imagined_broken"] == 0
    begins = dyna.imagined.state()["obs"][:20, 0]
    assert set(begins.tolist()) <= set(data.obs[:, 0].tolist())
    dyna.refit(data)
    dyna.refit(data)
    assert dyna.imagined.size == 2 * 80  # of the newest two refits


def test_members_without_a_share_of_the_rollouts_imagine_nothing():
    few = replace(DYNA, refit=replace(TINY, members=3, every=2), rollouts=1)
    dyna = learner(few)
    record = dyna.refit(life().dataset())
    assert dyna.imagined.size == 2 * few.horizon
    assert record["imagined_broken"] == 0


def test_imagined_steps_are_those_of_the_model():
    dyna = learner()
    dyna.refit(life().dataset())
    kept = dyna.imagined.state()
    assert dyna.model is not None
    said = dyna.model.predict(kept["obs"][:20], kept["action"][:20])
    np.testing.assert_allclose(kept["next_obs"][:20], said.next_obs, atol=1e-5)
    np.testing.assert_allclose(kept["reward"][:20, 0], said.reward, atol=1e-5)
    # Within a rollout a step begins where the last one led, unless that was the end.
    goes_on = kept["terminated"][:20, 0] == 0
    assert 0 < goes_on.sum() < 20
    np.testing.assert_array_equal(kept["obs"][20:40][goes_on], kept["next_obs"][:20][goes_on])
    assert set(kept["obs"][20:40, 0][~goes_on].tolist()) <= set(life().dataset().obs[:, 0].tolist())


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_predictions_that_are_not_finite_are_counted_and_not_learned_from(share: float):
    def reward(obs: Any, action: Any, next_obs: Any) -> Any:
        limit = -2.0 if share == 1 else 0.0
        return torch.where(action[..., 0] > limit, torch.nan, 1.0 + 0 * action[..., 0])

    refits = Refits(TINY, 0, reward_fn=reward)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dyna = DynaLearner(DYNA, life(1).meta, 1, refits, 0)
        record = dyna.refit(life().dataset())
        dyna.learn(life().step(np.zeros(1, np.float32)))
    kept = dyna.imagined.state()
    assert record["imagined_broken"] == pytest.approx(1 - len(kept["reward"]) / 80)
    assert (kept["reward"] == 1).all()
    assert (kept["action"] <= 0).all()
    if share == 1:
        assert (record["imagined_reward"], record["imagined_broken"]) == (None, 1)
    else:
        assert record["imagined_reward"] == 1
        assert 10 < len(kept["reward"]) < 70


def test_real_steps_are_learned_from_once_each():
    dyna, real = learner(), life()
    dyna.refit(real.dataset())
    assert dyna.real.size == 20
    dyna.learn(real.step(np.array([0.5], np.float32)))
    dyna.learn(None)
    assert dyna.real.size == 21
    kept = dyna.real.state()
    np.testing.assert_array_equal(kept["obs"][:, 0], real.dataset().obs[:, 0])
    assert kept["action"][-1, 0] == 0.5
    assert dyna.sac._n_updates == 6


def test_actions_are_kept_in_the_units_of_the_policy():
    class Wide(PointEnv):
        action_space = Box(-3.0, 1.0, (1,), np.float32)

    real = Life(Wide, seed=0)
    for action in (-3.0, -1.0, 1.0, 0.0):
        real.step(np.array([action], np.float32))
    dyna = DynaLearner(DYNA, real.meta, 1, Refits(TINY, 0), 0)
    dyna.refit(real.dataset())
    np.testing.assert_allclose(dyna.real.state()["action"][:, 0], [-1, 0, 1, 0.5])
    assert np.abs(dyna.imagined.state()["action"]).max() <= 1


def test_without_imagination_there_is_no_model_and_as_many_updates():
    off = learner(replace(DYNA, real_share=1.0))
    assert not off.ready
    assert off.refit(life().dataset()) == {}
    assert off.ready
    assert off.model is None
    off.learn(life().step(np.zeros(1, np.float32)))
    assert off.sac._n_updates == 3
    assert (off.sac.replay_buffer.sample(20).observations.abs() <= 4).all()


def test_shares_become_whole_numbers_of_rows():
    for share, rows in ((0.25, 5), (0.01, 1), (0.999, 19), (1.0, 20), (0.5, 10)):
        assert replace(DYNA, real_share=share).real_rows == rows


def test_the_policy_it_returns_acts_as_stable_baselines_would():
    dyna = learner()
    obs = np.linspace(-1, 1, 30, dtype=np.float32)[:, None]
    expected, _ = dyna.sac.predict(obs, deterministic=True)
    found = np.stack([dyna.policy()(each) for each in obs])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_learner_whose_state_was_written_goes_on_as_it_would_have():
    def batches(model: Any) -> None:
        def sample(*_: Any, **__: Any) -> Any:
            rng = torch.Generator().manual_seed(1)
            columns = [torch.rand(16, width, generator=rng) for width in (3, 2, 3, 1, 1)]
            from stable_baselines3.common.type_aliases import ReplayBufferSamples

            return ReplayBufferSamples(*columns)

        model.replay_buffer.sample = sample
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            model.train(4, 16)

    space = Box(-1.0, 1.0, (2,), np.float32)
    first, second = (soft_actor_critic_for(SMALL, 3, space) for _ in range(2))
    batches(first)
    load_tensors(second, save_tensors(first))
    batches(first)
    batches(second)
    one, two = save_tensors(first), save_tensors(second)
    assert one.keys() == two.keys()
    assert any("exp_avg_sq" in name for name in one)
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value)


@pytest.mark.parametrize("normalised", [False, True])
def test_critics_normalise_what_their_hidden_layers_pass_on_where_asked(normalised: bool):
    config = replace(SMALL, critic=(8, 6), layer_norm=normalised)
    sac = soft_actor_critic_for(config, 3, Box(-1.0, 1.0, (2,), np.float32))
    rows = torch.randn(5, 5)
    for network in (sac.critic.qf0, sac.critic_target.qf1):
        first, _, second, _, last = network
        hidden = rows
        for layer in (first, second):
            hidden = layer(hidden)
            if normalised:
                spread = hidden.var(dim=1, keepdim=True, unbiased=False) + 1e-5
                hidden = (hidden - hidden.mean(dim=1, keepdim=True)) / spread.sqrt()
            hidden = hidden.clamp_min(0)
        torch.testing.assert_close(network(rows), last(hidden))


def test_the_policy_of_normalised_critics_acts_as_it_practised():
    dyna = learner(replace(DYNA, learner=replace(SMALL, layer_norm=True)))
    obs = np.array([0.3], np.float32)
    expected, _ = dyna.sac.predict(obs, deterministic=True)
    np.testing.assert_allclose(dyna.policy()(obs), expected, atol=1e-6)


def test_discrete_actions_are_refused_with_the_remedy():
    with pytest.raises(EnvironmentUnsupported, match=r"plan with lw\.MPC"):
        DynaLearner(DYNA, Life(Levers, seed=0).meta, 2, Refits(TINY, 0), 0)


def test_actions_without_bounds_are_refused_with_the_remedy():
    class Unbounded(PointEnv):
        action_space = Box(-np.inf, np.inf, (1,), np.float32)

    meta = Life(Unbounded, seed=0).meta
    with pytest.raises(EnvironmentUnsupported, match="TransformAction") as raised:
        DynaLearner(DYNA, meta, 1, Refits(TINY, 0), 0)
    assert "MPC" not in str(raised.value)
    with pytest.raises(EnvironmentUnsupported, match="bounds are needed"):
        MPCLearner(MPC(), meta, Refits(TINY, 0), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "Dyna.horizon"),
        ({"rollouts": 0}, "Dyna.rollouts"),
        ({"real_share": 0.0}, "real_share"),
        ({"real_share": 1.5}, "real_share"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Dyna(**settings)
