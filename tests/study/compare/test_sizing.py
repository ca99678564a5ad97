"""What a model of a comparison costs: every arm's can be counted, as training has it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import loopwm as lw
from loopwm.data.normalise import Statistics
from loopwm.study.compare.sizing import training_flops
from loopwm.study.compare.terms import FAMILIES
from loopwm.study.efficiency import flops_per_step
from loopwm.world.build import build
from tests.study.compare.small import TERMS, linear_world
from tests.study.compare.test_compare import Mine

TRAIN = linear_world(0)


class Constrained(Mine):
    """Predict the change by one layer whose spectral norm is held to one."""

    def __init__(self) -> None:
        super().__init__(TRAIN, 1)
        layer = nn.Linear(TRAIN.obs_dim + TRAIN.action_dim, TRAIN.obs_dim)
        self.layers = nn.utils.parametrizations.spectral_norm(layer)


def test_training_flops_of_an_mlp_are_those_of_its_matrices():
    d, obs, act = 8, 2, 1
    model = build(lw.MLP(width=d, depth=2), TRAIN.meta, Statistics.of(TRAIN), 0)
    x = obs + act + 1
    reward, ending = d * 32 + 32, obs * 32 + 32 * 32 + 32
    forward = 2 * (x * d + d * d + d * obs + reward + ending)
    # Forward, gradient of the weights, gradient of the inputs: the first step's observation needs
    # none, and only later ones lead back through it.
    fit = lw.FitConfig(
        updates=10, batch_size=4, horizon=1, horizon_warmup=0.0, optimizer=lw.AdamW()
    )
    counted = training_flops(model, TRAIN, replace(TERMS, fit=fit))
    backward = 2 * forward - 2 * x * d
    assert counted == 10 * 4 * (forward + backward)
    # Muon brings the momentum of each hidden matrix, [n, m] with n <= m, near an orthogonal one by
    # five steps of X X', its square, and a product with X; input and heads stay with AdamW.
    by_muon = training_flops(model, TRAIN, replace(TERMS, fit=replace(fit, optimizer=lw.Muon())))
    assert by_muon - counted == 10 * 5 * 2 * (d * d * d + d * d * d + d * d * d)


def test_training_flops_follow_the_curriculum_of_the_horizon():
    model = build(lw.MLP(width=8, depth=2), TRAIN.meta, Statistics.of(TRAIN), 0)

    def flops(**options: Any) -> float:
        fit = lw.FitConfig(**{"updates": 8, "batch_size": 4, "horizon_warmup": 0.0} | options)
        return training_flops(model, TRAIN, replace(TERMS, fit=fit))

    one, two = flops(horizon=1), flops(horizon=2)
    rising = flops(horizon=2, horizon_warmup=0.5)
    assert rising == pytest.approx((one + two) / 2)


@pytest.mark.parametrize(
    "shape",
    [
        *(pytest.param(family.shapes[0], id=name) for name, family in FAMILIES.items()),
        pytest.param(lw.WorldConfig(cell=lw.Contractive(gated=True)), id="contractive-gated"),
    ],
)
def test_what_every_arm_costs_to_train_can_be_counted(shape: Any):
    model = build(replace(shape, width=8), TRAIN.meta, Statistics.of(TRAIN), 0)
    model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit = lw.FitConfig(updates=1, batch_size=4, horizon=1)
    forward = flops_per_step(model, TRAIN.obs[:8], TRAIN.action[:8])
    assert training_flops(model, TRAIN, replace(TERMS, fit=fit)) > 4 * forward
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(each.grad is None and not each.requires_grad for each in model.parameters())


def test_so_can_a_module_whose_weights_are_constrained():
    model, fit = Constrained(), lw.FitConfig(updates=1, batch_size=4, horizon=1)
    assert training_flops(model, TRAIN, replace(TERMS, fit=fit)) > 0
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    training_flops(model, TRAIN, replace(TERMS, fit=fit))
    assert all(bool((each.grad == 1).all()) for each in model.parameters() if each.grad is not None)
    assert all(each.grad is not None for each in model.parameters())
