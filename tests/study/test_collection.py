"""The table of collection names every task of the fast path and both comparisons."""

import pytest

from loopwm.data.fast import FAST_TASKS
from loopwm.study import collection
from loopwm.study.collection import collection_sheet


def test_every_fast_task_is_compared_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = collection_sheet(tasks=("InvertedPendulum-v5",), steps=200)
    (row,) = sheet.rows
    assert {column.key for column in sheet.columns} == row.keys()
    assert all(value > 0 for name, value in row.items() if name != "task")
    speed = dict.fromkeys(("collect", "sync_vector_env", "sync_bare", "ratio", "ratio_bare"), 2.0)
    monkeypatch.setattr(collection, "collection_speed", lambda task, steps: speed)
    lines: list[str] = []
    assert [each["task"] for each in collection_sheet(lines.append).rows] == list(FAST_TASKS)
    assert len(lines) == len(FAST_TASKS)
