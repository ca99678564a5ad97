"""The cross-entropy method: refit the distribution of candidates to the best of them."""

from collections.abc import Callable
from typing import Any, Unpack

import gymnasium as gym
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from loopwm.agent.planner import PlannerOptions, SequencePlanner, Warm, best_of, shifted
from loopwm.agent.problem import Problem
from loopwm.agent.search import check_search, elites_of
from loopwm.world.protocol import WorldModelLike


class CEM(SequencePlanner):
    """Plan by the cross-entropy method (Rubinstein 1999; PETS, arXiv 1805.12114).

    Continuous actions: each is normal, independently of the others, clipped to the bounds; mean and
    deviation become those of the elites, and the mean is the plan. Discrete actions: each is
    categorical, its probabilities become the elites' frequencies, and the best sequence that was
    drawn is the plan. The next search begins at this one moved on by a step, as wide as the first;
    of discrete actions, halfway back to equal chances.

    Args:
        model: A world model, or a function of candidates; see `SequencePlanner`.
        candidates: Sequences N scored in each iteration.
        iterations: Times the distribution is refitted.
        elites: How many of the best are refitted to, at most `candidates`; by
            default an eighth of them and no more than 48.
        std: Initial standard deviation, in half the range of the actions, above 0.
        momentum: Share of the old distribution that is kept at a refit, in [0, 1).
        action_space: The space of one action, where the model does not tell it.
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
        std: float = 0.5,
        momentum: float = 0.1,
        action_space: gym.Space[Any] | None = None,
        **options: Unpack[PlannerOptions],
    ) -> None:
        super().__init__(model, action_space=action_space, **options)
        elites = elites_of(elites, candidates, 48)
        check_search(candidates, iterations, elites, std, momentum)
        self.candidates, self.iterations, self.elites = candidates, iterations, elites
        self.std, self.momentum = std, momentum

    def fresh(self, rows: int, like: Tensor) -> Warm:
        """Begin in the middle of the range, or with equal chances (see `SequencePlanner`)."""
        choices = self.units.choices
        if choices is not None:
            return (like.new_full((rows, self.look.horizon, choices), 1 / choices),)
        return (like.new_zeros(rows, self.look.horizon, *self.units.axes),)

    def search(self, problem: Problem, warm: Warm) -> tuple[Tensor, Warm]:
        """Refit, and return the mean, or the best of indices (see `SequencePlanner`)."""
        if self.units.choices is not None:
            return self._search_discrete(problem, warm[0])
        mean, std = warm[0], torch.full_like(warm[0], self.std)
        for _ in range(self.iterations):
            noise = problem.normal(self.candidates, *mean.shape[1:])
            drawn = (mean[:, None] + std[:, None] * noise).clamp(-1, 1)
            drawn = problem.with_proposals(drawn)
            best, _ = best_of(drawn, problem.rated(drawn), self.elites)
            mean = self._mixed(mean, best.mean(1))
            std = self._mixed(std, best.std(1, correction=0))
        return mean[:, 0], (shifted(mean),)

    def _search_discrete(
        self, problem: Problem, chances: Float[Tensor, "B H C"]
    ) -> tuple[Tensor, Warm]:
        horizon, choices = chances.shape[1:]
        found = chances.new_zeros(chances.shape[:2], dtype=torch.long)
        most = chances.new_full(chances.shape[:1], -torch.inf)
        for _ in range(self.iterations):
            drawn = problem.with_proposals(
                sample(chances, problem.uniform(self.candidates, horizon))
            )
            best, returns = best_of(drawn, problem.rated(drawn), self.elites)
            better = returns[:, 0] > most
            found = torch.where(better[:, None], best[:, 0], found)
            most = torch.where(better, returns[:, 0], most)
            chances = self._mixed(chances, F.one_hot(best, choices).to(chances).mean(1))
        return found[:, 0], ((shifted(chances, 1 / choices) + 1 / choices) / 2,)

    def _mixed(self, old: Tensor, new: Tensor) -> Tensor:
        return self.momentum * old + (1 - self.momentum) * new


def sample(chances: Float[Tensor, "B H C"], uniform: Float[Tensor, "N H"]) -> Tensor:
    """Draw indices [B, N, H] by inverting the distribution function at uniform numbers."""
    edges = chances.cumsum(-1)[:, None, :, :-1]
    return (uniform[..., None] >= edges).sum(-1)
