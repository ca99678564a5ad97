"""Continuous depth: against matrix exponentials, the discrete loop and finite differences."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from loopwm.core.cell import BoundedCell
from loopwm.core.config import Bounded, Contractive
from loopwm.core.contractive import ContractiveCell
from loopwm.core.depth import Depth, Fixed, Flow, Poisson
from loopwm.core.grad import Checkpointed, Full, GradientMode, Implicit, LastK, Phantom
from loopwm.core.halt import Residual
from loopwm.core.loop import LoopedCore
from loopwm.core.program import LOOPWM, trm
from loopwm.errors import ConfigError, NumericalError

pytestmark = pytest.mark.usefixtures("without_shape_checks")

WIDTH = 4
EULER = Flow(method="euler", step=1.0)


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


class Linear(nn.Module):
    """F(h, e) = A h + B e."""

    num_conditions = 1

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(randn(WIDTH, WIDTH, seed=1, scale=0.4))
        self.inject = nn.Parameter(randn(WIDTH, WIDTH, seed=2))
        self.calls = 0

    def condition(self, e: Tensor) -> tuple[Tensor, ...]:
        return (e @ self.inject.T,)

    def constrain(self) -> tuple[Tensor, ...]:
        return ()

    def forward(
        self,
        h: Tensor,
        conditioning: tuple[Tensor, ...],
        weights: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        self.calls += 1
        return h @ self.mix.T + conditioning[0]


def contractive(rate: float = 0.8) -> ContractiveCell:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cell = ContractiveCell(WIDTH, Contractive(rate=rate)).double()
        with torch.no_grad():
            for p in cell.parameters():
                p.add_(0.5 * torch.randn_like(p))
    return cell


def closed_form(cell: Linear, h: Tensor, e: Tensor, tau: float) -> np.ndarray:
    """The solution of dh/dtau = (A - I) h + B e."""
    generator = (cell.mix - torch.eye(WIDTH, dtype=torch.float64)).detach().numpy()
    forced = (e @ cell.inject.T).detach().numpy()
    grown = scipy.linalg.expm(tau * generator)
    rest = -forced @ np.linalg.inv(generator).T
    return (h.numpy() - rest) @ grown.T + rest


@pytest.mark.parametrize(
    ("flow", "tol"),
    [
        (Flow(rtol=1e-9, atol=1e-10), 1e-7),
        (Flow(method="dopri8", rtol=1e-9, atol=1e-10), 1e-7),
        # Of lower order: the same error takes many more steps.
        (Flow(method="bosh3", rtol=1e-7, atol=1e-8), 1e-4),
        (Flow(method="adaptive_heun", rtol=1e-5, atol=1e-6), 1e-2),
        (Flow(method="rk4", step=0.05), 1e-5),
        (Flow(method="midpoint", step=0.05), 1e-2),
    ],
    ids=lambda each: each.method if isinstance(each, Flow) else "",
)
def test_a_linear_cell_flows_as_its_matrix_exponential_says(flow, tol):
    cell, h, e = Linear(), randn(3, 2, WIDTH, seed=3), randn(3, 2, WIDTH, seed=4)
    out = LoopedCore(cell, flow=flow).requires_grad_(False)((h,), e, 6)
    np.testing.assert_allclose(out.state[0], closed_form(cell, h, e, 6), rtol=tol, atol=tol)


def test_each_row_flows_for_a_time_of_its_own_and_is_tapped_on_the_way():
    cell, h, e = Linear(), randn(4, 1, WIDTH, seed=3), randn(4, 1, WIDTH, seed=4)
    times, taps = torch.tensor([6, 1, 3, 2]), torch.tensor([2, 1, 3, 1])
    core = LoopedCore(cell, flow=Flow(rtol=1e-9, atol=1e-10)).requires_grad_(False)
    out, whole = core((h,), e, times, tap=taps), core((h,), e, 6, tap=taps)
    assert out.tapped is not None
    assert whole.tapped is not None
    for i in range(4):
        for state, time in ((out.state[0], times[i]), (out.tapped, taps[i])):
            expected = closed_form(cell, h[i : i + 1], e[i : i + 1], float(time))
            np.testing.assert_allclose(state[i : i + 1], expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(whole.tapped, out.tapped)
    assert len(set(out.n_iters.tolist())) == 1


@pytest.mark.parametrize("program", ["one latent", "two latents"])
def test_eulers_method_with_step_one_is_the_loop(program, bounded, post_norm):
    one = program == "one latent"
    cell, cycle = (bounded(width=WIDTH), LOOPWM) if one else (post_norm(width=WIDTH), trm(2))
    loop, flow = LoopedCore(cell, cycle), LoopedCore(cell, cycle, flow=EULER)
    z = tuple(randn(3, 2, WIDTH, seed=i).requires_grad_() for i in range(1 if one else 2))
    e, taps = randn(3, 2, WIDTH, seed=9).requires_grad_(), torch.tensor([2, 1, 3])
    leaves = [*z, e, *cell.parameters()]
    for depth in (5, torch.tensor([3, 5, 4])):
        theirs, ours = (core(z, e, depth, tap=taps) for core in (loop, flow))
        weight = [randn(*s.shape, seed=30) for s in (*theirs.state, theirs.state[0])]
        found = []
        for out in (theirs, ours):
            states = (*out.state, out.tapped)
            loss = torch.stack(
                [(s * w).sum() for s, w in zip(states, weight, strict=True) if s is not None]
            )
            found.append(torch.autograd.grad(loss.sum(), leaves, allow_unused=True))
        for a, b in zip((*ours.state, ours.tapped), (*theirs.state, theirs.tapped), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        assert ours.n_iters.tolist() == [5, 5, 5]
        assert ours.n_iters.dtype == torch.int64


def test_the_flow_and_the_loop_rest_at_the_same_state():
    cell, h, e = contractive(), randn(3, 1, WIDTH, seed=3), randn(3, 1, WIDTH, seed=4)
    rest = LoopedCore(cell)((h,), e, 150).state[0]
    flow = Flow(rtol=1e-7, atol=1e-8)
    out = LoopedCore(cell, flow=flow)((randn(3, 1, WIDTH, seed=5),), e, 150)
    # At rest, its error keeps to the tolerance.
    torch.testing.assert_close(out.state[0], rest, rtol=1e-6, atol=1e-6)
    assert float(out.residual.max()) < 1e-6
    assert not out.settled.any()


def test_the_flow_brings_states_closer_as_the_rate_says():
    rate, tau = 0.8, 5
    cell, e = contractive(rate), randn(16, 1, WIDTH, seed=4)
    a, b = randn(16, 1, WIDTH, seed=5), randn(16, 1, WIDTH, seed=6)
    core = LoopedCore(cell, flow=Flow(rtol=1e-7, atol=1e-8)).requires_grad_(False)
    apart = (core((a,), e, tau).state[0] - core((b,), e, tau).state[0]).norm(dim=-1)
    shrunk = np.exp(-(1 - cell.proven_rate()) * tau)
    assert bool((apart <= shrunk * (a - b).norm(dim=-1) * (1 + 1e-6)).all())


def test_the_residual_is_what_one_more_iteration_would_change():
    core = LoopedCore(contractive(), flow=Flow())
    h, e = randn(3, 1, WIDTH, seed=3), randn(3, 1, WIDTH, seed=4)
    out = core((h,), e, torch.tensor([1, 2, 4]))
    end = out.state[0]
    change = (core.refine(end, e) - end).flatten(1).norm(dim=1) / end.flatten(1).norm(dim=1)
    torch.testing.assert_close(out.residual, change.detach())


def test_a_lower_tolerance_takes_more_evaluations_and_errs_less():
    cell, h, e = Linear(), randn(3, 1, WIDTH, seed=3), randn(3, 1, WIDTH, seed=4)
    exact, counts, errors = closed_form(cell, h, e, 6), [], []
    for tol in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10):
        cell.calls = 0
        out = LoopedCore(cell, flow=Flow(rtol=tol, atol=tol)).requires_grad_(False)((h,), e, 6)
        counts.append(int(out.n_iters[0]))
        errors.append(float(np.abs(out.state[0].numpy() - exact).max()))
        # One more evaluation measures the residual.
        assert cell.calls == counts[-1] + 1
    assert counts == sorted(set(counts))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e3 * errors[-1]


def smooth() -> BoundedCell:
    """A cell without a rectifier, at whose kinks an adaptive solver takes many small steps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BoundedCell(WIDTH, Bounded()).double()


