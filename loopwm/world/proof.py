"""What is proven of a world model's loop: `model.certificate()`."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from loopwm.core.certificate import Certificate, box_bound, certify, local_gain
from loopwm.world.looped import LoopedDynamics

if TYPE_CHECKING:
    from loopwm.world.latent import LatentModel

_ROWS = 64


def certificate(
    model: "LatentModel", obs: Tensor | None = None, action: Tensor | None = None
) -> Certificate:
    """Certify a model's loop, and measure it at states that its default depth leads to.

    Args:
        model: The model; of one without a loop nothing is proven.
        obs: Standardised observations [B, O] to measure at; by default standard normal ones.
        action: Scaled actions [B, A], one-hot where discrete; by default uniform among those that
            there are.
    """
    dynamics: Any = model.dynamics
    if not isinstance(dynamics, LoopedDynamics):
        name = type(dynamics).__name__
        dtype = str(model.normaliser.obs_mean.dtype).removeprefix("torch.")
        return Certificate(name, None, None, dtype, None, ("no loop: nothing is repeated",))
    cell: Any = dynamics.core.cell
    proven = certify(cell, _injection(model, dynamics), dynamics.origin, _assumed(model))
    if dynamics.core.solver is not None or dynamics.core.flow is not None:
        # A solver's states are no iterates of the loop that the proof is about.
        taken = ("the states are a solver's, of which nothing is proven",)
        proven = replace(proven, rate=None, state_bound=None, slack=None, assumptions=taken)
    state, shown = _measured(model, obs, action)
    carry = state[3:]
    e = dynamics.injection(carry, shown)
    if not dynamics.reinject:
        e = torch.zeros_like(e)  # Taken in once: the loop itself runs without.
    with torch.no_grad():
        out = dynamics(carry, shown, model.plan())
    h = out.feature.unsqueeze(1)
    norms = [part.norm(dim=-1).max() for part in (h, *carry)]
    return replace(
        proven, local_gain=float(local_gain(cell, h, e).max()), state_norm=float(max(norms))
    )


def _injection(model: "LatentModel", dynamics: LoopedDynamics) -> float | None:
    """Bound the norm of the injection, or return None where nothing bounds it.

    An encoder of the user's may make anything of an observation, and actions may have no bounds.
    """
    if model.encoder is not None or not (model.discrete or model.stats.action_low is not None):
        return None
    # Observations are clipped; sines, cosines, actions and the flag are at most 1.
    weight = dynamics.enter.weight
    limits = torch.ones(weight.shape[1], device=weight.device)
    for frame in limits[: model.frames * model.shown_dim].split(model.shown_dim):
        frame[: len(model.normaliser.straight)] = model.config.clip
    bound = box_bound(weight, dynamics.enter.bias, limits)
    if dynamics.recall is not None:
        # The carried state is normalised: at most sqrt(D) long.
        norm = float(torch.linalg.matrix_norm(dynamics.recall.weight.detach().double(), 2))
        bound += norm * math.sqrt(dynamics.width)
    return bound


def _assumed(model: "LatentModel") -> tuple[str, ...]:
    return (
        f"observations clipped at {model.config.clip:g} standard deviations, as the model does",
        "actions within their bounds",
    )


def _measured(
    model: "LatentModel", obs: Tensor | None, action: Tensor | None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return states one step into imagination, and the input of their next step."""
    like = model.normaliser.obs_mean
    generator = torch.Generator().manual_seed(0)
    if obs is None:
        obs = torch.randn(_ROWS, model.obs_dim, generator=generator).to(like)
    if action is None:
        width = model.normaliser.action_dim
        if model.discrete:
            choice = torch.randint(width, (len(obs),), generator=generator)
            action = one_hot(choice, width).to(like)
        else:
            action = (2 * torch.rand(len(obs), width, generator=generator) - 1).to(like)
    state = model.first_state(obs)
    with torch.no_grad():
        out = model.advance(state, action, model.plan())
        moved = model.held(model.moved(obs, out.feature), obs)
        state = model.next_state(state, moved, torch.ones_like(state[1]), out.carry)
        return state, model.shown(state, action)
