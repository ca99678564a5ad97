"""What a planner is, and what all that search sequences of actions have in common."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, Unpack, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from loopwm.agent.lookahead import Lookahead, Options
from loopwm.agent.problem import (
    Problem,
    check_function,
    floating,
    function_problem,
    model_problem,
)
from loopwm.agent.units import Units
from loopwm.errors import ConfigError, DataError
from loopwm.seed import torch_rng
from loopwm.world.arrays import Edge, to_tensor
from loopwm.world.protocol import State, WorldModelLike


class PlannerOptions(Options, total=False):
    """List what every planner takes by name beside its own settings; see `SequencePlanner`."""

    seed: int


# What a search leaves for the next step; each tensor has the leading axis B.
Warm = tuple[Tensor, ...]


@runtime_checkable
class Planner(Protocol):
    """Choose actions by looking ahead.

    What a planner found for one step is where its search begins at the next one, so it must be
    told where episodes begin.

    Attributes:
        model: What the planner looks ahead in; a model that was trained further may replace it
            between two calls.
    """

    model: Any

    def plan(self, obs: Any) -> Any:
        """Return an action [A] for an observation [O], or actions [B, A] for [B, O].

        An action of a Discrete space is an int64 without an axis.
        """
        ...

    def reset(self, mask: Any = None) -> None:
        """Forget where the search stood, of all rows or of those where mask [B] is True."""
        ...


class SequencePlanner(ABC):
    """Search for the best sequence of actions, return its first, and go on from there next time.

    A row of a batch is planned as it would be alone: all rows share the random numbers of the
    search, and nothing else (but for the depth, where `halt` is a `Quantile`). A call with another
    number of rows than the one before begins anew.

    Args:
        model: Anything with the verbs start, observe and step; or a function that maps candidates
            [B, N, H, A] in environment units (indices [B, N, H] of a Discrete space), as a torch
            tensor, to returns [B, N], and that may take the observations [B, O] besides.
        action_space: The space of one action, where the model's training data does not tell it.
        seed: Seed of the search, not negative.
        options: The fields of `Lookahead`, by name.

    Raises:
        ConfigError: If an option is out of range, or the action space is not known.
        EnvironmentUnsupported: If the action space has no bounds.
    """

    def __init__(
        self,
        model: WorldModelLike | Callable[..., Any],
        *,
        action_space: gym.Space[Any] | None = None,
        seed: int = 0,
        **options: Unpack[Options],
    ) -> None:
        self.model: Any = model
        self.look = Lookahead(**options)
        if not isinstance(model, WorldModelLike):
            check_function(model, self.look)
        self.units = Units.of(action_space, model)
        if seed < 0:
            raise ConfigError(f"seed must not be negative, got {seed}")
        self.seed = seed
        self._warm: Warm | None = None
        self._generator: torch.Generator | None = None

    @abstractmethod
    def fresh(self, rows: int, like: Tensor) -> Warm:
        """Return where a search begins that has nothing to go on from.

        Args:
            rows: Number of rows B.
            like: A tensor of the wanted floating type and device.
        """
        ...

    @abstractmethod
    def search(self, problem: Problem, warm: Warm) -> tuple[Shaped[Tensor, "B ..."], Warm]:
        """Search from `warm`.

        Args:
            problem: What is maximised.
            warm: What the previous search left, or `fresh` returned.

        Returns:
            The first action of each row in the units of the search, and where the search of the
            next step begins.
        """
        ...

    def plan(self, obs: Any = None, *, state: State | None = None) -> Any:
        """Choose an action.

        Args:
            obs: Observations [O] or [B, O] in environment units, numpy or torch; any leading shape
                is kept. Without `state`, the model begins anew from them.
            state: A state of the model, for instance one warmed up by `model.observe`.

        Returns:
            Actions [A] or [B, A] in environment units and inside the bounds, or int64 indices [] or
            [B]. Numpy in gives numpy in the type of the action space; torch in gives torch in the
            floating type of `obs`; a state alone gives torch.

        Raises:
            ConfigError: If neither is given, or observations are needed beside the state.
            DataError: If a shape does not fit or a value is not finite.
        """
        with torch.no_grad():
            edge, seen, state = self._enter(obs, state)
            problem = self._problem(seen, state)
            warm = self._start(math.prod(edge.lead), problem.like)
            unit, self._warm = self.search(problem, warm)
            action = edge.leave(self.units.restore(unit))
        return self.units.as_action(action) if edge.numpy else action

    def reset(self, mask: Any = None) -> None:
        """Forget where the search stood; call it where episodes begin.

        The random numbers of the search go on: episodes do not repeat each other's.

        Args:
            mask: Bool [B], which rows forget; None for all of them.

        Raises:
            ConfigError: If the mask does not fit the rows of the last plan.
        """
        warm = self._warm
        if mask is None or warm is None:
            self._warm = None
            return
        chosen = _row_mask(mask, warm)
        self._warm = tuple(
            torch.where(chosen.view(-1, *[1] * (old.ndim - 1)), new, old)
            for new, old in zip(self.fresh(len(chosen), warm[0]), warm, strict=True)
        )

    def narrow(self, mask: Any) -> None:
        """Drop the rows where mask [B] is False: the next plan is for the others alone.

        Raises:
            ConfigError: If the mask does not fit the rows of the last plan.
        """
        if self._warm is not None:
            chosen = _row_mask(mask, self._warm)
            self._warm = tuple(each[chosen] for each in self._warm)

    def anew(self) -> "SequencePlanner":
        """Return a planner like this one, as it was before its first plan."""
        twin = copy.copy(self)
        twin._warm = twin._generator = None
        return twin

    def arrays(self) -> dict[str, np.ndarray]:
        """Return where the search stands, for `restore`; not the generator of another device."""
        found = {f"warm{i}": each.cpu().numpy() for i, each in enumerate(self._warm or ())}
        if self._generator is not None and self._generator.device.type == "cpu":
            found["generator"] = self._generator.get_state().numpy()
        return found

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from what `arrays` returned."""
        names = sorted(name for name in arrays if name.startswith("warm"))
        self._warm = tuple(torch.tensor(arrays[name]) for name in names) or None
        if "generator" in arrays:
            self._generator = torch.Generator()
            self._generator.set_state(torch.tensor(arrays["generator"]))

    def _enter(
        self, obs: Any, state: State | None
    ) -> tuple[Edge, Float[Tensor, "B O"] | None, State | None]:
        """Bring what `plan` was given into tensors, and start the model where it must be."""
        has_verbs = isinstance(self.model, WorldModelLike)
        if not has_verbs and (obs is None or state is not None):
            raise ConfigError("a function in place of a model is asked at obs: use plan(obs)")
        if obs is None:
            if state is None or self.look.policy is not None:
                raise ConfigError(
                    "plan needs obs, or state= where there is no policy= to ask at observations"
                )
            first = state[0]
            return Edge(False, floating(first.dtype), first.device, (len(first),)), None, state
        seen = to_tensor(obs)
        if seen.ndim == 0:
            raise DataError("obs must have the shape [O] or [B, O], got a single number")
        edge = Edge.of(obs, "obs", tuple(seen.shape[-1:]))
        seen = seen.reshape(-1, *seen.shape[-1:])
        if not bool(torch.isfinite(seen).all()):
            raise DataError("obs holds NaN or infinite values; planners plan from finite ones")
        if not has_verbs:
            return edge, seen.to(floating(seen.dtype)), None
        begun: State = self.model.start(seen) if state is None else state
        if len(begun[0]) != len(seen):
            raise DataError(f"obs has {len(seen)} rows but the state has {len(begun[0])}")
        return edge, seen.to(begun[0].device, floating(begun[0].dtype)), begun

    def _problem(self, obs: Tensor | None, state: State | None) -> Problem:
        source = obs if state is None else state[0]
        assert source is not None
        if self._generator is None or self._generator.device != source.device:
            self._generator = torch_rng(self.seed, "planner", device=str(source.device))
        if state is None:
            assert obs is not None
            return function_problem(self.model, obs, self.units, self._generator)
        return model_problem(self.model, state, obs, self.look, self.units, self._generator)

    def _start(self, rows: int, like: Tensor) -> Warm:
        """Return where this search begins."""
        warm = self._warm
        if warm is None or len(warm[0]) != rows or warm[0].device != like.device:
            return self.fresh(rows, like)
        return warm


