"""The gate judges each row by the change that it predicts, and by nothing else."""

import math

import numpy as np
import pytest
import torch

from loopwm.core.gate import Gate, features
from loopwm.core.halt import StopRule
from loopwm.errors import ConfigError


def signals(rows: int = 6, outputs: int = 2, width: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (rows, outputs + width)
    now, before = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    return now, before


def test_features_are_those_of_a_plain_loop() -> None:
    now, before = signals()
    for row, seen in enumerate(features(now, before, 2).numpy()):
        y, h = now[row, :2].numpy(), now[row, 2:].numpy()
        moved = math.sqrt(np.mean((y - before[row, :2].numpy()) ** 2))
        shifted = np.linalg.norm(h - before[row, 2:].numpy()) / np.linalg.norm(h)
        size = math.sqrt(np.mean(h**2) + 1e-6)
        expected = [1.0, math.log(moved), math.log(shifted), *(h / size)]
        np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_a_row_leaves_where_the_predicted_change_is_below_the_tolerance() -> None:
    now, before = signals()
    # A weight on the logarithm of the last change alone: the gate is then OutputDelta.
    gate = Gate(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0]), 2, tol=1.0)
    change = (now - before)[:, :2].square().mean(1).sqrt()
    assert gate.met(now, before).tolist() == (change < 1.0).tolist()
    assert 0 < int(gate.met(now, before).sum()) < len(now)
    alone = [bool(gate.met(now[i : i + 1], before[i : i + 1])) for i in range(len(now))]
    assert alone == gate.met(now, before).tolist()


def test_a_row_that_does_not_move_at_all_has_finite_features() -> None:
    now, _ = signals()
    assert torch.isfinite(features(now, now, 2)).all()
    assert torch.isfinite(features(0 * now, 0 * now, 2)).all()


def test_the_signal_is_the_decoded_prediction_beside_the_state() -> None:
    gate = Gate(torch.zeros(6), 2)
    assert isinstance(gate, StopRule)
    h = torch.randn(4, 1, 3)
    signal = gate.signal(h, lambda state: state[:, 0, :2] * 2)
    torch.testing.assert_close(signal, torch.cat([2 * h[:, 0, :2], h[:, 0]], dim=1))
    with pytest.raises(ConfigError, match="readout"):
        gate.signal(h, None)


@pytest.mark.parametrize(("name", "value"), [("tol", 0.0), ("tol", -1.0), ("patience", 0)])
def test_settings_out_of_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"Gate\.{name} must be .*{value:g}"):
        Gate(torch.zeros(6), 2, **{name: value})  # type: ignore[arg-type]  # float for int: refused
