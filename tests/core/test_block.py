"""The layers equal closed forms and torch's own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.block import Attention, Block, SwiGLU, rms_norm

REPEATABLE = settings(max_examples=100, deadline=None, derandomize=True, database=None)
FINITE = st.floats(-1e150, 1e150)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.lists(FINITE, min_size=1, max_size=8))
@REPEATABLE
def test_rms_norm_never_exceeds_the_square_root_of_the_width(values):
    out = rms_norm(torch.tensor(values, dtype=torch.float64))
    assert float(out.norm()) <= math.sqrt(len(values)) * (1 + 1e-12)


@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=1, max_size=4))
@REPEATABLE
def test_rms_norm_is_finite_and_bounded_for_every_float32(values):
    # Norms of 1e19 and more overflow when squared; the result is then 0, never NaN.
    out = rms_norm(torch.tensor(values, dtype=torch.float32))
    assert float(out.norm()) <= math.sqrt(len(values)) * (1 + 1e-6)


def test_rms_norm_equals_torchs():
    x = torch.cat([randn(5, 7), 1e-3 * randn(5, 7, seed=1), 1e3 * randn(5, 7, seed=2)])
    torch.testing.assert_close(rms_norm(x), F.rms_norm(x, (7,), eps=1e-6), rtol=1e-12, atol=0)


def test_rms_norm_of_zero_is_zero_with_a_finite_gradient():
    x = torch.zeros(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(rms_norm(x).sum(), x)
    assert bool((rms_norm(x) == 0).all())
    assert bool(torch.isfinite(gradient).all())


def test_rms_norm_gradient_equals_finite_differences():
    assert torch.autograd.gradcheck(rms_norm, (randn(4, 5).requires_grad_(),))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_torchs_multi_head_attention(heads):
    torch.manual_seed(0)
    ours = Attention(8, heads).double()
    theirs = nn.MultiheadAttention(8, heads, bias=False, batch_first=True).double()
    theirs.in_proj_weight.data = ours.enter.weight.data
    theirs.out_proj.weight.data = ours.leave.weight.data
    x = randn(3, 5, 8)
    torch.testing.assert_close(
        ours(x), theirs(x, x, x, need_weights=False)[0], rtol=1e-12, atol=1e-12
    )


def test_attention_refuses_a_width_that_heads_do_not_divide():
    with pytest.raises(ValueError, match="width=10, heads=4; nearest valid width is 8"):
        Attention(10, 4)


def test_swiglu_equals_its_formula():
    torch.manual_seed(0)
    layer, x = SwiGLU(4, 3).double(), randn(6, 4)
    enter, leave = layer.enter.weight, layer.leave.weight
    gate, value = x @ enter[:3].T, x @ enter[3:].T
    expected = (gate * torch.sigmoid(gate) * value) @ leave.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_pre_norm_block_adds_each_sublayer_of_the_normalised_input():
    torch.manual_seed(0)
    block, x = Block(6, Attention(6, 2), 5, norm="pre").double(), randn(2, 3, 6)
    assert block.mix is not None
    expected = x + block.mix(F.rms_norm(x, (6,), eps=1e-6))
    expected = expected + block.transform(F.rms_norm(expected, (6,), eps=1e-6))
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_block_without_mixing_transforms_each_token_by_itself():
    torch.manual_seed(0)
    block, x = Block(6, None, 5, norm="post").double(), randn(2, 3, 6)
    alone = torch.cat([block(x[:, i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(block(x), alone, rtol=1e-12, atol=1e-12)
