"""Muon against a singular value decomposition, and against torch's own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from loopwm.train.muon import Muon, orthogonal

SHAPES = [(3, 3), (5, 2), (2, 5), (1, 4), (1, 1)]


def quintic(values: torch.Tensor) -> torch.Tensor:
    """Return what five steps make of singular values."""
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return values


def draw(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@settings(deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 7), st.integers(1, 7), st.integers(0, 99), st.integers(-6, 6)
)
def test_orthogonal_keeps_the_singular_vectors_and_maps_the_values(count, rows, cols, seed, power):
    matrices = draw(seed, count, rows, cols) * 10.0**power
    u, values, v = torch.linalg.svd(matrices, full_matrices=False)
    values = quintic(values / values.square().sum(-1, keepdim=True).sqrt())
    expected = u @ torch.diag_embed(values) @ v
    torch.testing.assert_close(orthogonal(matrices), expected, rtol=1e-9, atol=1e-9)


def test_singular_values_end_about_one():
    values = torch.linalg.svdvals(orthogonal(draw(0, 8, 64, 128).float()))
    assert 0.65 < float(values.min()) < float(values.max()) < 1.25


def test_nothing_stays_nothing():
    assert torch.equal(orthogonal(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_steps_equal_muon_written_out():
    lr, momentum, decay = 0.1, 0.9, 0.2
    weights = [nn.Parameter(draw(n, *shape)) for n, shape in enumerate(SHAPES * 2)]
    optimizer = Muon(weights, lr, momentum, decay)
    expected = [w.detach().clone() for w in weights]
    moments = [torch.zeros_like(w) for w in expected]
    for update in range(5):
        for n, weight in enumerate(weights):
            # The third one has no gradient, hence no step.
            gradient = None if n == 2 else draw(100 * update + n, *weight.shape)
            weight.grad = gradient
            if gradient is None:
                continue
            moments[n] = momentum * moments[n] + (1 - momentum) * gradient
            ahead = momentum * moments[n] + (1 - momentum) * gradient
            u, values, v = torch.linalg.svd(ahead, full_matrices=False)
            turned = u @ torch.diag(quintic(values / ahead.norm())) @ v
            size = 0.2 * math.sqrt(max(weight.shape))
            expected[n] = expected[n] * (1 - lr * decay) - lr * size * turned
        optimizer.step()
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(64, 64), (128, 32), (32, 128)])
def test_torch_takes_the_same_steps_but_for_rounding(shape):
    ours, theirs = (nn.Parameter(draw(0, *shape).float()) for _ in range(2))
    start = ours.detach().clone()
    optimizers = (
        Muon([ours], 0.01, 0.95, 0.1),
        torch.optim.Muon([theirs], 0.01, 0.1, 0.95, adjust_lr_fn="match_rms_adamw"),
    )
    for update in range(20):
        ours.grad, theirs.grad = (draw(update + 1, *shape).float() for _ in range(2))
        for optimizer in optimizers:
            optimizer.step()
    # bfloat16 has eight bits.
    way = float((ours.detach() - start).norm())
    assert float((ours.detach() - theirs.detach()).norm()) < 0.01 * way


def test_a_state_of_torchs_optimizer_can_be_taken_over():
    weight, other = nn.Parameter(draw(0, 3, 4)), nn.Parameter(draw(0, 3, 4))
    theirs = torch.optim.Muon([other], 0.01)
    other.grad = draw(1, 3, 4)
    theirs.step()
    ours = Muon([weight])
    ours.load_state_dict({**ours.state_dict(), "state": theirs.state_dict()["state"]})
    torch.testing.assert_close(ours.state[weight]["momentum_buffer"], 0.05 * draw(1, 3, 4))


def test_step_returns_the_loss_of_a_closure():
    weight = nn.Parameter(draw(0, 2, 2))
    before = weight.detach().clone()

    def closure() -> float:
        weight.grad = None
        loss = weight.square().sum()
        loss.backward()
        return float(loss.detach())

    assert Muon([weight]).step(closure) == pytest.approx(float(before.square().sum()))
    assert not torch.equal(weight.detach(), before)
