"""How fast experience is collected, task by task."""

from collections.abc import Callable, Sequence

from loopwm.data.fast import FAST_TASKS
from loopwm.data.throughput import collection_speed
from loopwm.study.results import Column, Sheet


def collection_sheet(
    report: Callable[[str], None] = lambda line: None,
    tasks: Sequence[str] = FAST_TASKS,
    steps: int = 20_000,
) -> Sheet:
    """Make the table of collected steps per CPU second.

    Args:
        report: Receives a line for each task begun.
        tasks: Gymnasium ids.
        steps: Steps per round and method.
    """
    rows = []
    for task in tasks:
        report(f"collecting {task}")
        speed = collection_speed(task, steps)
        rows.append(
            {
                "task": task,
                "collect": speed["collect"],
                "sync": speed["sync_vector_env"],
                "bare": speed["sync_bare"],
                "ratio": speed["ratio"],
                "ratio_bare": speed["ratio_bare"],
            }
        )
    columns = (
        Column("task"),
        Column("collect", "collect, steps per CPU second"),
        Column("sync", "the same rows by SyncVectorEnv"),
        Column("bare", "SyncVectorEnv, keeping nothing"),
        Column("ratio", "over the same rows"),
        Column("ratio_bare", "over keeping nothing"),
    )
    return Sheet("open-loop excitation", columns, tuple(rows))
