"""How far a run of another process has come, read while it writes."""

from pathlib import Path

import pytest

from loopwm.study.watch import updates_done, watching


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"update": 100, "loss": 1}\n{"update": 200, "loss": 1}\n', 200),
        ('{"update": 100, "loss": 1}\n{"update": 200, "lo', 100),
        ('{"update": 1', 0),
        ("", 0),
        ('{"update": 300, "x": 1}\n' * 1000 + '{"update": 400, "x": 1}\n', 400),
    ],
)
def test_the_last_whole_line_counts(tmp_path: Path, text: str, expected: int):
    (tmp_path / "metrics.jsonl").write_text(text)
    assert updates_done(tmp_path) == expected


def test_a_run_that_has_not_begun_has_done_nothing(tmp_path: Path):
    assert updates_done(tmp_path) == 0


def test_nothing_is_drawn_where_there_is_no_terminal(tmp_path: Path, capsys):
    with watching({"model": tmp_path}, 100) as look:
        look()
    assert capsys.readouterr() == ("", "")
