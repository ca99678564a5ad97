"""SIGINT and SIGTERM as a request that the training loop may answer in its own time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class StopRequest:
    """Hold the signal that asked for the end, if one has come.

    Attributes:
        received: Number of the signal, or None.
    """

    received: int | None = None

    def comply(self) -> None:
        """Raise what the signal would have raised: KeyboardInterrupt, or SystemExit(143)."""
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is not None:
            raise SystemExit(128 + self.received)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note the first SIGINT or SIGTERM instead of dying of it; obey the second at once.

    Outside the main thread, where Python delivers no signals, nothing is installed. A signal
    that the process ignores stays ignored. At the end the earlier handlers return.
    """
    request = StopRequest()
    previous = {}

    def note(number: int, frame: FrameType | None) -> None:
        again = request.received is not None
        request.received = number
        if again:
            request.comply()

    if threading.current_thread() is threading.main_thread():
        previous = {s: signal.getsignal(s) for s in _SIGNALS}
        previous = {s: h for s, h in previous.items() if h not in (signal.SIG_IGN, None)}
    try:
        for number in previous:
            signal.signal(number, note)
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    request.comply()  # it came too late for the loop to see; not reached after an error
