"""Processes that work side by side and end together."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from loopwm.errors import LoopwmError, MissingExtra, require
from loopwm.study.lanes import run_lanes

# Jobs are functions that another process can import: those of this file are not among them.


def test_the_jobs_of_a_lane_run_in_order_and_lanes_side_by_side(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    run_lanes(
        [
            [partial(Path.write_text, first, "once"), partial(Path.rename, first, second)],
            [partial(Path.touch, tmp_path / "other")],
        ]
    )
    assert second.read_text() == "once"
    assert {each.name for each in tmp_path.iterdir()} == {"second", "other"}


def test_an_error_in_a_lane_keeps_its_message_and_ends_the_others():
    started = time.monotonic()
    with pytest.raises(LoopwmError, match=r'pip install "loopwm\[viz\]"'):
        run_lanes([[partial(time.sleep, 100)], [partial(require, "no_such_module", "viz")]])
    assert time.monotonic() - started < 50
    assert issubclass(MissingExtra, LoopwmError)


def test_a_process_that_dies_is_reported_by_its_code():
    with pytest.raises(LoopwmError, match="ended with code 7"):
        run_lanes([[partial(os._exit, 7)]])


def test_an_interruption_ends_all_lanes(tmp_path: Path):
    def interrupt() -> None:
        if (tmp_path / "running").exists():
            raise KeyboardInterrupt

    jobs = [partial(Path.touch, tmp_path / "running"), partial(time.sleep, 100)]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_lanes([jobs], interrupt)
    assert time.monotonic() - started < 50


PARENT = """
import time
from functools import partial
from pathlib import Path
from loopwm.study.lanes import run_lanes
if __name__ == "__main__":
    folder = Path({folder!r})
    late = partial(Path.touch, folder / "late")
    run_lanes([[partial(Path.touch, folder / "early"), partial(time.sleep, 5), late]])
"""


def test_lanes_do_not_outlive_a_parent_that_is_killed(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, str(script)])
    while not (tmp_path / "early").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    time.sleep(6)
    assert not (tmp_path / "late").exists()
