"""A cell that is a contraction whatever its weights: one fixed point, reached from anywhere."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.block import init_linear
from loopwm.core.cell import Conditioning, Weights
from loopwm.core.config import Contractive

# A column of zeros has no scale; this one keeps its quotient finite.
_TINY = 1e-30
# Scales stay within exp(-8) and exp(8), so that no quotient of two overflows.
_RANGE = 8.0


class LipschitzLayer(nn.Module):
    """Compute `x - 2 W T^-1 relu(W'x + c)`, which no pair of points moves apart (1-Lipschitz in x).

    T is diagonal with `T_i = sum_j |W'W|_ij q_j / q_i`, so that T - W'W is diagonally dominant up
    to a scaling, hence positive semidefinite: the SDP-based layer of arXiv 2303.03169. The shift c
    is arbitrary.

    Args:
        width: Width D of x.
        hidden: Width of the rectified layer.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden, width))
        self.log_scale = nn.Parameter(torch.zeros(hidden))
        init_linear(self.weight)

    def constrain(self) -> tuple[Float[Tensor, "H D"], Float[Tensor, "H D"]]:
        """Return W' and (2 W T^-1)', what all rows and iterations share."""
        scale = (_RANGE * torch.tanh(self.log_scale / _RANGE)).exp()
        gram = (self.weight @ self.weight.T).abs()
        total = (gram * scale).sum(1) / scale
        return self.weight, 2 * self.weight / (total + _TINY)[:, None]

    @staticmethod
    def apply_to(
        x: Float[Tensor, "N D"], shift: Float[Tensor, "N H"], enter: Tensor, leave: Tensor
    ) -> Float[Tensor, "N D"]:
        """Apply the layer with weights from `constrain`."""
        return torch.addmm(x, F.relu(torch.addmm(shift, x, enter.T)), leave, alpha=-1)


