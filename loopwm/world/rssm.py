"""The recurrent state-space model: a remembered path, and a latent inferred or expected."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.world.config import RSSM
from loopwm.world.dynamics import Advance, Carry, Run

_LEAST_STD = 0.1


class RSSMDynamics(nn.Module):
    """Carry a deterministic and a stochastic state from step to step (arXiv 1811.04551, eq. 4).

    A step first settles the latent of the present: inferred from the observation where there is
    one, else the one that was expected. Latent and action move the deterministic state, from which
    the next latent is expected, and both are decoded.

    Args:
        inputs: Width X of the input: observation, action, and the flag of a hidden observation.
        config: Widths, kind of latent, and weight of the divergence.
        actions: Width of the action in the input.
    """

    carries = True

    def __init__(self, inputs: int, config: RSSM, actions: int) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.parts = [inputs - actions - 1, actions, 1]
        self.latent = config.latent * (config.classes or 1)
        stated = config.latent * (config.classes or 2)
        self.enter = nn.Linear(self.latent + actions, config.width)
        self.cell = nn.GRUCell(config.width, config.width)
        self.prior = _two_layers(config.width, config.width, stated)
        self.posterior = _two_layers(config.width + self.parts[0], config.width, stated)
        self.leave = nn.Linear(config.width + self.latent, config.width)

    @property
    def ends(self) -> tuple[nn.Module, ...]:
        """The layers that observation and action enter by, and those that a latent is read from."""
        return self.enter, self.posterior[0], self.posterior[2], self.prior[2]

    def initial(self, batch: int) -> Carry:
        """Return zeros for `batch` rows: the deterministic state and the latent."""
        zeros = self.enter.weight.new_zeros
        return zeros(batch, self.width), zeros(batch, self.latent)

    def forward(self, carry: Carry, x: Float[Tensor, "B X"], run: Run) -> Advance:
        """Settle the present latent, move on, and decode a feature of what is expected."""
        h, expected = carry
        visible, action, hidden = x.split(self.parts, dim=1)
        inferred = self._latent(self.posterior(torch.cat([h, visible], dim=1)), run.generator)
        latent = torch.where(hidden > 0, expected, inferred)
        h = self.cell(F.silu(self.enter(torch.cat([latent, action], dim=1))), h)
        expected = self._latent(self.prior(h), run.generator)
        feature = F.silu(self.leave(torch.cat([h, expected], dim=1)))
        return Advance.single((h, expected), feature)

    def divergence(self, carry: Carry, x: Float[Tensor, "B X"]) -> Float[Tensor, " B"]:
        """Return the balanced divergence beyond the free nats (arXiv 2010.02193, algorithm 2)."""
        h, visible = carry[0], x[:, : self.parts[0]]
        prior = self.prior(h)
        posterior = self.posterior(torch.cat([h, visible], dim=1))
        share = self.config.balance
        moved = self._nats(posterior.detach(), prior), self._nats(posterior, prior.detach())
        nats = share * moved[0] + (1 - share) * moved[1]
        return self.config.kl * nats.clamp_min(self.config.free)

    def _latent(self, stated: Tensor, generator: torch.Generator | None) -> Float[Tensor, "B Z"]:
        """Draw the latent so that gradients reach its distribution, or take its mean or mode."""
        if self.config.classes is None:
            mean, std = _gaussian(stated)
            return mean if generator is None else mean + std * _normal(mean, generator)
        logits = stated.unflatten(1, (-1, self.config.classes))
        chance = logits.softmax(-1)
        if generator is None:
            picked = logits.argmax(-1)
        else:
            draws = torch.multinomial(chance.flatten(0, 1), 1, generator=generator)
            picked = draws.view(logits.shape[:-1])
        # The draw itself has no gradient: that of its probability stands in.
        hot = F.one_hot(picked, self.config.classes) + chance - chance.detach()
        return hot.flatten(1)

    def _nats(self, first: Tensor, second: Tensor) -> Float[Tensor, " B"]:
        """Return the Kullback-Leibler divergence of the first distribution from the second."""
        if self.config.classes is None:
            (mean, std), (other, scale) = _gaussian(first), _gaussian(second)
            apart = (std.square() + (mean - other).square()) / (2 * scale.square())
            return (scale.log() - std.log() + apart - 0.5).sum(1)
        shape = (-1, self.config.classes)
        logs = [each.unflatten(1, shape).log_softmax(-1) for each in (first, second)]
        return (logs[0].exp() * (logs[0] - logs[1])).sum((1, 2))


def _two_layers(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, outputs))


def _gaussian(stated: Tensor) -> tuple[Tensor, Tensor]:
    mean, raw = stated.chunk(2, dim=1)
    return mean, F.softplus(raw) + _LEAST_STD


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
