"""AdamATan2 and the sign of touched rows, against their formulas one number at a time."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from loopwm.errors import ConfigError
from loopwm.train.atan2 import AdamATan2
from loopwm.train.config import AdamATan2 as Choice
from loopwm.train.config import AdamW, FitConfig, Muon, SignSGD
from loopwm.train.optim import Stepper
from loopwm.train.rows import SignSGDRows


def test_atan2_steps_equal_the_formula():
    beta1, beta2, lr, decay = 0.9, 0.95, 0.1, 0.5
    weight = nn.Parameter(torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64))
    optimizer = AdamATan2([weight], lr, (beta1, beta2), decay)
    gradients = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # A number whose gradient is always 0 only decays.
    gradients[:, 2] = 0
    values, m, v = weight.tolist(), [0.0] * 3, [0.0] * 3
    for n, gradient in enumerate(gradients, start=1):
        weight.grad = gradient.clone()
        optimizer.step()
        for i, g in enumerate(gradient.tolist()):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            angle = math.atan2(m[i] / (1 - beta1**n), math.sqrt(v[i] / (1 - beta2**n)))
            values[i] = values[i] * (1 - lr * decay) - lr * angle
    assert weight.tolist() == pytest.approx(values, rel=1e-12)
    assert values[2] == pytest.approx((1 - lr * decay) ** 5)


def test_steps_do_not_depend_on_the_size_of_the_loss():
    ends = []
    for scale in (1e-20, 1.0, 1e12):
        weight = nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))
        optimizer = AdamATan2([weight], 0.1, weight_decay=0.0)
        for factor in (1.0, -0.5, 2.0):
            weight.grad = scale * factor * torch.tensor([1.0, 3.0], dtype=torch.float64)
            optimizer.step()
        ends.append(weight.tolist())
    assert ends[0] == pytest.approx(ends[1], rel=1e-9)
    assert ends[2] == pytest.approx(ends[1], rel=1e-9)


def test_only_touched_rows_move_by_the_sign_of_their_summed_gradient():
    table = nn.Parameter(torch.arange(8.0).view(4, 2))
    # Row 2 twice: its gradients 5 and -3 sum to 2, and its second numbers to 0.
    picked = F.embedding(torch.tensor([2, 0, 2]), table, sparse=True)
    (picked * torch.tensor([[5.0, 1.0], [-4.0, 1e-9], [-3.0, -1.0]])).sum().backward()
    SignSGDRows([table], lr=0.1, weight_decay=0.5).step()
    kept = 1 - 0.1 * 0.5
    expected = [[0 * kept + 0.1, kept - 0.1], [2.0, 3.0], [4 * kept - 0.1, 5 * kept], [6.0, 7.0]]
    torch.testing.assert_close(table.detach(), torch.tensor(expected))


def test_a_table_with_a_dense_gradient_is_refused():
    table = nn.Parameter(torch.zeros(3, 2))
    F.embedding(torch.tensor([1]), table).sum().backward()
    with pytest.raises(ConfigError, match="sparse gradients: embed with sparse=True"):
        SignSGDRows([table]).step()


class Net(nn.Module):
    """A matrix, a bias, and a table."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.table = nn.Parameter(torch.zeros(4, 2))
        self.table._sparse_rows = True  # pyright: ignore[reportAttributeAccessIssue]

    def loss(self) -> torch.Tensor:
        return self.layer(F.embedding(torch.tensor([1, 1]), self.table, sparse=True)).sum()


@pytest.mark.parametrize("choice", [Choice(rows=SignSGD(0.2, 0.0)), AdamW(), Muon()])
def test_a_table_has_its_own_learning_rate_on_the_common_schedule(choice):
    net = Net()
    stepper = Stepper(net, FitConfig(lr=0.1, optimizer=choice))
    loss = net.loss()
    loss.backward()
    assert stepper.step(loss, lr=0.05)[2]
    length = 0.1 if isinstance(choice, Choice) else SignSGD().lr / 2
    assert net.table[[0, 2, 3]].count_nonzero() == 0
    torch.testing.assert_close(net.table[1].detach().abs(), torch.full((2,), length))


def test_atan2_decays_every_dense_parameter():
    net = Net()
    before = net.layer.bias.detach().clone()
    stepper = Stepper(net, FitConfig(lr=0.1, weight_decay=0.5, optimizer=Choice()))
    for parameter in net.layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepper.step(torch.zeros(()), lr=0.1)
    torch.testing.assert_close(net.layer.bias.detach(), before * 0.95)


def test_the_norm_counts_touched_rows_once_and_clipping_leaves_their_step_alone():
    net = Net()
    stepper = Stepper(net, FitConfig(lr=0.1, clip=1e-3, optimizer=Choice(rows=SignSGD(0.1, 0.0))))
    loss = net.loss()
    loss.backward()
    assert net.table.grad is not None
    grads = [net.table.grad.to_dense(), *(p.grad for p in net.layer.parameters())]
    expected = math.sqrt(sum(float(g.square().sum()) for g in grads if g is not None))
    _, norm, _ = stepper.step(loss, lr=0.1)
    assert norm == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(net.table[1].detach().abs(), torch.full((2,), 0.1))


def test_a_gradient_that_is_not_finite_leaves_the_table_alone():
    net = Net()
    stepper = Stepper(net, FitConfig(optimizer=Choice()))
    loss = net.loss() * math.inf
    loss.backward()
    assert not stepper.step(loss, lr=0.1)[2]
    assert not net.table.any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice(betas=(1.0, 0.9)), "betas"),
        (lambda: SignSGD(lr=0.0), "lr=0.0 is out of range"),
        (lambda: SignSGD(weight_decay=-1.0), "weight_decay=-1.0 is out of range"),
    ],
)
def test_settings_out_of_range_are_refused(make, message: str):
    with pytest.raises(ConfigError, match=message):
        make()
