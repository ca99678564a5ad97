"""Kill -9 a process that saves without pause; what it acknowledged must be there afterwards."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from loopwm.files import read_tree

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


def kill_while_saving(path: Path, rng: np.random.Generator) -> int:
    """Kill the writer somewhere in its third save; return the last step that it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdout.readline()
        start = time.perf_counter()
        acknowledged = int(process.stdout.readline())
        # A save takes about as long as the one before, however busy the machine is.
        time.sleep(rng.uniform(0, time.perf_counter() - start))
        os.kill(process.pid, signal.SIGKILL)
        lines = process.stdout.read().split("\n")[:-1]  # a last line without its end is cut
    return int(lines[-1]) if lines else acknowledged


@pytest.mark.parametrize(
    "kills", [30, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(580)])]
)
def test_a_killed_writer_never_leaves_an_unloadable_tree(tmp_path: Path, kills: int):
    rng = np.random.default_rng(0)
    last, unfinished = 0, 0
    for _ in range(kills):
        acknowledged = kill_while_saving(tmp_path / "tree", rng)
        left = [file for file in (tmp_path / "tree").iterdir() if ".tmp-" in file.name]
        unfinished += bool(left)
        tree = read_tree(tmp_path / "tree")
        step = tree.documents["state"]["step"]
        assert step >= acknowledged > last
        for name in ("weights", "optimiser"):
            assert all((array == step).all() for array in tree.tensors(name).values())
        last = step
    assert unfinished > kills // 10, "too few of the kills came in the middle of a save"
