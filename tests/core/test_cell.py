"""The cells equal their equations, their hand-written backward is right, their states bounded."""

import math
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopwm.core.cell import BoundedCell
from loopwm.core.config import Attend, Bounded, PostNorm
from loopwm.core.fused import BoundedLoop
from loopwm.core.post_norm import PostNormCell
from loopwm.errors import ConfigError

FORMS = pytest.mark.parametrize("gain", [None, 0.7], ids=["sum", "renewal"])
MODES = pytest.mark.parametrize("training", [True, False], ids=["fused", "plain"])
# Examples are the same in every run, and no clock decides on a busy machine.
REPEATABLE = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def randn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def weights_of(cell: nn.Module) -> dict:
    return {name: p.tolist() for name, p in cell.named_parameters()}


def refine(cell: nn.Module, h: Tensor, e: Tensor) -> Tensor:
    return cell(h, cell.condition(e))  # type: ignore[operator]  # any nn.Module with the verbs of a cell


@FORMS
@MODES
@pytest.mark.parametrize("expand", [0.5, 1.0, 2.0])
def test_bounded_cell_equals_its_equations_number_by_number(
    equations, bounded, gain, training, expand
):
    cell = bounded(gain=gain, expand=expand, max_retention=0.9).train(training)
    h, e = randn(4, 2, 6, seed=1), randn(4, 2, 6, seed=2, scale=2.0)
    h[0, 0] = 0
    out = refine(cell, h, e)
    assert out.shape == h.shape
    for row in range(4):
        for token in range(2):
            expected = equations.refine(
                h[row, token].tolist(), e[row, token].tolist(), weights_of(cell), 0.9, gain
            )
            assert out[row, token].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-13)


@FORMS
def test_fused_and_plain_forward_agree_to_float32_rounding(bounded, gain):
    cell = bounded(width=32, gain=gain).float()
    h, e = randn(64, 1, 32, seed=1).float(), randn(64, 1, 32, seed=2).float()
    torch.testing.assert_close(
        refine(cell.train(), h, e), refine(cell.eval(), h, e), rtol=1e-5, atol=1e-5
    )


def test_hand_written_backward_equals_autograd_of_the_plain_cell(bounded):
    gradients = []
    for training in (True, False):
        cell = bounded(seed=3).train(training)
        h = randn(5, 1, 6, seed=1).requires_grad_()
        with torch.no_grad():
            h[0] *= 1e-4  # shorter than the norm's epsilon
            h[1] *= 1e6
        e = randn(5, 1, 6, seed=2).requires_grad_()
        loss = (refine(cell, h, e) * randn(5, 1, 6, seed=4)).sum()
        gradients.append(torch.autograd.grad(loss, [h, e, *cell.parameters()]))
    for fused, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-12)


def test_hand_written_backward_equals_finite_differences_for_every_input():
    inputs = tuple(
        randn(*shape, seed=i).requires_grad_()
        for i, shape in enumerate([(4, 5), (4, 5), (4, 6), (5,), (6, 5), (5, 3)])
    )
    taps = [torch.tensor([1]), torch.tensor([0, 2]), torch.tensor([3])]

    def loop(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        last, _, tapped = BoundedLoop.apply(*tensors, [4, 4, 4], taps)  # type: ignore[misc]
        return last, tapped

    def shrinking(*tensors: Tensor) -> Tensor:
        return BoundedLoop.apply(*tensors, [4, 3, 3, 1], ())[0]  # type: ignore[index]

    assert torch.autograd.gradcheck(loop, inputs, eps=1e-6, atol=1e-7)
    assert torch.autograd.gradcheck(shrinking, inputs, eps=1e-6, atol=1e-7)


@FORMS
@MODES
def test_cell_gradient_equals_finite_differences(bounded, gain, training):
    cell = bounded(width=3, gain=gain).train(training)
    module = _Refine(cell)
    names = [name for name, _ in module.named_parameters()]

    def function(h: Tensor, e: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (h, e))

    inputs = [randn(2, 1, 3, seed=1), randn(2, 1, 3, seed=2)]
    inputs += [p.detach().clone() for p in cell.parameters()]
    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in inputs], atol=1e-7)


