"""Imagine: unroll a world model over actions, feeding back observations or the latent alone."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from loopwm.errors import ConfigError
from loopwm.world.arrays import Edge, to_tensor
from loopwm.world.config import Feedback
from loopwm.world.dynamics import Advance, Run
from loopwm.world.latent import LatentModel
from loopwm.world.prediction import Trajectory
from loopwm.world.protocol import State, WorldModelLike

Decode = Literal["all", "last", "reward"]


def check_request(
    obs: Any, actions: Any, state: Any, policy: Any, horizon: int | None, decode: str
) -> None:
    """Refuse arguments of `imagine` that contradict each other.

    Args:
        obs: First observations, or None.
        actions: Actions, or None.
        state: State to begin from, or None.
        policy: What chooses actions, or None.
        horizon: Steps under the policy, or None.
        decode: Which steps are decoded.

    Raises:
        ConfigError: If they do.
    """
    if (obs is None) == (state is None):
        raise ConfigError("imagine needs obs or state, exactly one of them")
    if decode not in ("all", "last", "reward"):
        raise ConfigError(f'decode must be "all", "last" or "reward", got {decode!r}')
    if policy is None:
        if actions is None:
            raise ConfigError("imagine needs actions, or policy= and horizon=")
        if horizon is not None:
            raise ConfigError(
                f"horizon={horizon} goes with policy=; as many steps as there are actions are "
                "imagined: pass actions[..., :horizon, :]"
            )
        return
    if obs is None or horizon is None or actions is not None:
        raise ConfigError("imagine with policy= needs obs and horizon=, and no actions")
    if decode != "all":
        raise ConfigError(f'imagine with policy= decodes "all" steps, got {decode!r}')


def unroll(
    model: LatentModel,
    state: State,
    actions: Float[Tensor, "B H A"],
    run: Run,
    feedback: Feedback,
    decode: Decode = "all",
) -> tuple[Trajectory, State]:
    """Imagine H steps.

    Everything that no later step depends on is decoded after the loop, for all steps in one batch:
    reward and termination always, the observations too when only the latent is fed back.

    Args:
        model: The world model.
        state: State of the rows before the first action.
        actions: Scaled actions.
        run: How far to refine at each step.
        feedback: What the next step sees.
        decode: Which steps to decode.

    Returns:
        The trajectory as tensors on the model's device, and the state after the last step.
    """
    first, advances, observations = state[0], [], []
    blind = torch.zeros_like(state[1])
    for action in actions.unbind(1):
        out = model.advance(state, action, run)
        advances.append(out)
        if feedback == "observation":
            obs = model.held(model.moved(state[0], out.feature), state[0])
            observations.append(obs)
            state = model.next_state(state, obs, torch.ones_like(blind), out.carry)
        else:
            state = model.next_state(state, state[0], blind, out.carry)
    features = torch.stack([out.feature for out in advances], dim=1)
    if feedback == "observation":
        standard = torch.stack(observations, dim=1)
    else:
        origin = features.new_zeros(*features.shape[:2], model.obs_dim)
        standard = first[:, None] + model.moved(origin, features).cumsum(1)
        state = (standard[:, -1], *state[1:])
    return _decode(model, first, standard, features, actions, advances, decode), state


def single(
    model: LatentModel, state: State, action: Float[Tensor, "B A"], run: Run, feedback: Feedback
) -> tuple[Advance, Trajectory, State]:
    """Imagine one step: `unroll` over a horizon of one, with its advance.

    Args:
        model: What imagines.
        state: State of each row.
        action: Standardised action of each row.
        run: Depth, stop rule and gradient mode of the loop.
        feedback: Whether the next step sees the decoded observation.

    Returns:
        What the dynamics gave, the imagined step, and the state after it.
    """
    out = model.advance(state, action, run)
    obs = model.moved(state[0], out.feature)
    if feedback == "observation":
        obs, seen = model.held(obs, state[0]), torch.ones_like(state[1])
    else:
        seen = torch.zeros_like(state[1])
    trajectory = _decode(
        model, state[0], obs[:, None], out.feature[:, None], action[:, None], [out], "all"
    )
    return out, trajectory, model.next_state(state, obs, seen, out.carry)


def with_policy(
    model: WorldModelLike,
    obs: Any,
    policy: Callable[[Any], Any],
    horizon: int,
    options: dict[str, Any],
) -> Trajectory:
    """Imagine under a policy that is asked for an action at every imagined observation.

    Args:
        model: Any model with the verbs.
        obs: First observations [..., O]; the policy gets the same kind of array.
        policy: Maps observations [..., O] to actions.
        horizon: Number of steps, at least 1.
        options: Passed on to `step`.

    Raises:
        ConfigError: If the horizon is below 1.
    """
    if horizon < 1:
        raise ConfigError(f"horizon must be at least 1, got {horizon}")
    edge = Edge.of(obs, "obs", to_tensor(obs).shape[-1:])
    state, steps = model.start(obs), []
    for _ in range(horizon):
        state, prediction = model.step(state, policy(obs), **options)
        obs = edge.cast(prediction.next_obs)
        steps.append(prediction)

    def join(name: str) -> Any:
        values = [getattr(step, name) for step in steps]
        if values[0] is None:
            return None
        return edge.cast(torch.stack([to_tensor(value) for value in values], len(edge.lead)))

    names = {field.name: field.name for field in fields(Trajectory)} | {"obs": "next_obs"}
    return Trajectory(**{ours: join(theirs) for ours, theirs in names.items()})


def _decode(
    model: LatentModel,
    first: Float[Tensor, "B O"],
    standard: Float[Tensor, "B H O"],
    features: Float[Tensor, "B H D"],
    actions: Float[Tensor, "B H A"],
    advances: list[Advance],
    decode: Decode,
) -> Trajectory:
    """Decode features and standardised observations into environment units."""
    if decode == "last":
        first = standard[:, -2] if standard.shape[1] > 1 else first
        standard, features, actions = standard[:, -1:], features[:, -1:], actions[:, -1:]
    need_obs = decode != "reward" or model.reward_fn or model.termination_fn
    obs = model.normaliser.restore_obs(standard) if need_obs else None
    if model.reward_fn is None:
        reward = model.normaliser.restore_reward(model.heads.reward(features).squeeze(-1))
    else:
        reward = _user(model, model.reward_fn, first, obs, actions)
    if model.termination_fn is None:
        terminated = torch.sigmoid(model.ending(standard))
    else:
        terminated = _user(model, model.termination_fn, first, obs, actions)
    std = model.heads.std(features) if decode != "reward" else None
    return Trajectory(
        obs=None if decode == "reward" else obs,
        reward=reward,
        terminated=terminated,
        n_iters=torch.stack([out.n_iters for out in advances], dim=1),
        residual=torch.stack([out.residual for out in advances], dim=1),
        settled=torch.stack([out.settled for out in advances], dim=1),
        std=None if std is None else std * model.normaliser.change_std,
    )


def _user(
    model: LatentModel, function: Any, first: Tensor, obs: Tensor | None, actions: Tensor
) -> Tensor:
    """Apply the user's function of obs, action and next_obs in environment units."""
    assert obs is not None
    before = torch.cat([model.normaliser.restore_obs(first)[:, None], obs[:, :-1]], dim=1)
    found = function(before, model.normaliser.restore_action(actions), obs)
    if not isinstance(found, Tensor) or found.shape != obs.shape[:-1]:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"{getattr(function, '__name__', function)} must map obs {tuple(obs.shape)} to a "
            f"tensor {tuple(obs.shape[:-1])}, one value for each row and step, got {got}"
        )
    return found.to(obs.dtype)
