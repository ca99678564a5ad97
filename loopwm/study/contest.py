"""What imagination is compared with: the simulator itself, and mbrl-lib's ensemble."""

import importlib
from typing import Any

import numpy as np
import torch

from loopwm.data.engine import quiet_mujoco
from loopwm.data.store import RolloutDataset
from loopwm.study.timing import Contestant

SIMULATED_STEPS = 500


def simulator(data: RolloutDataset) -> Contestant:
    """Make stepping the environment that the data came from a contestant.

    Args:
        data: Its actions are replayed; the environment is reset whenever an episode ends.
    """
    with quiet_mujoco():
        env = data.make_env()
    env.reset(seed=0)
    actions = data.action[:SIMULATED_STEPS]

    def run() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return Contestant("the simulator, Gymnasium", run, len(actions))


def mbrl_ensemble(data: RolloutDataset, batch: int, horizon: int) -> Contestant | None:
    """Make mbrl-lib's default ensemble, 7 x (4x200) sampled by TS1, a contestant.

    Args:
        data: Sets the dimensions.
        batch: Trajectories at once; rounded up to a multiple of the five elites.
        horizon: Steps of each.

    Returns:
        The contestant, or None where mbrl-lib cannot be imported.
    """
    try:
        models: Any = importlib.import_module("mbrl.models")
    except (ImportError, ValueError):
        # mbrl-lib 0.2 pins a Hydra that raises ValueError when imported on Python 3.11.
        return None
    obs_dim, action_dim = data.obs_dim, data.action_dim
    members = models.GaussianMLP(
        obs_dim + action_dim, obs_dim + 1, "cpu", num_layers=4, ensemble_size=7, hid_size=200
    )
    members.set_elite(list(range(5)))
    members.set_propagation_method("random_model")
    wrapped = models.OneDTransitionRewardModel(members, target_is_delta=True, learned_rewards=True)
    rows = -(-batch // 5) * 5
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(horizon, rows, action_dim, generator=generator) * 2 - 1
    start = np.resize(data.obs, (rows, obs_dim)).astype(np.float32)

    def run() -> None:
        state = wrapped.reset(torch.from_numpy(start), rng=generator)
        for action in actions:
            _, _, _, state = wrapped.sample(action, state, deterministic=False, rng=generator)

    return Contestant("mbrl-lib ensemble, 7 x (4x200)", run, rows * horizon)
