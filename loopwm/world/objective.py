"""The training loss: multi-step prediction error, fed back as imagination feeds it back."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from loopwm.batch import SequenceBatch
from loopwm.core.depth import Fixed
from loopwm.errors import NumericalError
from loopwm.world.backflow import limited
from loopwm.world.dynamics import Infers, Run
from loopwm.world.model import WorldModel
from loopwm.world.protocol import State
from loopwm.world.terms import Objective

Metrics = dict[str, float | Tensor]


@dataclass(slots=True)
class _Unrolled:
    """Collect what each step of a training rollout leaves for the loss."""

    errors: list[Tensor] = field(default_factory=list)
    early: Tensor | None = None
    drift: Tensor | None = None
    divergences: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    observations: list[Tensor] = field(default_factory=list)


def sequence_loss(
    model: WorldModel, batch: SequenceBatch, generator: torch.Generator, members: int = 1
) -> tuple[Tensor, Metrics]:
    """Return the loss of a batch of windows.

    The observation error of step k compares the observation imagined from the window's first one
    with the real one, in standard deviations of the one-step change, after the real observations
    that `Objective.context` asks for, which are predicted as well; each row has its own depth
    of refinement, the same at every step, and part of the loss is the first step's error decoded
    at an earlier iteration. A model that infers its latent adds, for every step, how far what it
    infers from the real observation lies from what it expected.

    Args:
        model: The world model, in training mode.
        batch: Windows of real experience.
        generator: Draws depths, taps and masks.
        members: Number of models that `model` stands for (see `world.stack`); their windows come
            member after member, and they share the depths and taps drawn.

    Returns:
        The scalar loss, the mean over members, and its parts as detached metrics.
    """
    weights = model.config.objective
    unrolled = _unroll(model, batch, generator, members)
    valid = batch.valid.to(unrolled.errors[0].dtype)

    def mean(values: Tensor, weight: Tensor = valid) -> Tensor:
        return _mean(values, weight, members)

    first = valid[:, 0]
    squared = torch.stack(unrolled.errors, dim=1).square().mean(-1)
    loss = mean(counted(squared, weights), valid * _step_weights(weights, squared))
    if unrolled.early is not None:
        early = counted(unrolled.early.square().mean(-1), weights)
        loss = loss + weights.intermediate * mean(early, first)
    if unrolled.drift is not None:
        loss = loss + weights.settle * mean(unrolled.drift, first)
    features = torch.stack(unrolled.features, dim=1)
    reward = mean(_reward_error(model, features, batch))
    ending = _ending_error(model, torch.stack(unrolled.observations, dim=1), batch)
    alive = mean(ending, valid * batch.can_end)
    loss = loss + weights.reward * reward + weights.termination * alive
    metrics = {"error": mean(squared.detach()).sqrt(), "reward": reward.detach().sqrt()}
    if unrolled.divergences:
        divergence = mean(torch.stack(unrolled.divergences, dim=1))
        loss, metrics["divergence"] = loss + divergence, divergence.detach()
    # The likelihood teaches the spread's own head alone: what it reads is the mean's to shape
    # (Faithful Heteroscedastic Regression, arXiv 2212.09184).
    std = model.heads.std(features[:, 0].detach())
    if std is not None:
        z = unrolled.errors[0].detach() / std
        loss = loss + 0.1 * mean((0.5 * z.square() + std.log()).mean(-1), first)
    return loss, {**metrics, "termination": alive.detach()}


def _mean(values: Tensor, weight: Tensor, members: int) -> Tensor:
    """Return the mean over members of each one's weighted mean; 0 where nothing weighs."""
    own, share = values.reshape(members, -1), weight.reshape(members, -1)
    return ((own * share).sum(1) / share.sum(1).clamp_min(1e-9)).mean()


def counted(squared: Float[Tensor, "*B"], objective: Objective) -> Float[Tensor, "*B"]:
    """Return how much squared errors of rows count (see `Objective.robust`)."""
    if not objective.robust:
        return squared
    # The difference of the root and `robust`, without the cancellation.
    return squared / ((squared + objective.robust**2).sqrt() + objective.robust)


@torch.no_grad()
def validation_error(model: WorldModel, batch: SequenceBatch) -> float:
    """Return the root mean square multi-step error at inference depth.

    The unit is the standard deviation of the one-step change, as in the loss.
    """
    state, given = _warm(model, batch)
    trajectory = model.imagine(state=state, actions=batch.action[:, given:])
    error = (trajectory.obs - batch.obs[:, given + 1 :]) / model.normaliser.change_std
    valid = batch.valid[:, given:]
    return float(torch.sqrt((error.square().mean(-1) * valid).sum() / valid.sum().clamp_min(1)))


