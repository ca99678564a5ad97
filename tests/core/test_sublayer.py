"""The fused operations of a block equal the plain ones, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from loopwm.core.rotary import rotate, rotation_of
from loopwm.core.sublayer import gated, normed, normed_sum

seeds = st.integers(0, 2**31 - 1)


def draws(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.01, 30))
def test_the_gate_and_its_gradient_are_those_of_finite_differences(seed: int, scale: float):
    both = (scale * draws(seed, 3, 2, 8)).requires_grad_()
    plain = F.silu(both[..., :4]) * both[..., 4:]
    torch.testing.assert_close(gated(both), plain)
    torch.testing.assert_close(gated(both.detach()), plain.detach())
    assert torch.autograd.gradcheck(gated, both)


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.01, 30))
def test_the_normed_sum_and_its_gradients_are_those_of_finite_differences(seed: int, scale: float):
    x = (scale * draws(seed, 3, 5)).requires_grad_()
    y = draws(seed + 1, 3, 5).requires_grad_()
    total = x + y
    plain = total / (total.square().sum(-1, keepdim=True) / 5 + 1e-2).sqrt()
    torch.testing.assert_close(normed_sum(x, y, 1e-2), plain)
    torch.testing.assert_close(normed_sum(x.detach(), y.detach(), 1e-2), plain.detach())
    torch.testing.assert_close(normed(total, 1e-2), plain)
    assert torch.autograd.gradcheck(lambda a, b: normed_sum(a, b, 1e-2), (x, y))


def test_the_terms_of_a_sum_are_left_as_they_were():
    x, y = draws(0, 2, 4), draws(1, 2, 4)
    before = x.clone(), y.clone()
    normed_sum(x, y, 1e-5)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("types", [(torch.float32, torch.bfloat16), (torch.bfloat16,) * 2])
def test_mixed_types_give_each_term_a_gradient_of_its_own(types):
    x, y = (draws(k, 6, 32).to(each).requires_grad_() for k, each in enumerate(types))
    wide = [each.detach().double().requires_grad_() for each in (x, y)]
    out, exact = normed_sum(x, y, 1e-5), normed_sum(wide[0], wide[1], 1e-5)
    weight = draws(7, 6, 32)
    (out * weight.to(out.dtype)).sum().backward()
    (exact * weight).sum().backward()
    assert out.dtype == torch.promote_types(*types)
    for ours, theirs in zip((x, y), wide, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.dtype == ours.dtype
        # Seven bits of mantissa, and a sum that is rounded to them before it is scaled.
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0.05, atol=0.03)


def test_a_turn_and_its_gradient_are_those_of_complex_numbers():
    rotation = rotation_of(5, 8, 1e4, torch.empty(0).double())
    # Heads side by side in a token, as attention lays them out.
    x = draws(0, 2, 5, 3, 8).transpose(1, 2).requires_grad_()
    turn = torch.complex(*rotation)
    plain = torch.complex(x[..., :4], x[..., 4:]) * turn
    torch.testing.assert_close(rotate(x, rotation), torch.cat([plain.real, plain.imag], dim=-1))
    assert torch.autograd.gradcheck(lambda each: rotate(each, rotation), x)