class Upstream(nn.Module):
    """A core, and what a model has before it."""

    def __init__(self, flow: Flow | None, grad: GradientMode = Full()) -> None:
        super().__init__()
        self.core, self.grad = LoopedCore(smooth(), flow=flow), grad
        self.enter = nn.Parameter(randn(WIDTH, WIDTH, seed=5))
        self.origin = nn.Parameter(randn(WIDTH, seed=6))

    def forward(self, x: Tensor, tau: int | Tensor = 3) -> Tensor:
        start = self.origin.expand(len(x), 1, -1)
        return self.core((start,), torch.tanh(x @ self.enter), tau, grad=self.grad).state[0]


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
@pytest.mark.parametrize("tau", [2, torch.tensor([1, 3])], ids=["one", "per row"])
def test_the_gradient_of_a_flow_equals_finite_differences(method, tau):
    step = None if method == "dopri5" else 0.25
    module = Upstream(Flow(method=method, rtol=1e-9, atol=1e-10, step=step))
    names = [name for name, _ in module.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x, tau))

    inputs = [randn(2, 1, WIDTH, seed=2), *(p.detach().clone() for p in module.parameters())]
    assert torch.autograd.gradcheck(
        function, [x.requires_grad_() for x in inputs], atol=1e-7, rtol=1e-6, fast_mode=True
    )


