"""What a search over sequences of actions maximises: a model's returns, or the user's function."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from loopwm.agent.lookahead import (
    Lookahead,
    Quantile,
    imagined_returns,
    policy_rollouts,
    with_fixed_depth,
)
from loopwm.agent.units import Units
from loopwm.errors import ConfigError
from loopwm.world.arrays import to_tensor
from loopwm.world.protocol import State, WorldModelLike

# Below every return that counts, and its square over many candidates is still finite in float32.
_HOPELESS = -1e15


@dataclass(frozen=True, eq=False)
class Problem:
    """Hold what a search maximises, and where its randomness comes from.

    Attributes:
        score: Maps candidates [B, N, H, A] in [-1, 1], or indices [B, N, H], to returns [B, N],
            some of which may not be finite.
        like: An empty tensor of the floating type and device of all others.
        generator: Source of randomness.
        proposals: Candidates that a policy suggests [B, P, H, ...], or None.
    """

    score: Callable[[Tensor], Tensor]
    like: Float[Tensor, "0"]
    generator: torch.Generator
    proposals: Tensor | None = None

    def rated(self, candidates: Shaped[Tensor, "B N ..."]) -> Float[Tensor, "B N"]:
        """Return finite returns of candidates: those without one stand with the worst."""
        return _finite(self.score(candidates))

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        return self.like.new_empty(shape).normal_(generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers from [0, 1)."""
        return self.like.new_empty(shape).uniform_(generator=self.generator)

    def with_proposals(self, candidates: Shaped[Tensor, "B N ..."]) -> Shaped[Tensor, "B M ..."]:
        """Append what the policy suggests to the candidates."""
        if self.proposals is None:
            return candidates
        return torch.cat([candidates, self.proposals], dim=1)


def function_problem(
    function: Callable[..., Any],
    obs: Float[Tensor, "B O"],
    units: Units,
    generator: torch.Generator,
) -> Problem:
    """Maximise a function of candidates, or of candidates and observations.

    Args:
        function: Maps candidates in environment units to returns [B, N].
        obs: Observations from which is planned; the function gets them if it takes two arguments.
        units: Of the actions.
        generator: Source of randomness.
    """
    given = (obs,) if takes_observations(function) else ()

    def score(unit: Tensor) -> Tensor:
        returns = to_tensor(function(units.restore(unit), *given), obs.device).to(obs.dtype)
        if returns.shape != unit.shape[:2]:
            raise ConfigError(
                f"the function must return one number for each candidate, {tuple(unit.shape[:2])}, "
                f"got the shape {tuple(returns.shape)}"
            )
        return returns

    return Problem(score, obs.new_empty(0), generator)


def model_problem(
    model: WorldModelLike,
    state: State,
    obs: Float[Tensor, "B O"] | None,
    look: Lookahead,
    units: Units,
    generator: torch.Generator,
) -> Problem:
    """Maximise the return that a model imagines.

    Args:
        model: Anything with the verbs.
        state: State of each row.
        obs: Observations from which is planned, where a policy proposes.
        look: How far to look, and how.
        units: Of the actions.
        generator: Source of randomness.
    """
    like = state[0].new_empty(0, dtype=floating(state[0].dtype))
    problem = Problem(lambda unit: unit, like, generator)
    if isinstance(look.halt, Quantile):
        shape = (look.halt.probes, look.horizon, *units.axes)
        probes = units.restore(units.spread(problem.uniform(*shape)))
        look = with_fixed_depth(model, state, probes.expand(len(state[0]), *shape), look)

    def score(unit: Tensor) -> Tensor:
        return imagined_returns(model, state, units.restore(unit), look)

    proposals = None
    if look.policy is not None:
        assert obs is not None
        proposals = units.scale(policy_rollouts(model, state, obs, look), like)
    return replace(problem, score=score, proposals=proposals)


def check_function(function: Any, look: Lookahead) -> None:
    """Refuse what cannot take a model's place, and options that only a model can follow.

    Args:
        function: What was given in place of a model.
        look: The options beside it.

    Raises:
        ConfigError: If it is no function of candidates, or an option needs a model.
    """
    if not callable(function):
        raise ConfigError(
            "model must have the verbs start, observe and step, or be a function of candidates, "
            f"got {type(function).__name__}; read a saved model by lw.load(path)"
        )
    takes_observations(function)
    plain = Lookahead(look.horizon)
    if replace(look, horizon=plain.horizon, discount=plain.discount) != plain:
        raise ConfigError(
            "value, policy, halt and feedback need a model; a function of candidates scores them "
            "as it likes"
        )


def takes_observations(function: Callable[..., Any]) -> bool:
    """Say whether a function of candidates wants the observations too.

    Raises:
        ConfigError: If it can be called with neither one nor two arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False  # what is written in C does not tell
    for count in (1, 2):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count == 2
    raise ConfigError(
        f"a function in place of a model must take (candidates) or (candidates, obs), got "
        f"{signature}"
    )


def floating(dtype: torch.dtype) -> torch.dtype:
    """Return a floating type as it is, and the default one in place of another."""
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def _finite(returns: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
    """Put candidates without a finite return level with the worst of their row that has one.

    A row without any is worse than what other iterations found.
    """
    finite = torch.isfinite(returns)
    if bool(finite.all()):
        return returns
    worst = returns.detach().where(finite, torch.inf).amin(1, keepdim=True)
    return returns.where(finite, worst.where(torch.isfinite(worst), _HOPELESS))
