"""The loss of a step against its definition, and its slope where formulas break."""

import math

import pytest
import torch

from loopwm.reason.loss import IGNORED, stablemax_cross_entropy, step_loss


def test_stablemax_equals_its_definition(equations):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(20, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (20,), generator=generator)
    expected = [-torch.log(equations.stablemax(x)[y]) for x, y in zip(logits, labels, strict=True)]
    torch.testing.assert_close(
        stablemax_cross_entropy(logits, labels), torch.stack(expected), rtol=1e-12, atol=1e-13
    )


def test_single_precision_is_enough_at_any_size():
    logits = torch.tensor([[1e30, -1e30, 0.0, 3.0]])
    for label in range(4):
        once = stablemax_cross_entropy(logits, torch.tensor([label]))
        twice = stablemax_cross_entropy(logits.double(), torch.tensor([label]))
        torch.testing.assert_close(once.double(), twice, rtol=1e-6, atol=1e-6)


def test_the_slope_at_zero_is_that_on_both_sides():
    def slope(x: float) -> float:
        logits = torch.tensor([[x, 0.7]], dtype=torch.float64, requires_grad=True)
        loss = stablemax_cross_entropy(logits, torch.tensor([0])).sum()
        return float(torch.autograd.grad(loss, logits)[0][0, 0])

    assert slope(0.0) == pytest.approx(slope(1e-9), rel=1e-6)
    assert slope(0.0) == pytest.approx(slope(-1e-9), rel=1e-6)


def test_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, IGNORED, 4, 2])
    assert torch.autograd.gradcheck(lambda x: stablemax_cross_entropy(x, labels), (logits,))


def test_tokens_that_are_not_asked_for_count_nothing():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [2.0, 0.0]]])
    loss = step_loss(logits, torch.tensor([1.0, 1.0]), torch.tensor([[0, IGNORED], [0, 1]]))
    assert loss.right.tolist() == [True, False]
    assert loss.accuracy.tolist() == [1.0, 0.5]
    one = -math.log(3 / 4)
    assert loss.answer.tolist() == pytest.approx([one, (one - math.log(1 / 4)) / 2])
    said = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))]
    assert loss.verdict.tolist() == pytest.approx(said)
    assert float(loss.total) == pytest.approx(sum(loss.answer.tolist()) / 2 + 0.5 * sum(said) / 2)


def test_a_row_without_labels_costs_no_answer():
    loss = step_loss(torch.randn(1, 3, 4), torch.zeros(1), torch.full((1, 3), IGNORED))
    assert loss.answer.tolist() == [0.0]
    assert loss.accuracy.tolist() == [0.0]
    assert math.isfinite(float(loss.total))
