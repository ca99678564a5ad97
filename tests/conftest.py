"""What every test stands on: one torch thread, and no trace of the machine it runs on."""

import os

# Two test processes with a thread pool each only slow one another down; and one thread is what
# makes runs repeat bit for bit. MuJoCo and its GL library read their variable at import.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "egl")

from collections.abc import Iterator

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)

# Every call in the library is checked against its annotations, shapes included. An int where a
# float is asked for is what Python's own numeric tower allows.
jaxtyping.install_import_hook(
    ["loopwm", "loopwm_envs"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """Switch the shape checks off, which torch.compile cannot trace and so refuses falsely."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