def _row_mask(mask: Any, warm: Warm) -> Bool[Tensor, " B"]:
    chosen, rows = to_tensor(mask, warm[0].device), len(warm[0])
    if chosen.dtype != torch.bool or chosen.shape != (rows,):
        raise ConfigError(
            f"mask must hold {rows} booleans, one for each row of the last plan, got "
            f"{chosen.dtype} of the shape {tuple(chosen.shape)}"
        )
    return chosen


def shifted(
    plan: Shaped[Tensor, "B H ..."], last: Tensor | float = 0.0
) -> Shaped[Tensor, "B H ..."]:
    """Move a plan on by one step; `last` is put at its end."""
    moved = plan.roll(-1, dims=1)
    moved[:, -1] = last
    return moved


def best_of(
    candidates: Shaped[Tensor, "B N ..."], returns: Float[Tensor, "B N"], count: int
) -> tuple[Shaped[Tensor, "B K ..."], Float[Tensor, "B K"]]:
    """Return the candidates with the largest returns, best first, and those returns."""
    values, places = returns.topk(min(count, returns.shape[1]), dim=1)
    rows = torch.arange(len(candidates), device=candidates.device)[:, None]
    return candidates[rows, places], values


def continuous_only(planner: SequencePlanner) -> None:
    """Refuse a planner whose search needs a Box.

    Raises:
        ConfigError: If the actions are discrete.
    """
    if planner.units.choices is not None:
        raise ConfigError(
            f"{type(planner).__name__} searches continuous actions, got {planner.units.space}; "
            "lw.CEM searches discrete ones"
        )
