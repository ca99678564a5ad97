"""The tables of gradient modes say what the allocator, and the settled loop, say."""

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import loopwm as lw
from loopwm.study import gradients
from loopwm.study.gradients import direction_sheet, kept_bytes, memory_sheet, time_sheet, update
from loopwm.world.model import WorldModel

FLAT = ("Phantom(4)", "Implicit()")


@pytest.fixture(scope="module")
def settling(untrained: Any) -> WorldModel:
    """Give a model whose loop is at rest after twelve iterations."""
    contractive = lw.Contractive(rate=0.5)
    return untrained(lw.WorldConfig(width=16, cell=contractive, depth=lw.depth.Fixed(12)))


def peak_bytes(model: WorldModel, batch: Any) -> int:
    """Ask the allocator: the most bytes held at once, above those held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        update(model, batch)
    results: Any = found.profiler
    events = [each for each in results.kineto_results.events() if each.name() == "[memory]"]
    held = torch.tensor([each.nbytes() for each in sorted(events, key=lambda e: e.start_ns())])
    return int(held.cumsum(0).max())


@pytest.fixture(autouse=True)
def few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "WINDOWS", 32)


@pytest.mark.parametrize("name", ["Full", "LastK(4)", "Phantom(4)", "Implicit()"])
def test_what_is_kept_is_what_the_allocator_held_at_most(settling: WorldModel, world: Any, name):
    batch = gradients.training_batch(world.test, 96)
    model = gradients._in_mode(settling, gradients.MODES[name], 16)
    update(model, batch)  # What is made once, such as the gradients, is there from now on.
    assert kept_bytes(model, batch) == pytest.approx(peak_bytes(model, batch), rel=0.1)


def test_memory_is_flat_where_the_mode_says_so_and_linear_under_full(
    settling: WorldModel, world: Any
):
    rows = {row["mode"]: row for row in memory_sheet(settling, world.test, (4, 8, 64)).rows}
    for name in FLAT:
        # But for a few indices of rows.
        assert rows[name]["at_4"] == pytest.approx(rows[name]["at_64"], rel=2e-3)
    each = (rows["Full"]["at_8"] - rows["Full"]["at_4"]) / 4
    assert rows["Full"]["at_64"] - rows["Full"]["at_8"] == pytest.approx(56 * each, rel=2e-3)
    # Of each iteration, checkpointing keeps its input alone; LastK keeps four whole ones.
    assert rows["Checkpointed"]["at_64"] < 0.3 * rows["Full"]["at_64"]
    assert rows["LastK(4)"]["at_64"] < 1.1 * rows["Full"]["at_4"]


def test_gradients_at_rest_are_those_of_the_settled_loop_and_truncated_ones_are_not(
    settling: WorldModel, world: Any
):
    rows = {row["mode"]: row for row in direction_sheet([settling], world.test).rows}
    assert rows["Full"]["error"][0] < 0.01
    assert rows["Checkpointed"]["error"] == rows["Full"]["error"]
    assert rows["Implicit()"]["error"][0] < 0.01
    # Four further iterations see the adjoint up to the rate to the fourth power.
    assert rows["Implicit()"]["error"][0] < rows["Phantom(4)"]["error"][0] < 0.5**4
    assert all(row["cosine"][0] <= 1 + 1e-6 for row in rows.values())


def test_every_mode_is_timed_at_every_depth(
    settling: WorldModel, world: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gradients, "ROUNDS", 2)
    sheet = time_sheet(settling, world.test, (2, 12))
    assert [row["mode"] for row in sheet.rows] == list(gradients.MODES)
    full = sheet.rows[0]
    assert 0 < full["at_2"][0] < full["at_12"][0]
    assert full["at_12"][1] <= full["at_12"][0] <= full["at_12"][2]
