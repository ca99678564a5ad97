"""Show how far training runs of other processes have come, by what they write."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_TAIL = 4096  # bytes; longer than a line of metrics


@contextmanager
def watching(runs: Mapping[str, Path], updates: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr for each run, where stderr is a terminal.

    Args:
        runs: Directories of the runs, by what to call them.
        updates: Updates of each.

    Yields:
        A function that looks at the runs and redraws.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        lines = {name: bar.add_task(name, total=updates) for name in runs}

        def look() -> None:
            for name, run in runs.items():
                bar.update(lines[name], completed=updates_done(run))

        yield look


def updates_done(run: Path) -> int:
    """Return the last update in the metrics of a run, 0 if there are none yet."""
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return 0
    # The first line may have lost its beginning, the last one may not have its end yet.
    whole = [line for line in lines[:-1] if line.startswith(b"{") and line.endswith(b"}")]
    return int(json.loads(whole[-1])["update"]) if whole else 0
