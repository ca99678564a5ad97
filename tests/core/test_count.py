"""Parameters and floating-point operations equal closed forms."""

import pytest
import torch
from torch import nn

from loopwm.core.cell import BoundedCell
from loopwm.core.config import Bounded
from loopwm.core.count import matmul_flops, parameters
from loopwm.core.loop import LoopedCore


@pytest.mark.parametrize(("width", "expand"), [(8, 1.0), (8, 2.0), (10, 0.5)])
def test_bounded_cell_has_the_parameters_of_its_equations(width, expand):
    d, m = width, round(expand * width)
    # retention; gates from h; gates from e with bias; injection; leaving the hidden layer
    expected = d + 2 * m * d + (2 * m * d + 2 * m) + d * d + d * m
    assert parameters(BoundedCell(width, Bounded(expand=expand))) == expected


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 3)
    assert parameters(nn.Sequential(layer, layer)) == 12


@pytest.mark.parametrize("training", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("depth", [1, 5])
def test_loop_flops_are_one_conditioning_and_depth_refinements(training, depth):
    rows, d = 7, 8
    core = LoopedCore(BoundedCell(d, Bounded())).train(training)
    h = torch.zeros(rows, 1, d)
    conditioning = 2 * rows * (d * d + d * 2 * d)
    refinement = 2 * rows * (d * 2 * d + d * d)
    assert matmul_flops(lambda: core((h,), h, depth)) == conditioning + depth * refinement


def test_flops_of_rows_with_their_own_depths_are_those_of_what_is_run():
    d, depths = 8, [1, 4, 2]
    core = LoopedCore(BoundedCell(d, Bounded())).eval()
    h = torch.zeros(3, 1, d)
    each = 2 * 3 * d * d
    run = matmul_flops(lambda: core((h,), h, torch.tensor(depths)))
    assert run == each * (len(depths) + sum(depths))
