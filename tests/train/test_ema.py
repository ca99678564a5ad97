"""The moving average against the recurrence written out in float64."""

import pytest
import torch
from torch import nn

from loopwm.train.ema import Average


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_follows_its_recurrence(decay: float):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(300, 2, 3, generator=generator, dtype=torch.float64)
    parameter = nn.Parameter(values[0].clone())
    average = Average([parameter], decay)
    expected = values[0].clone()
    for n, value in enumerate(values[1:]):
        with torch.no_grad():
            parameter.copy_(value)
        average.update(n)
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * value
    # 300 roundings of float64, each of a relative 1e-16.
    torch.testing.assert_close(average.tensors[0], expected, rtol=1e-12, atol=1e-13)


def test_the_weights_come_back_bit_for_bit_after_the_average_was_applied():
    parameters = [nn.Parameter(torch.randn(4, generator=torch.Generator().manual_seed(1)))]
    average = Average(parameters, 0.9)
    with torch.no_grad():
        parameters[0].mul_(3)
    raw = parameters[0].detach().clone()
    with average.applied():
        assert torch.equal(parameters[0], average.tensors[0])
        assert not torch.equal(parameters[0], raw)
    assert torch.equal(parameters[0], raw)


def test_the_weights_come_back_after_an_error():
    parameter = nn.Parameter(torch.ones(2))
    average = Average([parameter], 0.9)
    with torch.no_grad():
        parameter.fill_(5)
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert torch.equal(parameter, torch.full((2,), 5.0))
