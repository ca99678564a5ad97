"""How an agent is doing on the way: real returns, and what the model would have promised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from loopwm.agent.evaluate import play
from loopwm.data.environment import Source
from loopwm.data.episode import Episode
from loopwm.errors import ConfigError

# Steps that the model imagines on end when it is asked what it thinks of a real episode.
STRETCH = 25


@dataclass(frozen=True)
class Scoring:
    """Say when an agent is evaluated while it learns, without exploration.

    Args:
        every: Real steps between evaluations, at least 1; None evaluates at the end alone.
        episodes: Episodes of each, at least 0; 0 never evaluates.
        seed: Seed of the episodes, the same at every evaluation.
    """

    every: int | None = None
    episodes: int = 5
    seed: int = 1_000

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.every is not None and self.every < 1:
            raise ConfigError(f"Scoring.every must be at least 1 or None, got {self.every}")
        if self.episodes < 0 or self.seed < 0:
            raise ConfigError(
                "Scoring.episodes and .seed must not be negative, "
                f"got {self.episodes} and {self.seed}"
            )

    def due(self, before: int, now: int, last: int) -> bool:
        """Say whether an evaluation falls between two numbers of steps.

        Args:
            before: Steps at the end of the last round.
            now: Steps at the end of this one.
            last: Steps of the whole run.
        """
        if not self.episodes:
            return False
        return now >= last or (self.every is not None and now // self.every > before // self.every)


def score(
    policy: Any,
    model: Any,
    env: Source,
    scoring: Scoring,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    unclipped: bool = False,
) -> dict[str, Any]:
    """Evaluate an agent, and ask its model what it thinks of the same episodes.

    Args:
        policy: What acts.
        model: Its model, or None.
        env: The environment.
        scoring: How many episodes, from which seed.
        env_kwargs: Arguments for the environment.
        unclipped: Observe velocities as simulated.

    Returns:
        `returns` of the episodes and `real_return`, their mean; with a model also
        `imagined_return`: the mean of what it imagines under the same actions, in stretches of
        `STRETCH` steps that begin at real observations, weighed by survival. An episode that failed
        in its first step has no return; if all did, there is nothing to return.
    """
    episodes = play(
        policy, env, scoring.episodes, scoring.seed, env_kwargs=env_kwargs, unclipped=unclipped
    )
    episodes = [each for each in episodes if len(each)]
    if not episodes:
        return {}
    record: dict[str, Any] = {"returns": [float(each.reward.sum()) for each in episodes]}
    record["real_return"] = float(np.mean(record["returns"]))
    if model is not None:
        record["imagined_return"] = float(np.mean([_promised(model, each) for each in episodes]))
    return record


def _promised(model: Any, episode: Episode) -> float:
    """Return what the model says of an episode, stretch by stretch, each begun where it really was.

    A termination that it expects takes the rest of the stretch with it.
    """
    total, length = 0.0, len(episode)
    whole = length - length % STRETCH
    parts = [(np.arange(0, whole, STRETCH), STRETCH)] if whole else []
    parts += [(np.array([whole]), length - whole)] if whole < length else []
    for starts, steps in parts:
        actions = episode.action[starts[:, None] + np.arange(steps)]
        with torch.no_grad():
            seen = model.imagine(episode.obs[starts].astype(np.float32), actions, decode="reward")
        alive = np.concatenate([np.ones((len(starts), 1)), seen.alive[:, :-1]], axis=1)
        total += float((alive * seen.reward).sum())
    return total
