"""Imagined environments serve learning code written for real ones, unchanged."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from torch import nn

import loopwm as lw
from tests.agent.known import CartPole, Point

STARTS = np.random.default_rng(0).uniform(-1, 1, (50, 1)).astype(np.float32)


def points(num_envs: int, horizon: int = 10) -> lw.ImaginationVectorEnv:
    space = Box(-1.0, 1.0, (1,), np.float32)
    return lw.ImaginationVectorEnv(Point(), STARTS, num_envs, horizon, action_space=space)


@pytest.mark.slow
def test_a_cleanrl_loop_learns_over_the_vector_environment():
    # CleanRL's ppo_continuous_action.py in its bare outline: the loop knows nothing but Gymnasium.
    envs, generator = points(32), torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        actor, critic = (nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
                         for _ in range(2))  # fmt: skip
    log_std = nn.Parameter(torch.full((1,), -0.7))
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters(), log_std], lr=5e-3)
    obs, _ = envs.reset(seed=0)
    rewards = []
    for _ in range(40):
        steps: list[tuple[torch.Tensor, ...]] = []
        for _ in range(11):
            seen = torch.as_tensor(obs)
            with torch.no_grad():
                mean, std = actor(seen), log_std.exp()
                action = mean + std * torch.randn(mean.shape, generator=generator)
                logp = torch.distributions.Normal(mean, std).log_prob(action).sum(1)
            obs, reward, terminated, truncated, _ = envs.step(action.clamp(-1, 1).numpy())
            over = torch.as_tensor(terminated | truncated).float()
            steps.append((seen, action, logp, torch.as_tensor(reward).float(), over))
        rewards.append(float(torch.stack([each[3] for each in steps]).mean()))
        with torch.no_grad():
            value, returns = critic(torch.as_tensor(obs)).squeeze(1), []
            for _, _, _, reward, over in reversed(steps):
                value = reward + 0.9 * (1 - over) * value
                returns.insert(0, value)
        seen, action, before = (torch.cat([s[i] for s in steps]) for i in range(3))
        target = torch.cat(returns)
        for _ in range(5):
            value = critic(seen).squeeze(1)
            gain = target - value.detach()
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            logp = torch.distributions.Normal(actor(seen), log_std.exp()).log_prob(action).sum(1)
            ratio = (logp - before).exp()
            clipped = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
            loss = -clipped.mean() + 0.5 * (target - value).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    # Chance costs about 0.32 a step; going straight to zero about 0.04.
    assert np.mean(rewards[:2]) < -0.28
    assert np.mean(rewards[-5:]) > -0.12


def test_gymnasiums_own_vector_wrappers_go_around_it():
    from gymnasium.wrappers.vector import RecordEpisodeStatistics

    envs = RecordEpisodeStatistics(points(4, horizon=3))
    envs.reset(seed=0)
    info: dict[str, Any] = {}
    for _ in range(3):
        *_, info = envs.step(np.zeros((4, 1), np.float32))
    assert info["episode"]["l"].tolist() == [3, 3, 3, 3]


def test_torchrl_rolls_out_through_its_gymnasium_wrapper():
    wrappers = pytest.importorskip("torchrl.envs.libs.gym")
    checks = pytest.importorskip("torchrl.envs.utils")
    starts = np.zeros((3, 4), np.float32)
    imagined: Any = lw.ImaginationEnv(CartPole(), starts, 200, action_space=Discrete(2))
    env = wrappers.GymWrapper(imagined)
    checks.check_env_specs(env)
    env.set_seed(0)
    rolled = env.rollout(60, break_when_any_done=True)
    real: Any = gym.make("CartPole-v1")
    real.reset(seed=0)
    real.unwrapped.state = np.zeros(4)
    for action, after, over in zip(
        rolled["action"].argmax(-1), rolled["next", "observation"], rolled["next", "terminated"],
        strict=True,
    ):  # fmt: skip
        expected, _, terminated, _, _ = real.step(int(action))
        np.testing.assert_allclose(after.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert bool(over) == terminated
    assert bool(rolled["next", "done"][-1])


def test_torchrl_wraps_the_vector_environment_too():
    wrappers = pytest.importorskip("torchrl.envs.libs.gym")
    envs = lw.ImaginationVectorEnv(
        Point(), STARTS, 5, 4, action_space=Box(-1.0, 1.0, (1,), np.float32),
        autoreset_mode=AutoresetMode.DISABLED,
    )  # fmt: skip
    rolled = wrappers.GymWrapper(envs).rollout(6, break_when_any_done=False)
    assert rolled.batch_size == torch.Size([5, 6])
    assert rolled["next", "truncated"][:, 3].all()
    moved = rolled["observation"] + rolled["action"] / 4
    torch.testing.assert_close(rolled["next", "observation"], moved)
