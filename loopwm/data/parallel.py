"""Episodes played by several processes, in the same order as by one."""

import multiprocessing
import pickle
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from loopwm.data.engine import quiet_mujoco
from loopwm.data.episode import Episode, Task
from loopwm.data.fast import play_fast
from loopwm.data.stepping import play_stepping
from loopwm.errors import ConfigError, LoopwmError

# A chunk of episodes should take long enough that sending it back costs little beside.
CHUNK_STEPS = 32_768

# A worker that was killed is replaced; more deaths than this mean that episodes kill workers.
MAX_DEATHS = 3


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
        pool = ProcessPoolExecutor(workers, mp_context=context)
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
            pool.shutdown(cancel_futures=True)

    def _length(self) -> float:
        return max(1.0, self.played / self.first) if self.first else self.task.limit

    def _more(self, following: int) -> bool:
        return (following - self.first) * self._length() < self.steps

    def _chunk(self, workers: int) -> int:
        wanted = min(CHUNK_STEPS, self.steps / (2 * workers))
        return max(1, round(wanted / self._length()))


def _work(
    task: Task, first: int, count: int, steps: int, num_envs: int, fast: bool
) -> list[Episode]:
    with quiet_mujoco():
        if fast:
            return list(play_fast(task, first, count, steps))
        return list(play_stepping(task, first, count, steps, num_envs))
