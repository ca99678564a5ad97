"""One run directory, one writer."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from loopwm.errors import CheckpointError
from loopwm.train.lock import exclusive

HOLDER = """
import sys, time
from pathlib import Path
from loopwm.train.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def without(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with (
        pytest.raises(CheckpointError, match=r"cannot be locked \(No locks available\)"),
        exclusive(tmp_path),
    ):
        pass


def test_a_second_writer_is_refused_at_once_and_told_who_is_first(tmp_path: Path):
    with exclusive(tmp_path):
        started = time.monotonic()
        with (
            pytest.raises(CheckpointError, match=f"written by process {os.getpid()}; .*run_dir"),
            exclusive(tmp_path),
        ):
            pass
        assert time.monotonic() - started < 1
    with exclusive(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=str(process.pid)), exclusive(tmp_path):
            pass
        os.kill(process.pid, signal.SIGKILL)
    with exclusive(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    message = r"run_dir=.*file.* cannot be written"
    with pytest.raises(CheckpointError, match=message), exclusive(tmp_path / "file"):
        pass


def test_a_run_is_refused_where_another_one_is_writing(toy: ModuleType, tmp_path: Path):
    with exclusive(tmp_path), pytest.raises(CheckpointError, match="being written by process"):
        toy.train(tmp_path, toy.config())
    _, history = toy.train(tmp_path, toy.config(updates=2))
    assert history.updates == 2
