"""Model predictive path integral control: candidates weigh in by their return."""

from collections.abc import Callable
from typing import Any, Unpack

import gymnasium as gym
import torch
from torch import Tensor

from loopwm.agent.planner import (
    PlannerOptions,
    SequencePlanner,
    Warm,
    best_of,
    continuous_only,
    shifted,
)
from loopwm.agent.problem import Problem
from loopwm.agent.search import check_search, elites_of
from loopwm.errors import ConfigError
from loopwm.world.protocol import WorldModelLike


class MPPI(SequencePlanner):
    """Plan by path integrals (MPPI, arXiv 1707.02342) as TD-MPC does (arXiv 2203.04955, eq. 4-5).

    Candidates are normal around the plan; of the best ones, the mean and the deviation, weighed by
    `exp(return / temperature)`, are the next. Returns are measured in standard deviations of the
    best candidates' returns, so that the scale of the reward does not matter.

    Args:
        model: A world model, or a function of candidates; see `SequencePlanner`.
        candidates: Sequences N scored in each iteration.
        iterations: Times the distribution is refitted.
        elites: How many of the best weigh in, at most `candidates`; by
            default a quarter of them and no more than 64.
        temperature: Return for which a weight falls by a factor e, in the elites' spread, above 0.
        std: Standard deviation at first, and at least later, in half the range of actions, above 0.
        action_space: The space of one action, a Box, where the model does not tell it.
        options: Seed, horizon, discount, value, policy, proposals, halt and feedback; see
            `SequencePlanner` and `Lookahead`.
    """

    def __init__(
        self,
        model: WorldModelLike | Callable[..., Any],
        *,
        candidates: int = 512,
        iterations: int = 3,
        elites: int | None = None,
        temperature: float = 0.5,
        std: tuple[float, float] = (0.5, 0.05),
        action_space: gym.Space[Any] | None = None,
        **options: Unpack[PlannerOptions],
    ) -> None:
        super().__init__(model, action_space=action_space, **options)
        continuous_only(self)
        elites = elites_of(elites, candidates, 64, share=4)
        check_search(candidates, iterations, elites, min(std))
        if not temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {temperature}")
        self.candidates, self.iterations, self.elites = candidates, iterations, elites
        self.temperature, self.std = temperature, std

    def fresh(self, rows: int, like: Tensor) -> Warm:
        """Begin in the middle of the range (see `SequencePlanner`)."""
        return (like.new_zeros(rows, self.look.horizon, *self.units.axes),)

    def search(self, problem: Problem, warm: Warm) -> tuple[Tensor, Warm]:
        """Weigh, and return the weighted mean (see `SequencePlanner`)."""
        mean, std = warm[0], torch.full_like(warm[0], self.std[0])
        for _ in range(self.iterations):
            noise = problem.normal(self.candidates, *mean.shape[1:])
            drawn = problem.with_proposals((mean[:, None] + std[:, None] * noise).clamp(-1, 1))
            best, returns = best_of(drawn, problem.rated(drawn), self.elites)
            spread = returns.std(1, correction=0, keepdim=True)
            # Candidates that are all alike weigh alike.
            unit = self.temperature * spread.clamp_min(torch.finfo(spread.dtype).tiny)
            weight = torch.softmax((returns - returns[:, :1]) / unit, dim=1)[..., None, None]
            mean = (weight * best).sum(1)
            std = (weight * (best - mean[:, None]).square()).sum(1).sqrt().clamp_min(self.std[1])
        return mean[:, 0], (shifted(mean),)
