"""Single files: written whole or not at all, read only if regular and small enough."""

import errno
import glob
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopwm.errors import StoreError

MAX_JSON_BYTES = 64 * 2**20

_STALE_SECONDS = 3600


def write_file(path: Path | str, data: bytes) -> None:
    """Write one file so that a crash leaves the old content or the new, whole.

    Raises:
        StoreError: If the file system fails; the old content is then still there.
    """
    path = Path(path)
    with reported("write", path):
        make_directory(path.parent)
        for stale in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
            # Younger ones may belong to another writer.
            if time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                stale.unlink(missing_ok=True)
        temporary = write_temporary(path, data)
        try:
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def write_json(path: Path | str, value: Any) -> None:
    """Write a JSON value as `write_file` does, indented, keys in the given order.

    Raises:
        StoreError: If the value is not JSON (NaN is not), or the file system fails.
    """
    write_file(path, dump_json(value, str(path)))


def read_json(path: Path | str) -> Any:
    """Read a JSON file of at most 64 MiB.

    Raises:
        StoreError: If it is missing, too large or not JSON; a repeated key is not.
    """
    path = Path(path)
    return parse_json(read_regular(path, MAX_JSON_BYTES), path)


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; never follow a link."""
    with reported("read", path):
        if path.is_symlink():
            raise StoreError(f"cannot read {path}: links are not followed; put a copy in its place")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with reported("read", path), open(path, "rb", opener=lambda p, _: os.open(p, flags)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path} is not a regular file; it will not be read")
        if status.st_size > limit:
            raise damaged(path, f"it has {status.st_size} bytes where {limit} are allowed")
        return file.read(limit)


def dump_json(value: Any, what: str) -> bytes:
    """Return the one form in which JSON is written; `what` names the value in the error."""
    try:
        raw = (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{what} cannot be written as JSON: {error}") from error
    if len(raw) > MAX_JSON_BYTES:
        raise StoreError(
            f"{what} would be JSON of {len(raw)} bytes, and {MAX_JSON_BYTES} is what can be read: "
            "of a model it is the history that grows, model.history = model.history[::10] thins it"
        )
    return raw


def parse_json(raw: bytes, path: Path) -> Any:
    """Return the JSON value that was read from `path`; refuse repeated keys."""
    try:
        return json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({error})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result


def damaged(path: Path, why: str) -> StoreError:
    """Return the error for a file whose content is not what was written."""
    return StoreError(f"{path} is damaged: {why}; restore it from a copy or make it again")


def make_directory(path: Path) -> None:
    """Make a directory and its parents so that they survive a loss of power."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_directory(made.parent)


def write_temporary(target: Path, data: bytes) -> Path:
    """Write and sync `data` under a hidden name beside `target`, to be renamed by the caller."""
    temporary = target.with_name(f".{target.name}.tmp-{secrets.token_hex(6)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666)  # the umask decides, as for any other file
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def reported(verb: str, path: Path) -> Iterator[None]:
    """Turn what the operating system raises into a StoreError that names the path."""
    try:
        yield
    except OSError as error:
        remedy = "check that the path is right and may be used"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = next(p for p in (path, *path.parents) if p.is_dir())
            remedy = f"make room ({shutil.disk_usage(place).free:,} bytes are free)"
        if verb == "write":
            remedy += "; what was there before is untouched"
        raise StoreError(f"cannot {verb} {path}: {error.strerror or error}; {remedy}") from error
    except ValueError as error:  # a NUL in the path
        raise StoreError(f"cannot {verb} {str(path)!r}: {error}; choose another path") from error
