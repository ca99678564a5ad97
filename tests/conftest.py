"""What every test stands on: one torch thread, checked annotations, and real rollouts."""

import gc
import os
import signal

# Two test processes with a thread pool each only slow one another down; and one thread is what
# makes runs repeat bit for bit. Set for the processes that tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from typing import TYPE_CHECKING

import jaxtyping
import pytest
import torch

from tests import checks

if TYPE_CHECKING:
    import loopwm as lw

torch.set_num_threads(1)

# A shell has its background jobs ignore Ctrl-C, and processes inherit that; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Every call in the library is checked against its annotations, shapes included.
jaxtyping.jaxtyped = checks.remembering(jaxtyping.jaxtyped)
jaxtyping.install_import_hook(checks.LIBRARY, "tests.checks.checked")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first: a process that meets it last keeps the others waiting."""

    def short(item: pytest.Item) -> bool:
        return item.get_closest_marker("slow") is None and item.path.name != "test_docs.py"

    items.sort(key=short)
    # What has been imported stays; the garbage collector need not look through it again and again.
    gc.collect()
    gc.freeze()


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """Take the shape checks off, which torch.compile cannot trace and so refuses falsely."""
    with checks.bare():
        yield


@pytest.fixture(scope="session")
def hopper() -> "lw.RolloutDataset":
    """Give a few hundred real steps of Hopper-v5, among them many falls."""
    return collected("Hopper-v5")


@pytest.fixture(scope="session")
def pendulum() -> "lw.RolloutDataset":
    """Give three real episodes of Pendulum-v1, which never terminates."""
    return collected("Pendulum-v1")


def collected(env_id: str) -> "lw.RolloutDataset":
    # Imported only here: the checks above must be in place before the library is loaded.
    import loopwm as lw

    return lw.collect(env_id, steps=600, seed=0, progress=False)