class ContractiveCell(nn.Module):
    """Refine with a proven rate: `||F(h, e) - F(h', e)|| <= rate * ||h - h'||` for all h, h', e.

    `F(h, e) = a*h + s^1/2 * G(s^1/2 * h, e) + B e`, where G is a chain of 1-Lipschitz layers whose
    shifts depend on e, and each channel divides the rate: `a + s <= rate`, a and s not negative.

    Proof. Let d = h - h', w the difference of G, u a unit vector. `||w|| <= ||s^1/2 d||`, so by
    Cauchy and Schwarz on the stacked vectors `<u, a d> + <s^1/2 u, w>` is at most
    `sqrt(<u, (a+s) u>) * sqrt(<d, (a+s) d>) <= rate * ||d||`. Tokens are stacked in h. This holds
    for a and s that depend on e, as with `gated`; LoopWM's retention with `s = kappa (1 - a)` is
    the special case of one kappa for all channels.

    Args:
        width: Width D of a token.
        config: Rate, layers, their width, and what depends on e.
    """

    def __init__(self, width: int, config: Contractive) -> None:
        super().__init__()
        hidden = max(1, round(config.expand * width))
        self.width, self.hidden = width, hidden
        self.rate, self.gated = config.rate, config.gated
        self.num_conditions = 4 if config.gated else 2
        self.layers = nn.ModuleList(LipschitzLayer(width, hidden) for _ in range(config.layers))
        self.inject = nn.Linear(width, width, bias=False)
        self.shift = nn.Linear(width, config.layers * hidden)
        self.divide = nn.Linear(width, 3 * width) if config.gated else None
        # Retained, mixed, given up: the shares that each channel makes of the rate.
        self.shares = nn.Parameter(torch.zeros(3, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start near a leaky average of the injection, mixed more than retained."""
        nn.init.eye_(self.inject.weight)
        self.inject.weight.data.mul_(1 - self.rate / 2)
        init_linear(self.shift.weight)
        nn.init.zeros_(self.shift.bias)
        self.shares.data[1] = 2.0
        if self.divide is not None:
            nn.init.zeros_(self.divide.weight)
            nn.init.zeros_(self.divide.bias)

    @property
    def lipschitz_layers(self) -> list[LipschitzLayer]:
        """Return the layers that G is made of; torch's list of modules forgets their type."""
        return [layer for layer in self.layers if isinstance(layer, LipschitzLayer)]

    def constrain(self) -> Weights:
        """Return a and s^1/2 where they do not depend on e, then each layer's weights."""
        pairs = [layer.constrain() for layer in self.lipschitz_layers]
        return (*self._divided(self.shares), *(weight for pair in pairs for weight in pair))

    def condition(self, e: Float[Tensor, "*B D"]) -> Conditioning:
        """Return `B e` and the shifts of all layers; if gated, a and s^1/2 too."""
        conditioning = (self.inject(e), self.shift(e))
        if self.divide is None:
            return conditioning
        return (*conditioning, *self._divided(self.divide(e).unflatten(-1, (3, -1)) + self.shares))

    def forward(
        self,
        h: Float[Tensor, "*B D"],
        conditioning: Conditioning,
        weights: Weights | None = None,
    ) -> Tensor:
        """Refine h once under the conditioning of `condition`."""
        retained, root, *layers = weights or self.constrain()
        injected, shifts, *divided = (part.flatten(0, -2) for part in conditioning)
        if divided:
            retained, root = divided
        flat = h.flatten(0, -2)
        x = root * flat
        pairs = zip(layers[::2], layers[1::2], shifts.split(self.hidden, dim=1), strict=True)
        for enter, leave, shift in pairs:
            x = LipschitzLayer.apply_to(x, shift, enter, leave)
        return torch.addcmul(injected, root, x).addcmul(retained, flat).view_as(h)

    def _divided(self, logits: Float[Tensor, "*B 3 D"]) -> tuple[Tensor, Tensor]:
        """Return a and s^1/2; the third share is given up, so that a + s stays below the rate."""
        retained, mixed, _ = (self.rate * logits.softmax(-2)).unbind(-2)
        return retained, mixed.sqrt()

    def lipschitz(self) -> float:
        """Return a bound on G's Lipschitz constant from the weights as they are, in float64.

        It is 1 in exact arithmetic; rounded weights may leave `T >= W'W` by a hair, and the bound
        says by how much.
        """
        product = 1.0
        for layer in self.lipschitz_layers:
            enter, leave = (weight.detach().double() for weight in layer.constrain())
            norms = enter.square().sum(1).clamp_min(_TINY)
            # leave = 2 W' / T, so T can be read off each row.
            total = 2 * norms / (enter * leave).sum(1).clamp_min(_TINY)
            root = total.rsqrt()
            largest = torch.linalg.eigvalsh(root[:, None] * (enter @ enter.T) * root).max()
            product *= 1 + 2 * max(0.0, float(largest) - 1)
        return product

    def proven_rate(self) -> float:
        """Return the rate that the weights as they are guarantee, in exact arithmetic."""
        if self.gated:
            # The shares depend on the input, and their sum is rounded.
            eps = torch.finfo(self.shares.dtype).eps
            return self.rate * (1 + 4 * eps) * max(1.0, self.lipschitz())
        retained, root = (part.detach().double() for part in self.constrain()[:2])
        return float((retained + root.square() * self.lipschitz()).max())

    def proven_slack(self, bound: float, injection: float, unit: float) -> float:
        """Bound what rounding adds to the distance of two states refined under the same input.

        A sum of n products errs by at most about n roundings of the sum of their absolute values
        (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), which Frobenius norms bound;
        errors of one layer reach the output through 1-Lipschitz ones.

        Args:
            bound: Bound on the norm of both states.
            injection: Bound on ||e|| of a token.
            unit: Unit roundoff of the arithmetic.
        """
        into, out = (self.width + 2) * unit, (self.hidden + 2) * unit
        size, error = bound, 2 * unit * bound
        for layer, weight, bias in zip(self.lipschitz_layers, *self._shifts(), strict=True):
            enter, leave = (part.detach().double().norm() for part in layer.constrain())
            shift = float(weight.norm() * injection + bias.norm())
            pre = float(enter) * size + shift
            error += float(leave) * (into + out) * pre + out * size
            size += float(leave) * shift
        forced = float(self.inject.weight.detach().double().norm()) * injection
        return 2 * self.lipschitz() * (error + 4 * unit * (bound + size + forced))

    def proven_bound(self, injection: float, start: Float[Tensor, " D"]) -> float:
        """Bound the norm of a token for any number of iterations, whatever e within its bound.

        Args:
            injection: Bound on ||e|| of a token.
            start: State that the loop starts from.

        Returns:
            `max(||start||, sup ||F(0, e)|| / (1 - rate))`; infinite where rounding of the weights
            leaves no proven rate below 1.
        """
        rate, lipschitz = self.proven_rate(), self.lipschitz()
        if rate >= 1:
            return math.inf
        norm = torch.linalg.matrix_norm
        at_zero = 0.0
        for layer, weight, bias in zip(self.lipschitz_layers, *self._shifts(), strict=True):
            leave = layer.constrain()[1].detach().double()
            reach = norm(weight, 2) * injection + bias.norm()
            at_zero = at_zero * lipschitz + float(norm(leave, 2) * reach)
        forced = float(norm(self.inject.weight.detach().double(), 2)) * injection
        forced += math.sqrt(self.rate) * at_zero
        return max(float(start.detach().double().norm()), forced / (1 - rate))

    def _shifts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the weights and the biases of each layer's shift, in float64."""
        parts = (self.shift.weight, self.shift.bias)
        weights, biases = (list(part.detach().double().split(self.hidden)) for part in parts)
        return weights, biases
