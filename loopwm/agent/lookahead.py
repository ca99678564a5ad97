"""What a sequence of actions is worth: the return that a model imagines under it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from loopwm.core.halt import Fixed, OutputDelta, StopRule
from loopwm.errors import ConfigError
from loopwm.world.arrays import to_tensor
from loopwm.world.config import Feedback
from loopwm.world.ensemble import Ensemble
from loopwm.world.model import WorldModel
from loopwm.world.prediction import Trajectory
from loopwm.world.protocol import State, WorldModelLike


@dataclass(frozen=True)
class Quantile:
    """Refine all candidates of a plan equally far: as far as most of them need by a stop rule.

    A few random sequences are imagined under the rule, once for each plan; the quantile of their
    iteration counts, over all rows of the batch and steps, is the depth of the search. Where the
    model finds a situation hard, the whole search runs deeper, without rows leaving the batch.

    Args:
        rule: The stop rule that counts.
        share: Share of the counts that the depth covers, in (0, 1].
        probes: Random sequences for each row of the batch, at least 1.
    """

    rule: StopRule = OutputDelta()
    share: float = 0.9
    probes: int = 16

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If one is out of range.
        """
        if not 0 < self.share <= 1:
            raise ConfigError(f"Quantile.share must lie in (0, 1], got {self.share}")
        if self.probes < 1:
            raise ConfigError(f"Quantile.probes must be at least 1, got {self.probes}")


