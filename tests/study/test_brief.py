"""The table for narrow terminals."""

from io import StringIO

import pytest
from rich.console import Console

from loopwm.study.brief import brief_table
from loopwm.study.prediction import evaluate
from loopwm.study.table import compare_table


@pytest.mark.parametrize("unit", ["obs", "change"])
def test_models_and_references_fit_eighty_columns_whole(world, unit: str):
    report = evaluate(world.model(0.01), world.test, (1, 5, 20), train=world.train)
    name = "the same cell, not looped (T=1), 34,893 parameters"
    screen = Console(file=StringIO(), width=80)
    screen.print(brief_table({"looped": report, name: report}, unit))
    lines = screen.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    rmse = report.rmse if unit == "obs" else report.rmse_change
    row = next(line for line in lines if line.startswith(name))
    assert [float(word) for word in row.removeprefix(name).split()] == pytest.approx(
        [rmse[k] for k in (1, 5, 20)], rel=0.01
    )
    assert any(line.startswith("copy last") for line in lines)
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("table", [brief_table, compare_table])
def test_names_in_square_brackets_are_shown(world, table):
    report = evaluate(world.model(0.01), world.test, (1,), train=world.train)
    screen = StringIO()
    Console(file=screen, width=120).print(table({"[bold]": report, "mine [v2]": report}))
    assert "[bold]" in screen.getvalue()
    assert "mine [v2]" in screen.getvalue()
