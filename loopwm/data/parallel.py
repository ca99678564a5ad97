"""Episodes played by several processes, in the same order as by one."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from loopwm.data.engine import quiet_mujoco
from loopwm.data.episode import Episode, Task
from loopwm.data.fast import play_fast
from loopwm.data.stepping import play_stepping
from loopwm.errors import ConfigError, LoopwmError

# A chunk of episodes should take long enough that sending it back costs little beside.
CHUNK_STEPS = 32_768

# A worker that was killed is replaced; more deaths than this mean that episodes kill workers.
MAX_DEATHS = 3

# Seconds that a worker has to close its environments in, when it is told to end.
GRACE = 2.0


def play_in_processes(
    task: Task, steps: int, num_envs: int, workers: int, fast: bool
) -> Iterator[Episode]:
    """Play episodes of a task in order, in chunks shared among processes.

    Args:
        task: What to play.
        steps: Total steps wanted.
        num_envs: Environments that each process steps side by side.
        workers: Number of processes.
        fast: Whether to use `play_fast`.

    Yields:
        Episodes 0, 1, 2, ... until `steps` are reached.

    Raises:
        ConfigError: If the task cannot be sent to another process.
        LoopwmError: If workers keep dying.
    """
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"workers={workers} needs an environment and a policy that can be pickled ({error}); "
            "define them at the top of a module, or use workers=1"
        ) from error
    plan = _Plan(task, steps, num_envs, fast)
    for death in range(MAX_DEATHS + 1):
        try:
            yield from plan.play(workers)
            return
        except BrokenProcessPool as error:
            if death == MAX_DEATHS:
                raise LoopwmError(
                    f"collecting processes died {death + 1} times, last near episode {plan.first}; "
                    "use workers=1 to see why"
                ) from error


class _Plan:
    """What is still to be played; a new pool of processes goes on where a broken one stopped."""

    def __init__(self, task: Task, steps: int, num_envs: int, fast: bool) -> None:
        self.task, self.steps, self.num_envs, self.fast = task, steps, num_envs, fast
        self.first = self.played = 0

    def play(self, workers: int) -> Iterator[Episode]:
        # A forked copy of a process whose threads hold locks can hang, so each starts afresh.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _begin)
        chunks: deque[Future[list[Episode]]] = deque()
        following = self.first
        try:
            while self.steps > 0:
                while len(chunks) < 2 * workers and (not chunks or self._more(following)):
                    count = self._chunk(workers)
                    job = (self.task, following, count, self.steps, self.num_envs, self.fast)
                    chunks.append(pool.submit(_work, *job))
                    following += count
                for episode in chunks.popleft().result():
                    yield episode
                    self.first += 1
                    self.played += len(episode)
                    self.steps -= len(episode)
        finally:
            # Nobody waits for what is still being played, be it after an error or at the end.
            if not all(chunk.done() for chunk in chunks):
                _end(pool)
            pool.shutdown(cancel_futures=True)

    def _length(self) -> float:
        return max(1.0, self.played / self.first) if self.first else self.task.limit

    def _more(self, following: int) -> bool:
        return (following - self.first) * self._length() < self.steps

    def _chunk(self, workers: int) -> int:
        wanted = min(CHUNK_STEPS, self.steps / (2 * workers))
        return max(1, round(wanted / self._length()))


class _Ended(BaseException):
    """A worker was told to end."""


def _end(pool: Any) -> None:
    """Have the workers close their environments and end, whatever they are doing."""
    workers = [*pool._processes.values()]
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + GRACE
    for worker in workers:
        if not wait([worker.sentinel], max(0.0, until - time.monotonic())):
            worker.kill()
    # A worker that ends while it sends its episodes leaves a half of them; the pool would wait for
    # the other for ever, as long as anyone could still write it.
    pool._result_queue._writer.close()


def _begin() -> None:
    # Ctrl-C reaches the whole group of processes; the parent answers it for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent's end, however it comes, and then ask this process to end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _work(
    task: Task, first: int, count: int, steps: int, num_envs: int, fast: bool
) -> list[Episode]:
    before = signal.signal(signal.SIGTERM, _raise_ended)
    episodes: list[Episode] = []
    try:
        with quiet_mujoco():
            played = (
                play_fast(task, first, count, steps)
                if fast
                else play_stepping(task, first, count, steps, num_envs)
            )
            episodes = list(played)
    except _Ended:
        # The environments are closed, and freed with the exception.
        pass
    finally:
        # Whatever became of the exception: the pool would have a worker that returns go on.
        if signal.signal(signal.SIGTERM, before) == signal.SIG_IGN:
            os._exit(128 + signal.SIGTERM)
    return episodes


def _raise_ended(*_: object) -> None:
    # Told once more while it closes its environments, a worker goes on closing them.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Ended
