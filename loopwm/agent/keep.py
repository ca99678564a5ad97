"""The run of an agent on disk: data, model, learner and log, whole at every moment."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loopwm.agent.learner import Learner, Tensors
from loopwm.agent.life import Life
from loopwm.data.store import RolloutDataset
from loopwm.errors import CheckpointError, StoreError
from loopwm.files import kind_at, kind_of, read_tree, tree_exists, write_tree
from loopwm.train.checkpoint import plain, refuse_other_run
from loopwm.train.lock import exclusive
from loopwm.train.log import Log

_PATTERN = "[0-9]" * 9
_GLOBAL = "global"


@dataclass(frozen=True, eq=False)
class Found:
    """Hold what a checkpoint says.

    Attributes:
        folder: Where the model is, in `model`.
        identity: Environment, seed and algorithm.
        tensors: Arrays of the learner, and the state of the global generator.
        learner: JSON values of the learner.
        run: JSON values of the run.
        data: All real steps.
        records: The log up to there.
    """

    folder: Path
    identity: dict[str, Any]
    tensors: Tensors
    learner: dict[str, Any]
    run: dict[str, Any]
    data: RolloutDataset
    records: list[dict[str, Any]]

    @property
    def seed(self) -> int:
        """Return the run's seed."""
        return self.identity["seed"]


class Keeper:
    """Write checkpoints and the log of one run, or nothing without a directory.

    Args:
        run_dir: The directory, or None.
        identity: What a continuation must share, as JSON values.

    Attributes:
        log: The log.
        seconds: CPU time of the run so far.
        pending: Record of a round that is still to be evaluated, or None.

    Raises:
        CheckpointError: If the directory is in use, or holds another run or anything else that was
            saved.
    """

    def __init__(self, run_dir: str | Path | None, identity: dict[str, Any]) -> None:
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.identity, self.seconds = plain(identity), 0.0
        self.pending: dict[str, Any] | None = None
        self.log = Log(None, 0, [])
        self._found: Found | None = None
        self._stack = ExitStack()
        if self.run_dir is None:
            return
        there = kind_at(self.run_dir)
        if there is not None:
            raise CheckpointError(
                f"run_dir={str(self.run_dir)!r} holds {there}; an agent needs a folder of its own"
            )
        with ExitStack() as stack:
            stack.enter_context(exclusive(self.run_dir))
            size = 0
            if checkpoints(self.run_dir):
                self._found = latest(self.run_dir)
                refuse_other_run(self.run_dir, self._found.identity, self.identity)
                size = self._found.run["log_size"]
            self.log = Log(self.run_dir, size, [])
            self._stack = stack.pop_all()

    def resume(self, life: Life, learner: Learner) -> None:
        """Bring a life and a learner to where the last checkpoint left them, if there is one."""
        found = self._found
        if found is None:
            return
        life.restore(found.data, found.run["life"])
        learner.restore(found.folder, found.tensors, found.learner, found.data)
        self.seconds = found.run["seconds"]
        self.pending = found.run.get("pending")
        torch.default_generator.set_state(torch.from_numpy(found.tensors[_GLOBAL]["state"]))

    def save(self, life: Life, learner: Learner) -> None:
        """Write a checkpoint; drop all but the newest one before it."""
        if self.run_dir is None or not learner.ready:
            return
        folder = self.run_dir / "checkpoints" / f"{life.steps:09d}"
        try:
            life.dataset().save(folder / "data")
            tensors, document = learner.save(folder)
            state = torch.default_generator.get_state().numpy()
            run = {
                "life": life.counters(),
                "seconds": self.seconds,
                "pending": self.pending,
                "log_size": self.log.sync(),
            }
            documents = {"identity": self.identity, "run": run, "learner": document}
            # Last, because its manifest is what makes a checkpoint of the folder.
            write_tree(folder, {**tensors, _GLOBAL: {"state": state}}, documents)
            earlier = [path for path in checkpoints(self.run_dir) if path < folder]
            for old in set((self.run_dir / "checkpoints").glob(_PATTERN)) - {folder, *earlier[:1]}:
                shutil.rmtree(old)
        except (StoreError, OSError) as error:
            raise CheckpointError(f"no checkpoint at step {life.steps}: {error}") from error

    def close(self) -> None:
        """Close the log and free the directory."""
        self.log.close()
        self._stack.close()


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, newest first."""
    found = (run_dir / "checkpoints").glob(_PATTERN)
    return sorted((path for path in found if tree_exists(path)), reverse=True)


def latest(run_dir: Path) -> Found:
    """Read the newest whole checkpoint.

    Raises:
        StoreError: If there is none.
    """
    reason, found = "train one: loopwm agent train", checkpoints(run_dir)
    there = kind_at(found[0]) if found else None
    if there not in (None, kind_of(["learner"])):
        raise StoreError(
            f"{run_dir} holds no agent but {there} of another training; choose another folder"
        )
    for folder in found:
        try:
            return _read(run_dir, folder)
        except (StoreError, KeyError) as error:
            reason = f"the checkpoints are damaged: {error}"
    raise StoreError(f"{run_dir} holds no agent that can be read; {reason}")


def _read(run_dir: Path, folder: Path) -> Found:
    tree = read_tree(folder)
    run = tree.documents["run"]
    log = run_dir / "metrics.jsonl"
    lines = log.read_bytes()[: run["log_size"]].splitlines() if log.exists() else []
    return Found(
        folder=folder,
        identity=tree.documents["identity"],
        tensors={name: dict(group) for name, group in tree.arrays.items()},
        learner=tree.documents["learner"],
        run=run,
        data=RolloutDataset.load(folder / "data"),
        records=[json.loads(line) for line in lines],
    )
