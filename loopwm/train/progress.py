"""The moving line that shows how far training has come."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from loopwm.train.history import History

_PERIOD = 0.2  # seconds between redraws; a redraw takes about 2 ms


class Display:
    """Show updates, loss and time left on stderr, or nothing at all."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        """Draw on `progress`; None draws nothing."""
        self._progress = progress
        self._due = 0.0
        if progress is not None:
            self._task = progress.add_task("training", total=total, loss="")

    def show(self, update: int, loss: float) -> None:
        """Show the present state if enough time has passed since the last redraw."""
        if self._progress is None or (now := time.monotonic()) < self._due:
            return
        self._due = now + _PERIOD
        self._progress.update(self._task, completed=update, loss=f"loss {loss:.4g}", refresh=True)

    def finish(self, history: History) -> None:
        """Fill the bar and print the summary below it."""
        if self._progress is not None:
            loss = history.summary()["loss"]
            text = "" if loss is None else f"loss {loss:.4g}"
            self._progress.update(self._task, completed=history.updates, loss=text, refresh=True)
            self._progress.console.print(history.table())


@contextmanager
def display(enabled: bool | None, total: int) -> Iterator[Display]:
    """Open the display; `enabled=None` opens it on a terminal only."""
    if enabled is False or (enabled is None and not sys.stderr.isatty()):
        yield Display(None, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    # We redraw ourselves: rich's own thread would compete with training for the core.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        yield Display(progress, total)
