"""Which parameter gets which treatment, and steps that refuse to be taken."""

import math

import pytest
import torch
from torch import nn

from loopwm.errors import ConfigError
from loopwm.train.config import AdamW, FitConfig, Muon
from loopwm.train.optim import Abreast, Stepper, build_optimizers


class Net(nn.Module):
    """One parameter of each kind."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.bias = nn.Parameter(torch.randn(4, generator=generator))
        self.stack = nn.Parameter(torch.randn(2, 4, 3, generator=generator))
        self.embedding = nn.Parameter(torch.randn(5, 3, generator=generator))
        self.embedding._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.head = nn.Parameter(torch.randn(3, 2, generator=generator))
        self.head._no_muon = True  # pyright: ignore[reportAttributeAccessIssue]
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def treatment(net: Net, config: FitConfig) -> dict[str, tuple[str, float]]:
    """Return optimiser and weight decay of each parameter, and check that each has one."""
    names = {id(p): name for name, p in net.named_parameters()}
    found: dict[str, tuple[str, float]] = {}
    for optimizer in build_optimizers([p for p in net.parameters() if p.requires_grad], config):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert names[id(parameter)] not in found
                entry = (type(optimizer).__name__, group["weight_decay"])
                found[names[id(parameter)]] = entry
    return found


def test_adamw_decays_matrices_only_and_obeys_the_flag():
    assert treatment(Net(), FitConfig(weight_decay=0.1, optimizer=AdamW())) == {
        "matrix": ("AdamW", 0.1),
        "bias": ("AdamW", 0.0),
        "stack": ("AdamW", 0.1),
        "embedding": ("AdamW", 0.0),
        "head": ("AdamW", 0.1),
    }


def test_muon_takes_matrices_only_and_obeys_both_flags():
    assert treatment(Net(), FitConfig(weight_decay=0.1, optimizer=Muon())) == {
        "matrix": ("Muon", 0.1),
        "bias": ("AdamW", 0.0),
        "stack": ("AdamW", 0.1),
        "embedding": ("Muon", 0.0),
        "head": ("AdamW", 0.1),
    }


def test_decay_shrinks_a_matrix_whose_gradient_is_zero_and_leaves_a_bias_alone():
    layer = nn.Linear(3, 2)
    before = [p.detach().clone() for p in layer.parameters()]
    stepper = Stepper(layer, FitConfig(weight_decay=0.5))
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepper.step(torch.zeros(()), lr=0.1)
    torch.testing.assert_close(layer.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, before[1])


def test_steps_equal_adamw_written_out():
    beta1, beta2, eps, decay, clip = 0.8, 0.95, 1e-3, 0.1, 0.7
    net = nn.Linear(2, 2, bias=False).double()
    config = FitConfig(optimizer=AdamW((beta1, beta2), eps), weight_decay=decay, clip=clip)
    stepper = Stepper(net, config)
    weight = net.weight.detach().clone()
    m, v = torch.zeros_like(weight), torch.zeros_like(weight)
    generator = torch.Generator().manual_seed(0)
    for n in range(1, 30):
        gradient = torch.randn(2, 2, generator=generator, dtype=torch.float64)
        lr = 0.1 / n
        net.weight.grad = gradient.clone()
        _, norm, finite = stepper.step(torch.zeros(()), lr)
        assert finite
        assert norm == pytest.approx(float(gradient.square().sum().sqrt()), rel=1e-6)
        gradient *= min(1.0, clip / float(gradient.square().sum().sqrt()))
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        direction = (m / (1 - beta1**n)) / ((v / (1 - beta2**n)).sqrt() + eps)
        weight = weight * (1 - lr * decay) - lr * direction
    # torch adds 1e-6 to the norm that it divides by.
    torch.testing.assert_close(net.weight.detach(), weight, rtol=1e-5, atol=1e-6)


def test_without_clipping_the_gradient_counts_in_full():
    net = nn.Linear(1, 1, bias=False)
    config = FitConfig(clip=None, optimizer=Muon(), weight_decay=0.0)
    for gradient, expected in ((2.0, 2.0), (500.0, 500.0)):
        net.weight.grad = torch.full((1, 1), gradient)
        stepper = Stepper(net, config)
        _, norm, _ = stepper.step(torch.zeros(()), 0.0)
        momentum = stepper.tensors()["0.0.momentum_buffer"]
        assert norm == gradient
        assert float(momentum) == pytest.approx(expected * 0.05)


@pytest.mark.parametrize("optimizer", [AdamW(), Muon()])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(optimizer: AdamW | Muon, bad: float, where: str):
    net = nn.Linear(3, 2)
    stepper = Stepper(net, FitConfig(optimizer=optimizer))

    def fill() -> None:
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)

    fill()
    stepper.step(torch.ones(()), 0.1)
    weights = [p.detach().clone() for p in net.parameters()]
    state = {k: t.clone() for k, t in stepper.tensors().items()}
    fill()
    loss = torch.tensor(bad if where == "loss" else 1.0)
    if where == "gradient" and net.bias.grad is not None:
        net.bias.grad[0] = bad
    assert stepper.step(loss, 0.1)[2] is False
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    assert state.keys() == stepper.tensors().keys()
    assert all(torch.equal(t, stepper.tensors()[k]) for k, t in state.items())
    assert all(p.grad is None for p in net.parameters())


def test_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match="requires_grad=True"):
        Stepper(nn.Linear(2, 2).requires_grad_(False), FitConfig())
    with pytest.raises(ConfigError, match="depends on no parameter"):
        Stepper(nn.Linear(2, 2), FitConfig()).step(torch.ones(()), 0.1)


def test_of_modules_abreast_each_is_clipped_by_its_own_norm_and_one_nan_stops_all():
    modules = [nn.Linear(2, 1, bias=False) for _ in range(2)]
    pair = Abreast(modules)
    config = FitConfig(optimizer=AdamW(eps=1e3), clip=1.0, weight_decay=0.0)
    stepper, x = Stepper(pair, config), torch.tensor([[3.0, 4.0]])
    before = [module.weight.detach().clone() for module in modules]
    loss = modules[0](x).sum() + 0.1 * modules[1](x).sum()
    loss.backward()
    value, norm, finite = stepper.step(loss, 1.0)
    assert finite
    assert value == pytest.approx(loss.item() / 2)
    assert norm == pytest.approx((5.0 + 0.5) / 2)
    # With so large an eps, Adam's first step is the gradient over eps.
    for module, start, gradient in zip(modules, before, ([0.6, 0.8], [0.3, 0.4]), strict=True):
        moved = (start - module.weight.detach()) * 1e3
        torch.testing.assert_close(moved, torch.tensor([gradient]), rtol=1e-3, atol=1e-4)
    before = [module.weight.detach().clone() for module in modules]
    loss = modules[0](x).sum() + modules[1](x * torch.nan).sum()
    loss.backward()
    assert not stepper.step(loss, 1.0)[2]
    assert all(torch.equal(a, m.weight) for a, m in zip(before, modules, strict=True))