def flow_twice(flow: Flow, cell: Any) -> list[Tensor]:
    """Gradients through two flows, the second conditioned on where the first one ended."""
    core, weight = LoopedCore(cell, flow=flow), randn(2, 1, WIDTH, seed=8)
    h, e = (randn(2, 1, WIDTH, seed=i).requires_grad_() for i in (1, 2))
    between = core((h,), e, 2).state[0]
    end = core((between,), e + torch.tanh(between), torch.tensor([3, 1])).state[0]
    return list(torch.autograd.grad((end * weight).sum(), [h, e, *cell.parameters()]))


def test_the_adjoint_has_the_direct_gradient_at_tight_tolerances_and_errs_at_loose_ones():
    exact, errors = flow_twice(Flow(rtol=1e-10, atol=1e-11), smooth()), []
    for tol in (1e-2, 1e-4, 1e-6, 1e-9):
        found = flow_twice(Flow(rtol=tol, atol=tol, adjoint=True), smooth())
        miss = [float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)]
        errors.append(max(miss))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-6


def saved_numbers(flow: Flow, tau: int, grad: GradientMode = Full()) -> int:
    saved: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda x: x):
        Upstream(flow, grad)(randn(2, 1, WIDTH), tau)
    return sum(tensor.numel() for tensor in saved.values())


def test_memory_grows_with_the_steps_unless_the_adjoint_or_the_mode_spares_it():
    stepped = Flow(method="rk4", step=0.5)
    for flow, grad in [
        (Flow(method="rk4", step=0.5, adjoint=True), Full()),
        (stepped, Implicit()),
        (stepped, Phantom(2)),
    ]:
        assert saved_numbers(flow, 4, grad) == saved_numbers(flow, 40, grad)
    direct, checkpointed = (
        saved_numbers(stepped, 40, grad) - saved_numbers(stepped, 4, grad)
        for grad in (Full(), Checkpointed())
    )
    assert checkpointed < 0.7 * direct


