"""How fast experience is collected, task by task."""

from collections.abc import Callable, Sequence

from loopwm.data.throughput import collection_speed
from loopwm.study.results import Column, Sheet

TASKS = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5")


def collection_sheet(
    report: Callable[[str], None] = lambda line: None,
    tasks: Sequence[str] = TASKS,
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
                "ratio": speed["ratio"],
            }
        )
    columns = (
        Column("task"),
        Column("collect", "collect, steps per CPU second"),
        Column("sync", "SyncVectorEnv"),
        Column("ratio"),
    )
    return Sheet("open-loop excitation", columns, tuple(rows))
