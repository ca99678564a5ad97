"""What commands say on stdout."""

import sys

from rich.console import Console

# Where nobody can resize a window, tables get the room they need.
_WIDE = 160


def console() -> Console:
    """Return a console on stdout: as wide as the terminal, wide where there is none."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE)


def say(text: str) -> None:
    """Write lines of plain text."""
    sys.stdout.write(f"{text}\n")