class _Refine(nn.Module):
    def __init__(self, cell: BoundedCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return refine(self.cell, h, e)


def test_a_zero_state_has_a_finite_gradient(bounded):
    for training in (True, False):
        cell = bounded().train(training)
        h = torch.zeros(2, 1, 6, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(refine(cell, h, randn(2, 1, 6)).sum(), h)
        assert torch.isfinite(gradient).all()


@FORMS
def test_cell_trains_under_bfloat16_autocast_and_keeps_its_state_in_float32(bounded, gain):
    cell = bounded(width=8, gain=gain).float().train()
    h, e = randn(4, 1, 8, seed=1).float(), randn(4, 1, 8, seed=2).float()
    with torch.autocast("cpu", torch.bfloat16):
        out = refine(cell, refine(cell, h, e), e)
    out.square().sum().backward()
    exact = refine(cell, refine(cell, h, e), e)
    assert out.dtype == torch.float32
    # bfloat16 keeps 8 bits.
    torch.testing.assert_close(out, exact, rtol=0.05, atol=0.05)
    assert all(torch.isfinite(p.grad).all() for p in cell.parameters() if p.grad is not None)


@given(
    rates=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6),
    largest=st.floats(0.5, 0.999),
)
@REPEATABLE
def test_retention_never_exceeds_its_maximum_whatever_the_weights(rates, largest):
    cell = BoundedCell(len(rates), Bounded(max_retention=largest, retention=0.4)).double()
    cell.log_rate.data = torch.tensor(rates, dtype=torch.float64)
    assert bool((cell.retention <= largest * (1 + 1e-15)).all())
    assert bool((cell.retention >= 0).all())


def test_what_is_not_retained_is_renewed(bounded):
    retention, renewal = bounded(scale=3.0).constrain()
    torch.testing.assert_close(retention + renewal, torch.ones_like(retention), rtol=0, atol=1e-15)


@given(start=st.floats(0.01, 0.97))
@REPEATABLE
def test_a_new_cell_retains_what_its_configuration_says(start):
    cell = BoundedCell(3, Bounded(retention=start)).double()
    # The rate is stored in float32; near the largest retention it is a small difference.
    torch.testing.assert_close(
        cell.retention, torch.full((3,), start, dtype=torch.float64), rtol=1e-6, atol=0
    )


def adversarial(width: int, gain: float | None, seed: int, scales: list[float]) -> BoundedCell:
    """A float64 cell whose every weight tensor has a size of its own, retention near the limit."""
    cell = BoundedCell(width, Bounded(gain=gain, max_retention=0.98)).double()
    for i, (p, scale) in enumerate(zip(cell.parameters(), scales, strict=True)):
        p.data = randn(*p.shape, seed=seed + i, scale=scale)
    cell.log_rate.data -= 5
    return cell.requires_grad_(False).eval()


def largest_norms(cell: BoundedCell, h: Tensor, e: Tensor, iterations: int) -> tuple[Tensor, ...]:
    """The largest norm of a row, and the largest component, over all iterations."""
    conditioning, norm, component = cell.condition(e), h.norm(dim=-1), h.abs().amax(-1)
    for _ in range(iterations):
        h = cell(h, conditioning)
        norm = torch.maximum(norm, h.norm(dim=-1))
        component = torch.maximum(component, h.abs().amax(-1))
    return norm, component


SCALES = st.lists(st.floats(-2, 2).map(lambda x: 10**x), min_size=6, max_size=6)


@given(seed=st.integers(0, 1000), scales=SCALES, start=st.floats(-6, 6))
@REPEATABLE
def test_sum_form_stays_within_its_bound_for_any_weights_and_start(equations, seed, scales, start):
    cell = adversarial(4, None, seed, scales)
    check_sum_form(equations, cell, 10**start, iterations=200)


@pytest.mark.usefixtures("without_shape_checks")
def test_sum_form_stays_within_its_bound_for_ten_thousand_iterations(equations):
    cell = adversarial(4, None, 7, [1.0, 30.0, 30.0, 1.0, 1.0, 30.0])
    check_sum_form(equations, cell, 100.0, iterations=10_000)


def check_sum_form(equations: ModuleType, cell: BoundedCell, start: float, iterations: int) -> None:
    e, h = randn(8, 4, seed=11), randn(8, 4, seed=12, scale=start)
    weights = weights_of(cell)
    bounds = [
        equations.bound(float(row.norm()), weights, injection.tolist(), 0.98)
        for row, injection in zip(h, e, strict=True)
    ]
    norm, _ = largest_norms(cell, h, e, iterations)
    assert bool((norm <= torch.tensor(bounds, dtype=torch.float64) * (1 + 1e-12)).all())


@given(seed=st.integers(0, 1000), scales=SCALES, start=st.floats(-6, 6), gain=st.floats(0.01, 100))
@REPEATABLE
def test_renewal_form_bounds_every_component_for_any_weights_and_start(seed, scales, start, gain):
    check_renewal_form(adversarial(4, gain, seed, scales), 10**start, iterations=200)


@pytest.mark.usefixtures("without_shape_checks")
def test_renewal_form_bounds_every_component_for_ten_thousand_iterations():
    cell = adversarial(4, 2.0, 7, [1.0, 30.0, 30.0, 1.0, 1.0, 30.0])
    check_renewal_form(cell, 100.0, iterations=10_000)


def check_renewal_form(cell: BoundedCell, start: float, iterations: int) -> None:
    assert cell.gain is not None
    e, h = randn(8, 4, seed=11, scale=10.0), randn(8, 4, seed=12, scale=start)
    limit = torch.clamp_min(h.abs().amax(-1), cell.gain * math.sqrt(4))
    _, component = largest_norms(cell, h, e, iterations)
    assert bool((component <= limit * (1 + 1e-12)).all())


def test_retention_alone_is_no_bound():
    # Why R must see normalised input: with the state as it comes, the same weights explode.
    cell = adversarial(4, None, 3, [1.0, 3.0, 3.0, 1.0, 1.0, 1.0])
    h, (injected, bias) = randn(4, seed=1), cell.condition(randn(4, seed=2))
    for _ in range(30):
        gate, value = (cell.from_state @ h + bias).chunk(2)
        h = cell.retention * h + injected + cell.leave @ (nn.functional.silu(gate) * value)
    assert not bool((h.abs() < 1e9).all())


def test_post_norm_cell_equals_blocks_written_out(post_norm):
    cell, h, e = post_norm(), randn(3, 4, 6, seed=1), randn(3, 4, 6, seed=2)
    expected = h + e
    for block in cell.blocks:
        enter, leave = block.transform.enter.weight, block.transform.leave.weight
        mixed = expected + block.mix(expected)
        mixed = mixed / (mixed.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        hidden = enter.shape[0] // 2
        gate, value = mixed @ enter[:hidden].T, mixed @ enter[hidden:].T
        expected = mixed + (gate / (1 + torch.exp(-gate)) * value) @ leave.T
        expected = expected / (expected.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(refine(cell, h, e), expected, rtol=1e-12, atol=1e-12)


def test_post_norm_state_has_at_most_norm_sqrt_width_whatever_the_start():
    torch.manual_seed(0)
    cell = PostNormCell(8, PostNorm(Attend(2), multiple=8)).double()
    out = refine(cell, randn(3, 4, 8, scale=1e6), randn(3, 4, 8))
    assert bool((out.norm(dim=-1) <= math.sqrt(8) * (1 + 1e-12)).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expand": 0}, "expand must be above 0, got 0"),
        ({"gain": -1.0}, r"gain must be above 0 or None, got -1\.0"),
        ({"max_retention": 1.0}, r"max_retention=1\.0"),
        ({"retention": 0.99}, r"retention=0\.99, max_retention=0\.98"),
        ({"retention": 0.0}, r"retention=0\.0"),
    ],
)
def test_bounded_refuses_settings_that_break_its_bound(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        Bounded(**settings)


@pytest.mark.parametrize("tokens", [1, 3])
def test_a_cell_that_knows_places_takes_fewer_tokens_as_one_made_for_them(tokens: int):
    config = PostNorm(Attend(2, theta=100.0), multiple=4)
    many = PostNormCell(8, config, tokens=5).double()
    few = PostNormCell(8, config, tokens=tokens).double()
    few.load_state_dict(many.state_dict())
    h, e = randn(2, tokens, 8), randn(2, tokens, 8, seed=1)
    assert torch.equal(many(h, (e,)), few(h, (e,)))
    with pytest.raises(ConfigError, match="knows 5 places, got 6 tokens"):
        many(randn(2, 6, 8), (randn(2, 6, 8),))


def test_a_single_token_attends_to_itself_as_the_first_of_many_that_are_alike():
    cell = PostNormCell(8, PostNorm(Attend(2), multiple=4)).double()
    h, e = randn(2, 1, 8), randn(2, 1, 8, seed=1)
    alike = cell(h.expand(2, 4, 8), (e.expand(2, 4, 8),))
    torch.testing.assert_close(cell(h, (e,)), alike[:, :1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 3])
def test_out_of_training_the_gradient_of_a_cell_has_a_gradient(tokens: int):
    cell = PostNormCell(8, PostNorm(Attend(2, theta=100.0), multiple=4), tokens=3).double().eval()
    h, e = randn(2, tokens, 8), randn(2, tokens, 8, seed=1)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda x: cell(x, (e,)), h.requires_grad_())
