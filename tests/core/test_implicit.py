"""Gradients of settled states: against finite differences, dense algebra and the full gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from loopwm.core.cell import BoundedCell
from loopwm.core.config import Bounded, Contractive
from loopwm.core.contractive import ContractiveCell
from loopwm.core.grad import FixedPointMode, Full, GradientMode, Implicit, Phantom
from loopwm.core.halt import Residual
from loopwm.core.implicit import solve_adjoint
from loopwm.core.loop import LoopedCore
from loopwm.core.program import LOOPWM, trm
from loopwm.errors import ConfigError

# Thousands of iterations of a few numbers each: the shape checks would take most of the time.
pytestmark = pytest.mark.usefixtures("without_shape_checks")

WIDTH, RATE = 3, 0.6
# After so many iterations nothing moves any more: 0.6^80 is 2e-18.
SETTLED = 80
EXACT = Implicit(tol=1e-15, max_iters=SETTLED)


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def noisy(make: Callable[[], Any], noise: float, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cell = make().double()
        with torch.no_grad():
            for p in cell.parameters():
                p.add_(noise * torch.randn_like(p))
    return cell


def contractive(gated: bool = False, width: int = WIDTH, rate: float = RATE) -> ContractiveCell:
    return noisy(lambda: ContractiveCell(width, Contractive(rate=rate, gated=gated)), 0.5)


def bounded(gain: float | None = None) -> BoundedCell:
    """A cell that settles because its correction is small; nothing proves that it does."""
    cell = noisy(lambda: BoundedCell(WIDTH, Bounded(gain=gain, retention=0.3)), 0.1)
    with torch.no_grad():
        cell.leave.mul_(0.3)
    return cell


CELLS: dict[str, Callable[[], Any]] = {
    "contractive": contractive,
    "contractive, gated": lambda: contractive(gated=True),
    "bounded": bounded,
    "bounded, renewal": lambda: bounded(gain=0.8),
}


@pytest.fixture(params=CELLS)
def cell(request) -> Any:
    return CELLS[request.param]()


class Upstream(nn.Module):
    """A core, and what a model has before it: a learned start and a learned injection."""

    def __init__(self, cell: Any, grad: GradientMode, depth: int | Tensor) -> None:
        super().__init__()
        self.core, self.grad, self.depth = LoopedCore(cell), grad, depth
        self.enter = nn.Parameter(randn(cell.width, cell.width, seed=5))
        self.origin = nn.Parameter(randn(cell.width, seed=6))

    def forward(self, x: Tensor) -> Tensor:
        start = self.origin.expand(len(x), 1, -1)
        return self.core((start,), torch.tanh(x @ self.enter), self.depth, grad=self.grad).state[0]


def gradients(
    cell: Any, grad: GradientMode, depth: int | Tensor, rows: slice = slice(None), **options: Any
) -> list[Tensor]:
    """Gradients in the injection and in every weight."""
    e = randn(4, 2, cell.width, seed=9)[rows].requires_grad_()
    h = randn(4, 2, cell.width, seed=1)[rows]
    out = LoopedCore(cell)((h,), e, depth, grad=grad, **options)
    loss = (out.state[0] * randn(4, 2, cell.width, seed=30)[rows]).sum()
    return list(torch.autograd.grad(loss, [e, *cell.parameters()]))


def assert_same(ours: list[Tensor], theirs: list[Tensor], tol: float = 1e-9) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def test_the_implicit_gradient_equals_finite_differences_of_the_settled_state(cell):
    # 0.6^45 is 1e-10, far below what finite differences resolve.
    module = Upstream(cell, Implicit(tol=1e-12, max_iters=SETTLED), torch.tensor([50, 45]))
    names = [name for name, _ in module.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    inputs = [randn(2, 1, WIDTH, seed=2), *(p.detach().clone() for p in module.parameters())]
    assert torch.autograd.gradcheck(
        function, [x.requires_grad_() for x in inputs], eps=1e-6, atol=1e-8, rtol=1e-6
    )


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_both_modes_have_the_full_gradient_where_the_loop_has_settled(cell, training):
    cell.train(training)
    full = gradients(cell, Full(), SETTLED)
    assert_same(gradients(cell, EXACT, SETTLED), full)
    assert_same(gradients(cell, Phantom(SETTLED), SETTLED), full)
    assert_same(gradients(cell, Phantom(2 * SETTLED, damping=0.5), SETTLED), full)


@pytest.mark.parametrize("depth", [[SETTLED, 1, 5, 2], [9, 7, 3, 1]], ids=["mixed", "sorted"])
@pytest.mark.parametrize("grad", [EXACT, Phantom(3, damping=0.7)], ids=["implicit", "phantom"])
def test_each_row_has_the_gradient_of_its_own_last_state(cell, grad, depth):
    together = gradients(cell, grad, torch.tensor(depth))
    alone = [gradients(cell, grad, d, rows=slice(i, i + 1)) for i, d in enumerate(depth)]
    apart = [torch.cat([each[0] for each in alone])]
    apart += [torch.stack(parts).sum(0) for parts in list(zip(*alone, strict=True))[1:]]
    assert_same(together, apart)


@pytest.mark.parametrize("program", [LOOPWM, trm(2)], ids=["one latent", "two latents"])
@pytest.mark.parametrize("depth", [2, SETTLED], ids=["unsettled", "settled"])
def test_the_implicit_gradient_is_dense_algebra_at_the_last_state(program, depth):
    cell, latents = contractive(), program.num_states
    with torch.no_grad():
        cell.inject.weight.mul_(0.3)
    core, e = LoopedCore(cell, program), randn(1, 1, WIDTH, seed=9).requires_grad_()
    z = tuple(randn(1, 1, WIDTH, seed=i) for i in range(latents))
    weight = randn(latents * WIDTH, seed=30)
    out = core(z, e, depth, grad=EXACT).state
    ours = torch.autograd.grad(torch.cat([s.flatten() for s in out]) @ weight, e)[0].flatten()

    def once(flat: Tensor, e: Tensor) -> Tensor:
        states = tuple(part.view(1, 1, WIDTH) for part in flat.split(WIDTH))
        return torch.cat([s.flatten() for s in core(states, e, 1).state])

    at = torch.cat([s.detach().flatten() for s in core(z, e, depth).state])
    in_state, in_e = jacobian(once, (at, e))
    identity = torch.eye(len(at), dtype=torch.float64)
    expected = weight @ torch.linalg.solve(identity - in_state, in_e.flatten(1))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def bare_adjoint(rate: float) -> ContractiveCell:
    """A contraction into which the injection enters as it is: its gradient is the adjoint."""
    cell = contractive(width=6, rate=rate)
    with torch.no_grad():
        nn.init.eye_(cell.inject.weight)
        cell.shift.weight.zero_()
        cell.shares[2] = -20.0  # nothing is given up: the rate is nearly reached
    return cell


@pytest.mark.parametrize("rate", [0.5, 0.9])
@pytest.mark.parametrize("damping", [1.0, 0.5])
def test_the_phantom_bias_falls_at_least_as_fast_as_the_rate_says(rate, damping):
    cell, depth = bare_adjoint(rate), 600
    exact = gradients(cell, Implicit(1e-15, depth), depth)[0].flatten(1)
    damped, biases = 1 - damping * (1 - cell.proven_rate()), []
    for k in (1, 2, 4, 8, 16, 32):
        cut = gradients(cell, Phantom(k, damping), depth)[0].flatten(1)
        bias = float(((cut - exact).norm(dim=1) / exact.norm(dim=1)).max())
        assert bias <= damped**k * (1 + 1e-9) + 1e-12
        biases.append(bias)
    assert biases == sorted(biases, reverse=True)
    # One iteration leaves much out: the bound is no empty one.
    assert biases[0] > 0.2 * damped


def test_the_implicit_error_is_what_the_tolerance_says():
    cell = bare_adjoint(0.9)
    exact = gradients(cell, Implicit(1e-15, 600), 600)[0].flatten(1)
    for tol in (1e-1, 1e-2, 1e-4):
        rough = gradients(cell, Implicit(tol, 600), 600)[0].flatten(1)
        error = (rough - exact).norm(dim=1) / rough.norm(dim=1)
        assert bool((error <= tol * 0.9 / (1 - 0.9)).all())


def test_the_backward_iteration_stops_at_its_limit():
    cell = bare_adjoint(0.9)
    for most in (1, 5):
        assert_same(
            gradients(cell, Implicit(1e-15, most), 600), gradients(cell, Phantom(most + 1), 600)
        )


def test_an_adjoint_that_grows_without_limit_ends_and_one_of_zero_ends_at_once():
    calls: list[float] = []

    def double(g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        calls.append(float(g[0].norm()))
        return (2 * g[0],)

    (grown,) = solve_adjoint(double, (torch.ones(2, 1, 1),), tol=1e-3, max_iters=7)
    assert len(calls) == 7
    assert float(grown[0]) == 2**8 - 1
    calls.clear()
    solve_adjoint(double, (torch.zeros(2, 1, 1),), tol=1e-3, max_iters=7)
    assert len(calls) == 1


@pytest.mark.parametrize("per_row", [False, True], ids=["one depth", "per row"])
@pytest.mark.parametrize("grad", [Implicit(), Phantom(3)], ids=["implicit", "phantom"])
def test_memory_does_not_grow_with_the_depth(cell, grad, per_row):
    def kept(mode: GradientMode, depth: int) -> int:
        # Saved once: what the same tensor is saved for again costs nothing.
        saved: dict[int, Tensor] = {}

        def save(tensor: Tensor) -> Tensor:
            saved[tensor.data_ptr()] = tensor
            return tensor

        e = randn(4, 1, WIDTH, seed=9).requires_grad_()
        counts = torch.tensor([depth, depth - 1, 2, 1]) if per_row else depth
        with torch.autograd.graph.saved_tensors_hooks(save, lambda x: x):
            LoopedCore(cell)((randn(4, 1, WIDTH),), e, counts, grad=mode)
        return sum(tensor.numel() for tensor in saved.values())

    assert kept(grad, 4) == kept(grad, 64)
    assert kept(Full(), 64) > 3 * kept(Full(), 4)


@pytest.mark.parametrize("depth", [5, torch.tensor([5, 2, 4, 1])], ids=["one", "per row"])
def test_values_are_those_of_the_loop_and_of_the_further_iterations(cell, depth):
    core, e = LoopedCore(cell), randn(4, 2, WIDTH, seed=9)
    h = randn(4, 2, WIDTH, seed=1).requires_grad_()
    plain = core((h,), e, depth)
    implicit, phantom = core((h,), e, depth, grad=EXACT), core((h,), e, depth, grad=Phantom(3))
    torch.testing.assert_close(implicit.state[0], plain.state[0], rtol=1e-13, atol=1e-13)
    further = core((h,), e, depth + 3).state[0]
    torch.testing.assert_close(phantom.state[0], further, rtol=1e-13, atol=1e-13)
    for out in (implicit, phantom):
        assert out.n_iters.tolist() == plain.n_iters.tolist()
        torch.testing.assert_close(out.residual, plain.residual)
        # The settled state does not depend on where the loop began.
        assert torch.autograd.grad(out.state[0].sum(), h, allow_unused=True) == (None,)


@pytest.mark.parametrize("grad", [EXACT, Phantom(3)], ids=["implicit", "phantom"])
def test_a_tapped_state_has_the_gradient_of_the_one_iteration_that_follows(cell, grad):
    core, taps = LoopedCore(cell), torch.tensor([3, 1, 5, 2])
    h, e = randn(4, 2, WIDTH, seed=1), randn(4, 2, WIDTH, seed=9).requires_grad_()
    leaves = [e, *cell.parameters()]
    out = core((h,), e, 6, tap=taps, grad=grad)
    after = core((core((h,), e, taps).state[0].detach(),), e, 1).state[0]
    assert out.tapped is not None
    torch.testing.assert_close(out.tapped, after, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(s.square().sum(), leaves) for s in (out.tapped, after))
    assert_same(list(ours), list(theirs))


def test_a_tap_of_two_latents_is_refused_by_modes_that_would_refine_it_on():
    core, z = LoopedCore(contractive(), trm(2)), (randn(2, 1, WIDTH), randn(2, 1, WIDTH, seed=1))
    tap = torch.tensor([1, 2])
    with pytest.raises(ValueError, match="keeps one of 2 latents; use Full, Checkpointed or LastK"):
        core(z, randn(2, 1, WIDTH), 3, tap=tap, grad=Implicit())


def test_rows_that_a_rule_stops_have_the_full_gradient_too(cell):
    stop = Residual(tol=1e-13)
    assert_same(gradients(cell, EXACT, 1000, stop=stop), gradients(cell, Full(), SETTLED), tol=1e-8)


class Counting(nn.Module):
    """Count the refinements of a cell."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.num_conditions, self.calls = inner, inner.num_conditions, 0
        self.condition, self.constrain = inner.condition, inner.constrain

    def forward(self, *args: Any) -> Tensor:
        self.calls += 1
        return self.inner(*args)


