"""The command line: commands are dataclasses, and each calls functions of the library."""

import os
import sys
from collections.abc import Sequence

from loopwm.cli.usage import parse
from loopwm.errors import LoopwmError

INTERRUPTED = 130
MISTAKE = 2
# What goes on where it was when the same words are given again.
RESUMING = ("train", "agent train", "arc train", "compare", "demo", "results")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    A mistake is answered by one line on stderr and exit code 2; `--traceback` shows where it was
    noticed. Ctrl-C ends with exit code 130. Unless OMP_NUM_THREADS says otherwise, one CPU thread
    computes, which is also what makes a resumed run end bit for bit like an uninterrupted one.

    Args:
        arguments: What stands behind `loopwm`; by default that of this process.
    """
    # Torch reads it when it is imported. Models this small gain little from further threads, and
    # where cores are shared they lose most of the time waiting for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in words
    try:
        command = parse([word for word in words if word != "--traceback"])
        command.run()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has closed it. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (LoopwmError, OSError) as error:
        if show_traceback:
            raise
        _complain(f"{_reason(error)}")
        raise SystemExit(MISTAKE) from None
    except KeyboardInterrupt:
        resumes = any(" ".join(words[:count]) in RESUMING for count in (1, 2))
        advice = "; repeated, it goes on from what it last saved" if resumes else ""
        _complain(f"interrupted{advice}")
        raise SystemExit(INTERRUPTED) from None


def _reason(error: LoopwmError | OSError) -> str:
    if isinstance(error, OSError) and not isinstance(error, LoopwmError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    return str(error)


def _complain(message: str) -> None:
    sys.stderr.write(f"loopwm: {' '.join(message.split())}\n")