def gradients(flow: Flow | None, grad: GradientMode, tau: int) -> list[Tensor]:
    """Gradients in what makes the injection and in the cell's weights."""
    module = Upstream(flow, grad)
    loss = (module(randn(2, 1, WIDTH, seed=2), tau) * randn(2, 1, WIDTH, seed=8)).sum()
    return list(torch.autograd.grad(loss, [module.enter, *module.core.parameters()]))


def test_checkpointing_leaves_the_gradient_as_it_is():
    whole, again = (gradients(Flow(), grad, 3) for grad in (Full(), Checkpointed()))
    for a, b in zip(again, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("grad", [Implicit(1e-14, 200), Phantom(200)], ids=["implicit", "phantom"])
def test_where_the_flow_has_settled_it_has_the_gradient_of_the_settled_loop(grad):
    ours = gradients(Flow(method="rk4", step=1.0), grad, 200)
    for a, b in zip(ours, gradients(None, Full(), 200), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_a_batch_without_rows_comes_back_without_rows():
    h = randn(0, 1, WIDTH)
    out = LoopedCore(smooth(), flow=Flow())((h,), h, 3)
    assert out.state[0].shape == (0, 1, WIDTH)
    assert len(out.n_iters) == 0


def test_a_state_that_is_not_finite_is_an_error_with_its_cause():
    h = randn(2, 1, WIDTH)
    h[1] = torch.nan
    with pytest.raises(NumericalError, match=r"dopri5 cannot solve the flow: .* not finite"):
        LoopedCore(smooth(), flow=Flow())((h,), randn(2, 1, WIDTH), 3)


def test_a_tolerance_that_the_type_does_not_resolve_is_an_error():
    flow, h = Flow(rtol=1e-14, atol=1e-14, max_steps=50), torch.ones(2, 1, WIDTH)
    with pytest.raises(NumericalError, match=r"max_num_steps exceeded .* what torch\.float32 res"):
        LoopedCore(smooth().float(), flow=flow)((h,), h, 3)


@pytest.mark.parametrize(
    ("flow", "options", "message"),
    [
        (Flow(), {"stop": Residual()}, "stops between iterations, and a flow has none"),
        (Flow(), {"grad": LastK(2)}, "counts iterations, and a flow has none"),
        (Flow(adjoint=True), {"grad": Implicit()}, r"Flow\.adjoint needs grad=Full\(\), got Impl"),
    ],
)
def test_what_only_iterations_have_is_refused(flow, options, message):
    h = randn(2, 1, WIDTH)
    with pytest.raises(ConfigError, match=message):
        LoopedCore(smooth(), flow=flow)((h,), h, 3, **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "leap"}, r"Flow\.method must be one of dopri5, .*, rk4, got 'leap'"),
        ({"rtol": 0.0}, r"Flow\.rtol must be above 0, got 0\.0"),
        ({"atol": -1.0}, r"Flow\.atol must be above 0, got -1\.0"),
        ({"max_steps": 0}, r"Flow\.max_steps must be above 0, got 0"),
        ({"step": 0.5}, r"Flow\.step is for euler, midpoint, rk4: dopri5 chooses its own"),
        ({"method": "euler"}, r"Flow\.step must be above 0 for method='euler', got None"),
        ({"method": "rk4", "step": 0.0}, r"Flow\.step must be above 0 for method='rk4', got 0\.0"),
    ],
)
def test_impossible_flows_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Flow(**settings)


def test_a_flow_draws_its_times_as_iterations_are_drawn():
    law, flow = Poisson(4), Flow(tau=Poisson(4))
    assert isinstance(flow, Depth)
    assert flow.typical == law.typical
    drawn = [each.sample(50, torch.Generator().manual_seed(3)).tolist() for each in (flow, law)]
    assert drawn[0] == drawn[1]
    assert Flow(tau=Fixed(7)).typical == 7