@torch.no_grad()
def calibrate_spread(model: WorldModel, batch: SequenceBatch) -> None:
    """Scale a Gaussian head so that one-step errors on a batch have unit standardised variance."""
    state, given = _warm(model, batch)
    _, prediction = model.step(state, batch.action[:, given])
    valid = batch.valid[:, given]
    if prediction.std is None or not bool(valid.any()):
        return
    z = (prediction.next_obs - batch.obs[:, given + 1]) / prediction.std
    factor = z[valid].square().mean(0).sqrt().clamp(1e-3, 1e3)
    if not bool(factor.isfinite().all()):
        raise NumericalError(
            "the Gaussian head cannot be calibrated: predictions of the held-out data are not "
            "finite; look for NaN in modules of your own, or lower lr"
        )
    model.heads.spread_scale *= factor


def _warm(model: WorldModel, batch: SequenceBatch) -> tuple[State, int]:
    """Take in the real observations that the model's windows begin with; return their steps too."""
    given = model.config.objective.context - 1
    state = model.start(batch.obs[:, 0])
    for k in range(given):
        state = model.observe(state, batch.action[:, k], batch.obs[:, k + 1])
    return state, given


def _unroll(
    model: WorldModel, batch: SequenceBatch, generator: torch.Generator, members: int
) -> _Unrolled:
    scale = model.normaliser.change_scale
    target = model.normaliser.obs(batch.obs)
    actions = model.normaliser.action(batch.action)
    run = _plan(model, len(batch) // members, generator)
    state = model.first_state(target[:, 0])
    unrolled = _Unrolled()
    for k in range(actions.shape[1]):
        out = model.advance(state, actions[:, k], run)
        obs = model.moved(state[0], out.feature)
        unrolled.errors.append((obs - target[:, k + 1]) / scale)
        unrolled.features.append(out.feature)
        if out.tapped is not None:
            unrolled.early = (model.moved(state[0], out.tapped) - target[:, 1]) / scale
        if out.drift is not None:
            unrolled.drift = out.drift
        if isinstance(model.dynamics, Infers):
            after = model.next_state(state, target[:, k + 1], torch.ones_like(state[1]), out.carry)
            shown = model.shown(after, torch.zeros_like(actions[:, k]))
            unrolled.divergences.append(model.dynamics.divergence(out.carry, shown))
        run = replace(run, tap=None, drift=False)
        real = k + 1 < model.config.objective.context
        seen = torch.ones_like(state[1]) if real else _seen(model, state, generator)
        # The error is that of the free prediction: its gradient leads back into the range.
        fed = torch.where(seen > 0, model.held(obs, state[0]), obs)
        unrolled.observations.append(fed)
        state = model.next_state(state, target[:, k + 1] if real else fed, seen, out.carry)
        state = limited(state, model.config.objective.row_clip, members)
    return unrolled


def _step_weights(objective: Objective, squared: Float[Tensor, "B K"]) -> Float[Tensor, " K"]:
    """Return the weight of each step of a window; those with a real observation before weigh 1."""
    ahead = torch.arange(squared.shape[1], device=squared.device) + 2 - objective.context
    return ahead.clamp_min(1).to(squared.dtype) ** -objective.decay


def _plan(model: WorldModel, rows: int, generator: torch.Generator) -> Run:
    """Draw each row's depth and the earlier iteration whose decoding is trained too."""
    depth = model.depth
    looped = depth.typical > 1
    drift = looped and model.config.objective.settle > 0
    if isinstance(depth, Fixed) and not (looped and model.config.objective.intermediate):
        return Run(depth.iterations, drift=drift, generator=generator)
    # Depths are independent of the rows, so sorting them costs nothing and spares the core a sort.
    counts = depth.sample(rows, generator).sort(descending=True).values
    tap = None
    if model.config.objective.intermediate:
        share = torch.rand(rows, generator=generator, device=generator.device)
        tap = 1 + (share * counts).long()
    return Run(counts, tap=tap, drift=drift, generator=generator)


def _seen(model: WorldModel, state: State, generator: torch.Generator) -> Tensor:
    mask = 1.0 if model.feedback == "latent" else model.config.objective.mask
    if mask == 0 or not model.dynamics.carries:
        return torch.ones_like(state[1])
    draw = torch.rand(state[1].shape, generator=generator, device=generator.device)
    return (draw >= mask).to(state[1].dtype)


def _reward_error(model: WorldModel, features: Tensor, batch: SequenceBatch) -> Tensor:
    predicted = model.heads.reward(features).squeeze(-1)
    return (predicted - model.normaliser.reward(batch.reward)).square()


def _ending_error(model: WorldModel, observations: Tensor, batch: SequenceBatch) -> Tensor:
    """Return the cross-entropy of termination of each step."""
    logits = model.ending(observations)
    ended = batch.terminated.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, ended, reduction="none")
