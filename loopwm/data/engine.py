"""The simulator: its module, and its silence."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The bindings have no type stubs, and a checker would refuse every name in them.
mujoco: Any = importlib.import_module("mujoco")


@contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Keep MuJoCo from writing to stderr and to MUJOCO_LOG.TXT while the block runs.

    Some of Gymnasium's models use a deprecated compiler setting, and every exploding state is
    reported; the collector counts the latter itself. The settings before the block return after.
    """
    before = mujoco.MjLogConfig.get()
    silent = mujoco.MjLogConfig.get()
    silent.logto_console = False
    silent.logto_file = False
    silent.set()
    try:
        yield
    finally:
        before.set()
