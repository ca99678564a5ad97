"""`loopwm train --with LESSON` says what its updates take before it takes its time."""

from dataclasses import replace
from typing import NoReturn

import pytest

from loopwm.cli.pair import puzzles_of
from loopwm.reason.lessons import LESSONS


class Made(Exception):
    """Say that the puzzles would be made now."""


def make() -> NoReturn:
    raise Made


@pytest.mark.parametrize(
    ("name", "width", "slots", "expected"),
    [
        (
            "arc",
            None,
            None,
            "arc: each update takes 768 puzzles of 900 tokens, width 512, whatever --batch-size is;"
            " fewer with --slots, smaller ones with --with arc-12\n",
        ),
        (
            "arc",
            256,
            2,
            "arc: each update takes 2 puzzles of 900 tokens, width 256, whatever --batch-size is;"
            " fewer with --slots, smaller ones with --with arc-12\n",
        ),
        (
            "sudoku-4x4",
            None,
            None,
            "sudoku-4x4: each update takes 128 puzzles of 16 tokens, width 64, whatever"
            " --batch-size is; fewer with --slots\n",
        ),
        ("sudoku-hard", None, None, "smaller ones with --with sudoku-4x4\n"),
    ],
)
def test_the_load_of_an_update_is_said_before_puzzles_are_made(
    monkeypatch, capsys, name: str, width: int | None, slots: int | None, expected: str
):
    monkeypatch.setitem(LESSONS, name, replace(LESSONS[name], make=make))
    with pytest.raises(Made):
        puzzles_of(name, width, slots, 1.0)
    said = capsys.readouterr().out
    assert said.endswith(expected)
    assert said.count("\n") == 1


def test_the_slots_that_are_said_are_those_that_are_trained(capsys):
    for slots in (None, 3):
        puzzles = puzzles_of("sudoku-4x4", None, slots, 1.0)
        assert f"takes {puzzles.slots} puzzles of 16 tokens" in capsys.readouterr().out
        assert puzzles.slots == (slots or LESSONS["sudoku-4x4"].training.batch_size)