@pytest.mark.parametrize("grad", [Implicit(), Phantom(3)], ids=["implicit", "phantom"])
def test_where_no_gradient_is_wanted_the_loop_is_all_that_runs(grad):
    assert isinstance(grad, FixedPointMode)
    counting = Counting(contractive().requires_grad_(False))
    core, h = LoopedCore(counting), randn(2, 1, WIDTH)
    assert not core((h,), h, 6, grad=grad).state[0].requires_grad
    assert counting.calls == 6
    counting.requires_grad_(True)
    with torch.no_grad():
        assert not core((h,), h, 6, grad=grad).state[0].requires_grad
    assert counting.calls == 12
    assert core((h,), h, 6, grad=grad).state[0].requires_grad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Phantom(0), r"Phantom\.k must be at least 1, got 0"),
        (lambda: Phantom(damping=0.0), r"Phantom\.damping must be above 0 and at most 1, got 0\.0"),
        (lambda: Phantom(damping=1.5), r"Phantom\.damping must be above 0 and at most 1, got 1\.5"),
        (lambda: Implicit(tol=0.0), r"Implicit\.tol must be above 0, got 0\.0"),
        (lambda: Implicit(max_iters=0), r"Implicit\.max_iters must be at least 1, got 0"),
    ],
)
def test_impossible_modes_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
