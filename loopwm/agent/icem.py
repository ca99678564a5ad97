"""iCEM: the cross-entropy method with coloured noise, kept elites and a shrinking population."""

import math
from collections.abc import Callable
from typing import Any, Unpack

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
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


class ICEM(SequencePlanner):
    """Plan by the improved cross-entropy method (iCEM, arXiv 2008.06389).

    As `CEM`, with noise that is correlated over time (`colour`), elites that stay candidates, in
    the next iteration and, moved on by a step, in the next plan, fewer candidates in each
    iteration, and the mean itself as a candidate of the last one. The best candidate found is the
    plan.

    Args:
        model: A world model, or a function of candidates; see `SequencePlanner`.
        candidates: Sequences N drawn in the first iteration; in each, at least twice `elites` are.
            Elites kept, and what a policy proposes, are scored besides.
        iterations: Times the distribution is refitted.
        elites: How many of the best are refitted to, at most `candidates`; by
            default an eighth of them and no more than 48.
        std: Initial standard deviation, in half the range of the actions, above 0.
        momentum: Share of the old distribution that is kept at a refit, in [0, 1).
        colour: Exponent of the noise: power falls with frequency f as `f ** -colour`; 0 is white.
        action_space: The space of one action, a Box, where the model does not tell it.
        options: Seed, horizon, discount, value, policy, proposals, halt and feedback; see
            `SequencePlanner` and `Lookahead`.
    """

    keep = 0.3
    decay = 1.25

    def __init__(
        self,
        model: WorldModelLike | Callable[..., Any],
        *,
        candidates: int = 512,
        iterations: int = 3,
        elites: int | None = None,
        std: float = 0.5,
        momentum: float = 0.1,
        colour: float = 2.0,
        action_space: gym.Space[Any] | None = None,
        **options: Unpack[PlannerOptions],
    ) -> None:
        super().__init__(model, action_space=action_space, **options)
        continuous_only(self)
        elites = elites_of(elites, candidates, 48)
        check_search(candidates, iterations, elites, std, momentum)
        if not colour >= 0:
            raise ConfigError(f"colour must be at least 0, got {colour}")
        self.candidates, self.iterations, self.elites = candidates, iterations, elites
        self.std, self.momentum, self.colour = std, momentum, colour

    @property
    def kept(self) -> int:
        """Return how many elites stay candidates."""
        return max(1, round(self.keep * self.elites))

    def fresh(self, rows: int, like: Tensor) -> Warm:
        """Begin in the middle of the range, which stands for all kept (see `SequencePlanner`)."""
        shape = (self.look.horizon, *self.units.axes)
        return like.new_zeros(rows, *shape), like.new_zeros(rows, self.kept, *shape)

    def search(self, problem: Problem, warm: Warm) -> tuple[Tensor, Warm]:
        """Refit, and return the best that was found (see `SequencePlanner`)."""
        mean, kept = warm
        _, steps, width = mean.shape
        blank = (kept == 0).flatten(1).all(1)
        std = torch.full_like(mean, self.std)
        for turn in range(self.iterations):
            count = max(2 * self.elites, round(self.candidates * self.decay**-turn))
            noise = coloured(problem.normal, (count, steps, width), self.colour)
            drawn = [(mean[:, None] + std[:, None] * noise).clamp(-1, 1), kept]
            if turn == self.iterations - 1:
                drawn.append(mean[:, None])
            candidates = problem.with_proposals(torch.cat(drawn, dim=1))
            returns = problem.rated(candidates)
            if turn == 0:
                returns = self._once(returns, count, blank)
            best, _ = best_of(candidates, returns, self.elites)
            kept = best[:, : self.kept]
            mean = self.momentum * mean + (1 - self.momentum) * best.mean(1)
            std = self.momentum * std + (1 - self.momentum) * best.std(1, correction=0)
        later = shifted(kept.flatten(0, 1)).view_as(kept)
        return kept[:, 0, 0], (shifted(mean), later)

    def _once(
        self, returns: Float[Tensor, "B N"], first: int, blank: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B N"]:
        """Let one of the kept sequences compete in rows where nothing was kept.

        There they are all the middle of the range, and so many of one would crowd the elites.
        """
        places = torch.arange(returns.shape[1], device=returns.device)
        repeated = (first < places) & (places < first + self.kept)
        return returns.masked_fill(blank[:, None] & repeated, -torch.inf)


def coloured(
    normal: Callable[..., Tensor], shape: tuple[int, int, int], exponent: float
) -> Float[Tensor, "N H A"]:
    """Draw noise whose power falls with frequency (Timmer and Koenig 1995).

    Args:
        normal: Draws standard normal numbers of a shape.
        shape: Sequences N, steps H and dimensions A.
        exponent: Power at frequency f goes as `f ** -exponent`; at 0 as at the lowest one.

    Returns:
        Noise of variance 1 at every step, correlated over the steps.
    """
    count, steps, width = shape
    if exponent == 0 or steps < 3:
        return normal(*shape)
    waves = steps // 2 + 1
    frequency = torch.arange(waves, dtype=torch.float64).clamp_min(1) / steps
    scale = frequency ** (-exponent / 2)
    # Frequency 0, and the highest of an even number of steps, have no imaginary part.
    alone = torch.zeros(waves, dtype=torch.bool)
    alone[0], alone[-1] = True, steps % 2 == 0
    power = torch.where(alone, scale**2, 2 * scale**2).sum()
    scale = scale * torch.where(alone, 1.0, math.sqrt(0.5)) * steps / power.sqrt()
    real, imaginary = normal(2, count, width, waves)
    scale, alone = scale.to(real), alone.to(real.device)
    spectrum = torch.complex(real * scale, torch.where(alone, 0.0, imaginary * scale))
    return torch.fft.irfft(spectrum, n=steps, dim=-1).transpose(1, 2)