@dataclass(frozen=True)
class Lookahead:
    """Say how far a planner looks ahead, how it weighs what it sees, and who helps it.

    Attributes:
        horizon: Steps H of a candidate, at least 1.
        discount: Weight of a reward relative to that of the step before, in (0, 1].
        value: Maps observations [R, O] in environment units, as a torch tensor, to what is to be
            gained from there on [R]; added at the end of the horizon, discounted.
        policy: Maps such observations to actions [R, A] or indices [R]; what it does in the model
            joins the candidates (TD-MPC, arXiv 2203.04955, section 3).
        proposals: How many of its rollouts join, at least 1; those of a policy without noise are
            all alike, and 1 is enough.
        halt: How far the loop refines: None for the model's default, `lw.Fixed(4)`, any stop rule,
            or a `Quantile` of one.
        feedback: What the model's next step sees; None for its default.
    """

    horizon: int = 12
    discount: float = 0.99
    value: Callable[[Any], Any] | None = None
    policy: Callable[[Any], Any] | None = None
    proposals: int = 16
    halt: Fixed | StopRule | Quantile | None = None
    feedback: Feedback | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: If one is out of range.
        """
        for name in ("horizon", "proposals"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.discount <= 1:
            raise ConfigError(f"discount must lie in (0, 1], got {self.discount}")
        if not isinstance(self.halt, Fixed | StopRule | Quantile | None):
            raise ConfigError(
                "halt must be lw.Fixed(4), a stop rule such as lw.OutputDelta(), a Quantile of "
                f"one, or None, got {self.halt!r}"
            )

    @property
    def step_options(self) -> dict[str, Any]:
        """Return what `model.step` is given beside state and action."""
        options = {"halt": self.halt, "feedback": self.feedback}
        return {name: each for name, each in options.items() if each is not None}


class Options(TypedDict, total=False):
    """List the fields of `Lookahead` that a planner takes by name; see there."""

    horizon: int
    discount: float
    value: Callable[[Any], Any] | None
    policy: Callable[[Any], Any] | None
    proposals: int
    halt: Fixed | StopRule | Quantile | None
    feedback: Feedback | None


def imagined_returns(
    model: WorldModelLike,
    state: State,
    candidates: Shaped[Tensor, "B N H ..."],
    look: Lookahead,
) -> Float[Tensor, "B N"]:
    """Imagine every candidate and sum up its rewards.

    Args:
        model: Anything with the verbs.
        state: State of each row before the first action.
        candidates: Actions in environment units [B, N, H, A], or indices [B, N, H].
        look: Discount, terminal value, and how the model imagines.

    Returns:
        Returns as `discounted` defines them.
    """
    seen, value = imagined(model, state, candidates, look), None
    if look.value is not None:
        value = to_tensor(look.value(seen.obs[:, -1]), seen.reward.device).to(seen.reward.dtype)
        if value.shape != seen.reward.shape[:1]:
            raise ConfigError(
                f"value must return one number for each of {len(seen.reward)} observations, got "
                f"the shape {tuple(value.shape)}"
            )
    returns = discounted(seen.reward, seen.terminated, value, look.discount)
    return returns.view(candidates.shape[:2])


def imagined(
    model: WorldModelLike,
    state: State,
    candidates: Shaped[Tensor, "B N H ..."],
    look: Lookahead,
) -> Trajectory:
    """Imagine every candidate.

    A state is computed once for each row and repeated for its candidates. Looped models and
    ensembles imagine all steps at once, and decode only reward and termination, observations where
    `look.value` asks for them; other models are stepped.

    Args:
        model: Anything with the verbs.
        state: State of each row before the first action.
        candidates: Actions in environment units [B, N, H, A], or indices [B, N, H].
        look: How the model imagines.

    Returns:
        The B*N trajectories as tensors; of observations, at least the last where there is a value.
    """
    state, actions = widened(state, candidates.shape[1]), candidates.flatten(0, 1)
    if isinstance(model, WorldModel | Ensemble):
        decode = "reward" if look.value is None else "all"
        return model.imagine(state=state, actions=actions, decode=decode, **look.step_options)
    steps = []
    for action in actions.unbind(1):
        state, out = model.step(state, action, **look.step_options)
        steps.append(out)

    def joined(name: str) -> Tensor:
        return torch.stack([to_tensor(getattr(step, name)) for step in steps], dim=1)

    reward = joined("reward")
    reward = reward if reward.is_floating_point() else reward.to(torch.get_default_dtype())
    return Trajectory(
        obs=to_tensor(steps[-1].next_obs)[:, None],
        reward=reward,
        terminated=joined("terminated").to(reward),
        n_iters=joined("n_iters"),
        residual=joined("residual"),
        settled=joined("settled"),
    )


def discounted(
    reward: Float[Tensor, "R H"],
    terminated: Float[Tensor, "R H"],
    value: Float[Tensor, " R"] | None,
    discount: float,
) -> Float[Tensor, " R"]:
    """Sum rewards, each weighed by the probability that the episode is still running.

    With `s_k` the probability that no step before k terminates, the return is `sum_k discount^k
    s_k r_k + discount^H s_H value`: the step that terminates still counts.

    Args:
        reward: Rewards.
        terminated: Probability that each step terminates.
        value: What is to be gained after the last step, or None for nothing.
        discount: Weight of a reward relative to that of the step before.
    """
    alive = (1 - terminated).cumprod(1)
    running = torch.cat([torch.ones_like(alive[:, :1]), alive[:, :-1]], dim=1)
    steps = torch.arange(reward.shape[1], device=reward.device, dtype=reward.dtype)
    total = (reward * running * discount**steps).sum(1)
    if value is not None:
        total = total + discount ** reward.shape[1] * alive[:, -1] * value
    return total


def policy_rollouts(
    model: WorldModelLike,
    state: State,
    obs: Float[Tensor, "B O"],
    look: Lookahead,
) -> Shaped[Tensor, "B P H ..."]:
    """Let the policy act in the model.

    Args:
        model: Anything with the verbs.
        state: State of each row.
        obs: What the policy sees first.
        look: The policy, the number P of its rollouts, and how the model imagines.

    Returns:
        The actions that it chose, in environment units.
    """
    assert look.policy is not None
    rows, actions = len(obs), []
    state, obs = widened(state, look.proposals), widened((obs,), look.proposals)[0]
    for _ in range(look.horizon):
        actions.append(to_tensor(look.policy(obs), obs.device))
        state, out = model.step(state, actions[-1], **look.step_options)
        obs = to_tensor(out.next_obs, obs.device).to(obs.dtype)
    return torch.stack(actions, dim=1).unflatten(0, (rows, look.proposals))


def with_fixed_depth(
    model: WorldModelLike, state: State, candidates: Shaped[Tensor, "B N H ..."], look: Lookahead
) -> Lookahead:
    """Replace a `Quantile` by the depth that it asks for at a state.

    Args:
        model: Anything with the verbs.
        state: State of each row.
        candidates: Actions in environment units under which iterations are counted.
        look: What holds the quantile.

    Returns:
        The same with `lw.Fixed` as its stop rule.
    """
    assert isinstance(look.halt, Quantile)
    counted = imagined(model, state, candidates, replace(look, halt=look.halt.rule, value=None))
    counts = counted.n_iters.flatten().double()
    depth = counts.quantile(look.halt.share, interpolation="higher")
    return replace(look, halt=Fixed(int(depth)))


def widened(state: State, count: int) -> State:
    """Repeat each row of a state for its candidates."""
    return tuple(each[:, None].expand(-1, count, *each.shape[1:]).flatten(0, 1) for each in state)
