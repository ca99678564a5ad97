"""Gradients of steep rows are shortened to a multiple of the median, and no others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import loopwm as lw
from loopwm.data.replay import Windows
from loopwm.errors import ConfigError
from loopwm.world.backflow import limited
from loopwm.world.objective import sequence_loss


@given(
    norms=st.lists(st.just(0.0) | st.floats(1e-6, 1e6), min_size=1, max_size=9).map(
        lambda row: [row, row[::-1]]
    ),
    limit=st.floats(0.1, 100),
    shape=st.sampled_from([(3,), (2, 3)]),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_shortened_to_the_limit_of_their_own_member(
    norms: list[list[float]], limit: float, shape: tuple[int, ...]
) -> None:
    norms[1] = [7 * each for each in norms[1]]
    rows = torch.tensor(norms, dtype=torch.float64).reshape(-1)
    way = torch.randn(len(rows), *shape, generator=torch.Generator().manual_seed(0)).double()
    way = way / way.flatten(1).norm(dim=1).reshape(-1, *[1] * len(shape))
    values = torch.zeros_like(way).requires_grad_()
    (passed,) = limited((values,), limit, members=2)
    assert torch.equal(passed, values)
    sent = rows.reshape(-1, *[1] * len(shape)) * way
    (found,) = torch.autograd.grad(passed, values, sent)
    for member, own in enumerate(norms):
        # numpy's median of an even number lies between two rows, torch's is the lower of them.
        middle = np.sort(own)[(len(own) - 1) // 2]
        most = limit * middle if middle > 0 else np.inf
        for row, norm in enumerate(own):
            expected = way[member * len(own) + row] * min(norm, most)
            torch.testing.assert_close(found[member * len(own) + row], expected)


def test_without_a_limit_or_a_gradient_nothing_is_done() -> None:
    plain, trained = torch.ones(3, 2), torch.ones(3, 2, requires_grad=True)
    empty = torch.ones(3, 0, 2, requires_grad=True)
    assert limited((plain, trained), 0.0)[1] is trained
    state = limited((plain, trained, empty), 1.0)
    assert state[0] is plain
    assert state[2] is empty
    assert state[1] is not trained


def shortened(gradient: torch.Tensor, limit: float, members: int) -> torch.Tensor:
    """Shorten row by row, by numpy."""
    rows = gradient.numpy().reshape(members, len(gradient) // members, -1).copy()
    for member in rows:
        norms = np.array([np.linalg.norm(row) for row in member])
        most = limit * np.sort(norms)[(len(norms) - 1) // 2]
        for row, norm in zip(member, norms, strict=True):
            row *= most / norm if most > 0 and norm > most else 1
    return torch.from_numpy(rows.reshape(gradient.shape))


def slowly(state: Any, limit: float, members: int = 1) -> Any:
    """Do by hooks what `limited` does."""
    parts = [part.view_as(part) for part in state]
    for part in parts:
        if limit and part.requires_grad and part.numel():
            part.register_hook(lambda gradient: shortened(gradient, limit, members))
    return tuple(parts)


@pytest.mark.parametrize("config", [lw.WorldConfig(width=8), lw.MLP(width=8, depth=2), lw.GRU()])
def test_the_loss_limits_what_goes_back_from_step_to_step(
    config: Any, make: Any, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Windows(data, 4).at(torch.tensor([0, 3, 26, 27, 28, 29, 59, 100]))
    batch = replace(batch, obs=batch.obs.double(), action=batch.action.double())
    found = {}
    for limit in (0.0, 0.5):
        objective = replace(config.objective, row_clip=limit)
        model = make(replace(config, objective=objective), data, 0).train().requires_grad_()
        for name, function in (("ours", limited), ("slow", slowly)):
            monkeypatch.setattr("loopwm.world.objective.limited", function)
            loss, _ = sequence_loss(model, batch, torch.Generator().manual_seed(0))
            own = torch.autograd.grad(loss, list(model.parameters()))
            found[limit, name] = torch.cat([each.flatten() for each in own])
    torch.testing.assert_close(found[0.5, "ours"], found[0.5, "slow"])
    torch.testing.assert_close(found[0.0, "ours"], found[0.0, "slow"])
    assert (found[0.5, "ours"] - found[0.0, "ours"]).norm() > 1e-3 * found[0.0, "ours"].norm()


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Objective\.row_clip must not be negative"):
        lw.Objective(row_clip=-1.0)
