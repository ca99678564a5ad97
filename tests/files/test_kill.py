"""Kill -9 a process that saves without pause; what it acknowledged must be there afterwards."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from loopwm.files import read_tree, tree_exists

WRITER = """
import sys
import numpy as np
from loopwm.files import read_tree, tree_exists, write_tree
path = sys.argv[1]
step = read_tree(path).documents["state"]["step"] if tree_exists(path) else 0
print("ready", flush=True)
while True:
    step += 1
    weights = {name: np.full(50_000, float(step)) for name in "ab"}
    write_tree(path, {"weights": weights, "optimiser": weights}, {"state": {"step": step}})
    print(step, flush=True)
"""


def kill_while_saving(path: Path, seconds: float) -> int:
    """Return the last step that the writer acknowledged before it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        lines = process.stdout.read().split("\n")[:-1]  # a last line without its end is cut
    return int(lines[-1]) if lines else 0


@pytest.mark.parametrize(
    "kills", [30, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(400)])]
)
def test_a_killed_writer_never_leaves_an_unloadable_tree(tmp_path: Path, kills: int):
    path = tmp_path / "tree"
    rng = np.random.default_rng(0)
    steps = []
    for _ in range(kills):
        acknowledged = kill_while_saving(path, rng.uniform(0, 0.08))
        if not tree_exists(path):
            assert acknowledged == 0
            continue
        tree = read_tree(path)
        step = tree.documents["state"]["step"]
        assert step >= max([acknowledged, *steps])
        for name in ("weights", "optimiser"):
            assert all((array == step).all() for array in tree.tensors(name).values())
        steps.append(step)
    assert len(set(steps)) > kills // 2, "the kills came before the writer did anything"
