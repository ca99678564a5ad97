"""Work in several processes at once that ends together: by finishing, by an error, by Ctrl-C."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from loopwm.errors import LoopwmError

Job = Callable[[], object]

_PERIOD = 0.25  # seconds between two calls of `watch`


def run_lanes(lanes: Sequence[Sequence[Job]], watch: Callable[[], None] = lambda: None) -> None:
    """Run each lane's jobs one after the other, in a process of its own.

    An error, an interruption or the parent's death ends all lanes by SIGTERM, which a training run
    with a directory answers by a checkpoint.

    Args:
        lanes: Jobs that another process can be sent: functions of a module, or partials of them.
        watch: Called again and again while the lanes run.

    Raises:
        LoopwmError: If a job raised one, with its message, or a process died.
    """
    # Not forked: a child of a process that has used torch's or MuJoCo's threads may hang.
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    complaints: list[Connection] = []
    try:
        for lane in lanes:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(list(lane), sender))
            process.start()
            sender.close()
            processes.append(process)
            complaints.append(receiver)
        running = list(processes)
        while running:
            watch()
            wait([each.sentinel for each in running], timeout=_PERIOD)
            running = [each for each in running if each.is_alive()]
            _raise_failure(processes, complaints)
        watch()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _raise_failure(processes: Sequence[BaseProcess], complaints: Sequence[Connection]) -> None:
    for process, complaint in zip(processes, complaints, strict=True):
        if process.exitcode in (None, 0):
            continue
        try:
            reason = complaint.recv()
        except EOFError:
            reason = f"a worker process ended with code {process.exitcode} and no reason"
        raise LoopwmError(reason)


def _end_with_parent() -> None:
    """Wait for the parent's end, however it comes, and then ask this process to end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _work(lane: Sequence[Job], complaint: Connection) -> None:
    # Ctrl-C reaches the whole group of processes; the parent answers it for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for job in lane:
            job()
    except LoopwmError as error:
        complaint.send(str(error))
        raise SystemExit(1) from None
