"""One writer per run directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loopwm.errors import CheckpointError
from loopwm.files.single import make_directory

NAME = "lock"


@contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Keep every other process out of `run_dir` for the length of a `with` block.

    The kernel holds the lock for as long as this process lives, so a killed run leaves none; the
    file `lock` stays and means nothing by itself.

    Raises:
        CheckpointError: If another run is writing there, or nobody can.
    """
    try:
        make_directory(run_dir)
        file = os.open(run_dir / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CheckpointError(
            f"run_dir={str(run_dir)!r} cannot be written: {error.strerror or error}"
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            raise CheckpointError(
                f"run_dir={str(run_dir)!r} is being written by process {owner}; "
                "wait for it, stop it, or choose another run_dir"
            ) from error
        except OSError as error:
            raise CheckpointError(
                f"run_dir={str(run_dir)!r} cannot be locked ({error.strerror or error}), and two "
                "runs may not share one: choose a run_dir on a file system that has locks"
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        with suppress(OSError):
            os.close(file)
