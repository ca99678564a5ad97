"""One refinement of a latent state: `(h, e) -> h`, the weights that the loop applies repeatedly."""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.block import init_linear, rms_norm
from loopwm.core.config import Bounded
from loopwm.core.fused import unroll_bounded

Conditioning = tuple[Tensor, ...]
Weights = tuple[Tensor, ...]


@runtime_checkable
class Cell(Protocol):
    """Refine a state under a conditioning that stays fixed while the injection does.

    Attributes:
        num_conditions: Number of tensors in the conditioning.
    """

    num_conditions: int

    def condition(self, e: Tensor) -> Conditioning:
        """Compute what depends on the injection e [B, L, D] alone; leading axis B."""
        ...

    def constrain(self) -> Weights:
        """Compute the constrained weights, which all rows and iterations share."""
        ...

    def __call__(
        self, h: Tensor, conditioning: Conditioning, weights: Weights | None = None
    ) -> Tensor:
        """Refine h [B, L, D] once; without `weights` they are computed for this call alone."""
        ...


@runtime_checkable
class Unrolls(Protocol):
    """Be a cell that can run, and differentiate, all iterations of the plain loop at once."""

    @property
    def unrolls(self) -> bool:
        """Say whether `unroll` stands in for repeated calls at present."""
        ...

    def unroll(
        self,
        h: Tensor,
        conditioning: Conditioning,
        active: Sequence[int],
        taps: Sequence[Tensor],
        weights: Weights,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine h [B, L, D] as often as `active` is long, each time its first `active[t]` rows.

        Of a cell that stands for several, with rows [M*B, L, D], the first of each member.
        """
        ...


class BoundedCell(nn.Module):
    """Keep, inject and correct, with a bound on the state that holds for any number of iterations.

    `h+ = abar*h + B e + R(norm(h), e)`, or with `gain`, `h+ = abar*h + (1 - abar) N(B e + R)`,
    where R is a gated two-layer perceptron whose gates see h normalised and e as it comes. The
    retention is LoopWM's (arXiv 2606.18208, eq. 5-7); normalising R's input is what bounds it.

    Args:
        width: Width D of the state.
        config: Form, hidden width and retention.
    """

    num_conditions = 2

    def __init__(self, width: int, config: Bounded) -> None:
        super().__init__()
        hidden = max(1, round(config.expand * width))
        self.width = width
        self.gain = config.gain
        self.min_rate = -math.log(config.max_retention)
        rate = -math.log(config.retention) - self.min_rate
        self.log_rate = nn.Parameter(torch.full((width,), math.log(rate)))
        self.from_state = nn.Parameter(torch.empty(2 * hidden, width))
        self.from_injection = nn.Linear(width, 2 * hidden)
        self.inject = nn.Linear(width, width, bias=False)
        self.leave = nn.Parameter(torch.empty(width, hidden))
        self.reset_parameters(config.retention)

    def reset_parameters(self, retention: float) -> None:
        """Start as a leaky average of the injection with a small correction."""
        init_linear(self.from_state)
        init_linear(self.from_injection.weight)
        nn.init.zeros_(self.from_injection.bias)
        nn.init.eye_(self.inject.weight)
        if self.gain is None:
            self.inject.weight.data.mul_(1 - retention)
        init_linear(self.leave, gain=1 - retention)

    def constrain(self) -> Weights:
        """Return the retention and its complement, 1 - abar."""
        rate = self.log_rate.exp() + self.min_rate
        return torch.exp(-rate), -torch.expm1(-rate)

    @property
    def retention(self) -> Float[Tensor, " D"]:
        """Return abar of each channel, at most the configured maximum."""
        return self.constrain()[0]

    def condition(self, e: Float[Tensor, "*B D"]) -> Conditioning:
        """Return `B e` and the part of the gates' input that depends on e."""
        return self.inject(e), self.from_injection(e)

    def forward(
        self,
        h: Float[Tensor, "*B D"],
        conditioning: Conditioning,
        weights: Weights | None = None,
    ) -> Tensor:
        """Refine h once under the conditioning of `condition`."""
        if self.unrolls:
            return self.unroll(h, conditioning, (len(h),), (), weights or self.constrain())[0]
        retention, renewal = weights or self.constrain()
        flat = h.flatten(0, -2)
        injected, bias = (part.flatten(0, -2) for part in conditioning)
        # addmm adds the conditioning inside the matrix product: one pass over memory less.
        gate, value = torch.addmm(bias, rms_norm(flat), self.from_state.T).chunk(2, dim=1)
        renewed = torch.addmm(injected, F.silu(gate) * value, self.leave.T)
        if self.gain is not None:
            renewed = (self.gain * renewal) * rms_norm(renewed)
        return torch.addcmul(renewed, retention, flat).view_as(h)

    def proven_bound(self, injection: float, start: Float[Tensor, " D"]) -> float:
        """Bound the norm of a token for any number of iterations, whatever e within its bound.

        Channel by channel, `|h_i| <= max(|start_i|, sup |B e + R|_i / (1 - abar_i))`; with `gain`
        the normalised sum bounds the second term by `gain * sqrt(D)` for all weights.

        Args:
            injection: Bound on ||e|| of a token.
            start: State that the loop starts from.
        """
        begin = start.detach().double().abs()
        if self.gain is not None:
            # N is at most sqrt(D) long, so each channel stays below gain * sqrt(D).
            held = torch.full_like(begin, self.gain * math.sqrt(self.width))
            return float(torch.maximum(begin, held).norm())
        weights = (self.from_state, self.from_injection.weight, self.inject.weight, self.leave)
        state, shift, inject, leave = (weight.detach().double() for weight in weights)
        gates = state.norm(dim=1) * math.sqrt(self.width) + shift.norm(dim=1) * injection
        gate, value = (gates + self.from_injection.bias.detach().double().abs()).chunk(2)
        # |silu(x)| <= |x|, and h normalised is at most sqrt(D) long.
        forced = inject.norm(dim=1) * injection + leave.abs() @ (gate * value)
        renewal = self.constrain()[1].detach().double()
        return float(torch.maximum(begin, forced / renewal).norm())

    @property
    def unrolls(self) -> bool:
        """Say whether `unroll` stands in for repeated calls: in training, in the first form."""
        plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(self.leave.device.type)
        return self.training and self.gain is None and not plain

    def unroll(
        self,
        h: Float[Tensor, "B *L D"],
        conditioning: Conditioning,
        active: Sequence[int],
        taps: Sequence[Tensor],
        weights: Weights,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine the first `active[t]` rows in iteration t; one node of the autograd graph.

        Args:
            h: States, the rows with the most iterations first.
            conditioning: What `condition` returned.
            active: Rows of each iteration, not increasing; the first is B.
            taps: For each iteration, the rows whose state is wanted after it; or empty.
            weights: What `constrain` returned.

        Returns:
            The last state of each row, the one before it, without gradient, and the tapped one.
        """
        own = weights[0], self.from_state, self.leave
        return unroll_bounded(h, conditioning, *own, active, taps)
