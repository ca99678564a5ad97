"""Candidate sequences at real states, and what the simulator says they are worth."""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray

from loopwm.agent.imagination import action_space_of
from loopwm.agent.lookahead import discounted
from loopwm.data.excitation import OpenLoop, OrnsteinUhlenbeck, Uniform
from loopwm.data.simulator import play
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError
from loopwm.seed import numpy_rng
from loopwm.study.windows import Sampling, window_rows

_KINDS: tuple[OpenLoop, ...] = (Uniform(), OrnsteinUhlenbeck())


@dataclass(frozen=True)
class Trial:
    """Say what is scored at how many states.

    Of the candidates at a state, the first is what was really done there; the others are noise, by
    turns uniform and an Ornstein-Uhlenbeck process.

    Attributes:
        states: Most held-out states W, at least 1, spread evenly over the data.
        candidates: Sequences N at each, at least 3.
        horizon: Steps H of each, at least 1.
        discount: Weight of a reward relative to that of the step before, in (0, 1].
        seed: Seed of states and noise.
    """

    states: int = 48
    candidates: int = 256
    horizon: int = 12
    discount: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If a number is out of range.
        """
        for name, least in (("states", 1), ("candidates", 3), ("horizon", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.discount <= 1:
            raise ConfigError(f"discount must lie in (0, 1], got {self.discount}")


@dataclass(frozen=True, eq=False)
class Candidates:
    """Hold candidates at real states with their true returns; the same for every model.

    Attributes:
        trial: What was asked for.
        obs: The states' observations.
        episode: Episode of each state.
        actions: Candidates [W, N, H, A].
        returns: What the simulator gains under each, NaN where it diverges.
        ends: Whether the task terminates within the horizon.
    """

    trial: Trial
    obs: Float[ndarray, "W O"]
    episode: Int[ndarray, " W"]
    actions: Shaped[ndarray, "W N H ..."]
    returns: Float[ndarray, "W N"]
    ends: Bool[ndarray, "W N"]


def simulated_candidates(data: RolloutDataset, trial: Trial = Trial()) -> Candidates:
    """Draw candidates at states of the data, and let the simulator tell their returns.

    States of a variant of the environment other than its first, which alone is simulated, are left
    out.

    Args:
        data: Held-out experience of a task that can be restarted from its observations.
        trial: How many, how long, how drawn.

    Raises:
        DataError: If no episode is as long as the horizon.
        EnvironmentUnsupported: If the simulator cannot be set to an observation.
    """
    variant = data.info.get("variant")
    keep = None if variant is None else variant == 0
    sampling = Sampling(max_windows=trial.states, seed=trial.seed)
    rows = window_rows(data, trial.horizon, 0, sampling, keep)
    if not len(rows):
        raise DataError(f"no episode of the data has {trial.horizon} steps; lower the horizon")
    taken = data.action[rows[:, None] + np.arange(trial.horizon)]
    space = action_space_of(data.meta)
    noise = [_noise(space, trial, index) for index in range(len(rows))]
    actions = np.concatenate([taken[:, None], np.stack(noise).astype(taken.dtype)], axis=1)
    flat = actions.reshape(-1, *actions.shape[2:])
    played = play(data.meta, np.repeat(data.obs[rows], trial.candidates, axis=0), flat)
    reward, ended = torch.as_tensor(played.reward), torch.as_tensor(played.terminated).double()
    # What diverges after the end of the episode is of no account.
    over = torch.cat([torch.zeros_like(ended[:, :1]), ended.cummax(1).values[:, :-1]], dim=1)
    reward = reward.where(over == 0, 0.0)
    returns = discounted(reward, ended, None, trial.discount).numpy()
    shape = actions.shape[:2]
    return Candidates(
        trial=trial,
        obs=data.obs[rows],
        episode=data.episode[rows].astype(np.int64),
        actions=actions,
        returns=returns.reshape(shape),
        ends=np.asarray(played.terminated.any(axis=1)).reshape(shape),
    )


def _noise(space: gym.Space, trial: Trial, index: int) -> Shaped[ndarray, "N H ..."]:
    rng = numpy_rng(trial.seed, "candidates", index)
    return np.stack(
        [
            _KINDS[turn % len(_KINDS)].actions(rng, space, trial.horizon)
            for turn in range(trial.candidates - 1)
        ]
    )
