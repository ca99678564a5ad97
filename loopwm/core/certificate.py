"""What is proven of a loop from its weights, and beside it what is measured."""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_POWER_STEPS = 30


@runtime_checkable
class Bounds(Protocol):
    """Be a cell whose states are proven to stay within a bound."""

    def proven_bound(self, injection: float, start: Tensor) -> float:
        """Bound the norm of a token, from a bound on its injection's and the state [D] at first.

        Where the injection's is infinite, it is finite only if it holds whatever the injection.
        """
        ...


@runtime_checkable
class Contracts(Protocol):
    """Be a cell that is proven to bring any two states closer."""

    def proven_rate(self) -> float:
        """Return the largest factor by which an iteration shrinks a distance."""
        ...

    def proven_slack(self, bound: float, injection: float, unit: float) -> float:
        """Bound what rounding by `unit` adds to a distance, within bounds on state and input."""
        ...


@dataclass(frozen=True)
class Certificate:
    """Say what is proven of a loop, under which assumptions, and what was measured.

    Attributes:
        cell: Name of the cell.
        rate: Largest factor by which one iteration shrinks the distance of any two states at the
            same input; None if nothing is proven.
        state_bound: Largest norm of a latent token after any number of iterations and environment
            steps; None if nothing is proven.
        dtype: Type that the model computes in; the proof is about exact arithmetic.
        slack: What rounding in `dtype` may add to a distance in one iteration, for states within
            the bound; None without a rate.
        assumptions: What the proof takes for granted.
        local_gain: Largest local expansion found by power iteration at the measured states, a
            lower bound of the true one; None if nothing was measured.
        state_norm: Largest norm of a latent token met there; None if nothing was measured.
    """

    cell: str
    rate: float | None
    state_bound: float | None
    dtype: str
    slack: float | None
    assumptions: tuple[str, ...]
    local_gain: float | None = None
    state_norm: float | None = None

    def __str__(self) -> str:
        """Lay out the certificate as lines."""

        def number(value: float | None, none: str = "nothing proven") -> str:
            return none if value is None else f"{value:.4g}"

        lines = [
            f"{self.cell}, computed in {self.dtype}",
            f"  contraction rate   {number(self.rate)}",
            f"    measured gain    {number(self.local_gain, 'not measured')}",
            f"  bound on the state {number(self.state_bound)}",
            f"    largest norm met {number(self.state_norm, 'not measured')}",
        ]
        if self.slack is not None:
            lines.append(f"  slack for rounding {number(self.slack)}")
        return "\n".join([*lines, *(f"  assumes: {each}" for each in self.assumptions)])


def certify(
    cell: nn.Module,
    injection: float | None,
    start: Float[Tensor, " D"],
    assumptions: tuple[str, ...],
) -> Certificate:
    """Compute what is proven of a loop over a cell, in float64 from the weights as they are.

    A cell takes part by the methods of `Bounds` and of `Contracts`; of one that has none, nothing
    is proven.

    Args:
        cell: The refinement that is repeated.
        injection: Bound on the norm of the injection of a token, or None if none is known.
        start: State that the loop starts from, or was started from before it was carried on.
        assumptions: What the bound on the injection takes for granted.
    """
    dtype = next(cell.parameters()).dtype
    name = str(dtype).removeprefix("torch.")
    if torch.finfo(dtype).bits < 32:
        # The state is rounded by more at each iteration than the rate takes off what is left.
        taken = (f"nothing is certified in {name}: use .float()",)
        return Certificate(type(cell).__name__, None, None, name, None, taken)
    rate = cell.proven_rate() if isinstance(cell, Contracts) else None
    if rate is not None and rate >= 1:  # Weights rounded before may prove none.
        rate = None
    bound, slack, taken = None, None, ["exact arithmetic"]
    if rate is not None:
        taken.append("the input stays the same over the iterations of an environment step")
    if isinstance(cell, Bounds):
        # Some cells need no bound on the injection.
        bound = cell.proven_bound(math.inf, start)
        if not math.isfinite(bound):
            bound = None if injection is None else cell.proven_bound(injection, start)
            bound = None if bound == math.inf else bound
            taken += () if bound is None else assumptions
    if not (rate is None or bound is None or injection is None) and isinstance(cell, Contracts):
        slack = cell.proven_slack(bound, injection, torch.finfo(dtype).eps / 2)
    return Certificate(type(cell).__name__, rate, bound, name, slack, tuple(taken))


def local_gain(
    cell: nn.Module,
    h: Float[Tensor, "B L D"],
    e: Float[Tensor, "B L D"],
    steps: int = _POWER_STEPS,
) -> Float[Tensor, " B"]:
    """Measure by how much one iteration stretches the worst small change of each row's state.

    Args:
        cell: The refinement.
        h: States.
        e: Injections.
        steps: Power iterations on J'J; the result rises towards ||J|| with them.

    Returns:
        A lower bound of the spectral norm of the Jacobian in h, row by row.
    """
    run: Any = cell
    training = cell.training
    cell.eval()
    # Fused attention has no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        at = h.detach().requires_grad_()
        conditioning = tuple(part.detach() for part in run.condition(e))
        out = run(at, conditioning, tuple(part.detach() for part in run.constrain()))
        # The gradient of <J'u, v> in u is J v: reverse mode alone gives both products.
        u = torch.zeros_like(out, requires_grad=True)
        (back,) = torch.autograd.grad(out, at, u, create_graph=True)
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(h.shape, generator=generator, dtype=h.dtype).to(h.device)
        gain = v.new_zeros(len(h))
        for _ in range(steps):
            length = v.flatten(1).norm(dim=1).clamp_min(torch.finfo(v.dtype).tiny)
            (pushed,) = torch.autograd.grad(back, u, v / length[:, None, None], retain_graph=True)
            gain = pushed.flatten(1).norm(dim=1)
            (v,) = torch.autograd.grad(out, at, pushed, retain_graph=True)
    cell.train(training)
    return gain.detach()


def box_bound(
    weight: Float[Tensor, "D X"], bias: Float[Tensor, " D"], limits: Float[Tensor, " X"]
) -> float:
    """Bound `||W x + b||` over all x with `|x_i| <= limits_i`."""
    reach = weight.detach().double().abs() @ limits.double() + bias.detach().double().abs()
    return math.sqrt(float(reach.square().sum()))
