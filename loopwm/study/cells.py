"""Work cut into cells, each a JSON file: finished ones are skipped, several workers can share."""

import fcntl
import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from loopwm.files import read_json, write_json


@runtime_checkable
class Named(Protocol):
    """Ask of a cell that it has a name, which says everything that its result depends on."""

    @property
    def name(self) -> str:
        """The name, also that of its file."""
        ...


def version(*parts: Any) -> str:
    """Return a checksum of settings that a cell's name does not spell out, made of JSON values.

    With it in the name, a folder of cells never answers for models that are built otherwise today:
    the format of stored models is a part of it.
    """
    from loopwm.world.build import SCHEMA

    text = json.dumps([SCHEMA, *parts], sort_keys=True, default=str)
    return f"{zlib.crc32(text.encode()):08x}"


# A claim that was not renewed for so many seconds is that of a dead process.
_STALE = 600.0
_RENEWAL = 60.0

_Cell = TypeVar("_Cell", bound=Named)


def run_cells(
    cells: Sequence[_Cell],
    folder: Path,
    compute: Callable[[_Cell], dict[str, Any]],
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """Compute the cells that are not finished and return the results of all that are.

    A cell that another living process is working on is left to it; so a plan can be run by several
    processes at once, on several machines that share the folder, and again after a crash. Whether a
    process of another machine lives is seen from its claim, which it renews as long as it does.

    Args:
        cells: The work, in order.
        folder: Where results are kept, `<name>.json` each.
        compute: Makes a cell's result, made of JSON values.
        report: Receives a line for each cell begun.

    Returns:
        Results by name; cells that others are working on are missing.
    """

    def one(group: Sequence[_Cell]) -> Iterator[tuple[str, dict[str, Any]]]:
        yield group[0].name, compute(group[0])

    return run_groups([[cell] for cell in cells], folder, one, report)


def run_groups(
    groups: Sequence[Sequence[_Cell]],
    folder: Path,
    compute: Callable[[Sequence[_Cell]], Iterable[tuple[str, dict[str, Any]]]],
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """Compute cells that are computed together; the rest as `run_cells`.

    Args:
        groups: The work, in order; every process has to form the same groups.
        folder: Where results are kept, `<name>.json` for each cell.
        compute: Makes name and result of each cell of a group that is not finished; every result
            is written before the next one is asked for.
        report: Receives a line for each group begun.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for position, group in enumerate(groups):
        if all((folder / f"{cell.name}.json").exists() for cell in group):
            continue
        with _claimed(folder / f"{group[0].name}.json") as mine:
            # Checked under the claim: another process may have finished it a moment ago.
            left = [c for c in group if mine and not (folder / f"{c.name}.json").exists()]
            if left:
                more = f" and {len(left) - 1} more" * (len(left) > 1)
                report(f"{position + 1} of {len(groups)}: {left[0].name}{more}")
                for name, result in compute(left):
                    write_json(folder / f"{name}.json", result)
    return finished_cells([cell for group in groups for cell in group], folder)


def finished_cells(cells: Sequence[Named], folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results of the cells that are finished, by name."""
    paths = {cell.name: folder / f"{cell.name}.json" for cell in cells}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Hold `<path>.claim`, which names this process; yield whether it could be had."""
    claim = path.with_name(f"{path.name}.claim")
    mine = _take(claim) or (not _held(claim) and _take_over(claim))
    over = threading.Event()
    if mine:
        threading.Thread(target=_renew, args=(claim, over), daemon=True).start()
    try:
        yield mine
    finally:
        over.set()
        # Another process may have taken it for stale: then it is that one's.
        if mine and _names_us(claim):
            claim.unlink(missing_ok=True)


def _renew(claim: Path, over: threading.Event) -> None:
    """Touch the claim again and again until the work is over."""
    while not over.wait(_RENEWAL):
        # Another machine may have taken it for stale, after a long sleep of this one.
        with suppress(OSError):
            os.utime(claim)


def _take(claim: Path) -> bool:
    """Create the claim with its content in one step, so that no other process sees it empty."""
    draft = claim.with_name(f"{claim.name}.{socket.gethostname()}-{os.getpid()}")
    draft.write_text(_us())
    try:
        os.link(draft, claim)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _us() -> str:
    return f"{os.getpid()} {socket.gethostname()}"


def _names_us(claim: Path) -> bool:
    with suppress(OSError):
        return claim.read_text() == _us()
    return False


def _take_over(claim: Path) -> bool:
    """Replace a claim that nobody holds, unless another process has done so a moment ago."""
    lock = claim.with_name(f"{claim.name}.lock")
    # The kernel frees the lock of a dead process; the file stays and means nothing by itself.
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _held(claim):
            return False
        claim.unlink(missing_ok=True)
        return _take(claim)
    finally:
        os.close(descriptor)


def _held(claim: Path) -> bool:
    try:
        process, _, host = claim.read_text().partition(" ")
        # A number may be another process's by now, after a restart or in another container.
        if time.time() - claim.stat().st_mtime >= _STALE:
            return False
        if host not in ("", socket.gethostname()):
            return True
        os.kill(int(process), 0)
    except (OSError, ValueError):
        return False
    return int(process) != os.getpid()
