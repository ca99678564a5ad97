"""Gradient shooting: climb the return along its gradient with respect to the actions."""

from collections.abc import Callable
from typing import Any, Unpack

import gymnasium as gym
import torch
from torch import Tensor

from loopwm.agent.lookahead import Quantile
from loopwm.agent.planner import (
    PlannerOptions,
    SequencePlanner,
    Warm,
    best_of,
    continuous_only,
    shifted,
)
from loopwm.agent.problem import Problem
from loopwm.agent.search import check_search
from loopwm.core.halt import Fixed
from loopwm.errors import ConfigError
from loopwm.world.protocol import WorldModelLike


class Shooting(SequencePlanner):
    """Plan by gradient ascent through the model, from several starts at once.

    The starts are normal around the plan, which is one of them itself. Each climbs by Adam (arXiv
    1412.6980), clipped to the bounds after every update; the best sequence met on the way is the
    plan. The model must be differentiable in torch, and refine to a fixed depth.

    Args:
        model: A world model, or a differentiable function of candidates; see `SequencePlanner`.
        candidates: Sequences N that climb.
        iterations: Updates of each.
        lr: Step size, in half the range of the actions, above 0.
        std: Standard deviation of the starts, in half the range of the actions, above 0.
        action_space: The space of one action, a Box, where the model does not tell it.
        options: Seed, horizon, discount, value, policy, proposals, halt and feedback; see
            `SequencePlanner` and `Lookahead`.
    """

    def __init__(
        self,
        model: WorldModelLike | Callable[..., Any],
        *,
        candidates: int = 32,
        iterations: int = 12,
        lr: float = 0.1,
        std: float = 0.5,
        action_space: gym.Space[Any] | None = None,
        **options: Unpack[PlannerOptions],
    ) -> None:
        super().__init__(model, action_space=action_space, **options)
        continuous_only(self)
        check_search(candidates, iterations, 1, std)
        if not lr > 0:
            raise ConfigError(f"lr must be above 0, got {lr}")
        if not isinstance(self.look.halt, Fixed | Quantile | None):
            raise ConfigError(
                "halt must be lw.Fixed(...), a Quantile or None for Shooting, whose gradient needs "
                f"one depth for all, got {self.look.halt}"
            )
        self.candidates, self.iterations, self.lr, self.std = candidates, iterations, lr, std

    def fresh(self, rows: int, like: Tensor) -> Warm:
        """Begin in the middle of the range (see `SequencePlanner`)."""
        return (like.new_zeros(rows, self.look.horizon, *self.units.axes),)

    def search(self, problem: Problem, warm: Warm) -> tuple[Tensor, Warm]:
        """Climb, and return the best that was met (see `SequencePlanner`)."""
        noise = problem.normal(self.candidates, *warm[0].shape[1:])
        noise[0] = 0
        unit = problem.with_proposals((warm[0][:, None] + self.std * noise).clamp(-1, 1))
        best, most = unit, problem.like.new_full(unit.shape[:2], -torch.inf)
        first, second = torch.zeros_like(unit), torch.zeros_like(unit)
        for turn in range(1, self.iterations + 1):
            returns, slope = _slope(problem, unit)
            best, most = _better(unit, returns, best, most)
            first.lerp_(slope, 0.1)
            second.lerp_(slope.square(), 0.001)
            pace = (second / (1 - 0.999**turn)).sqrt().add_(1e-8)
            unit = (unit + self.lr * first / (1 - 0.9**turn) / pace).clamp(-1, 1)
        best, most = _better(unit, problem.score(unit), best, most)
        plan = best_of(best, most, 1)[0][:, 0]
        return plan[:, 0], (shifted(plan),)


def _slope(problem: Problem, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the returns of candidates, and their gradient where it is finite, else 0."""
    with torch.enable_grad():
        leaf = unit.detach().requires_grad_()
        returns = problem.score(leaf)
        if not returns.requires_grad:
            raise ConfigError(
                "Shooting needs returns that torch can differentiate with respect to the actions; "
                "lw.CEM needs none"
            )
        counted = returns.where(torch.isfinite(returns), 0.0)
        (slope,) = torch.autograd.grad(counted.sum(), leaf)
    # Squares of what is larger would overflow.
    return returns.detach(), torch.nan_to_num(slope, posinf=0.0, neginf=0.0).clamp(-1e15, 1e15)


def _better(unit: Tensor, returns: Tensor, best: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    # NaN is never greater by itself; an infinite return is no better than none.
    better = (returns > most) & torch.isfinite(returns)
    return torch.where(better[..., None, None], unit, best), torch.where(better, returns, most)
