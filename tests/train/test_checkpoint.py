"""Damaged checkpoints are passed over aloud; two are kept; nothing else is believed."""

import shutil
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from loopwm.errors import CheckpointError
from loopwm.files import write_tree
from loopwm.train.checkpoint import checkpoints
from loopwm.train.fit import run


class Killed(BaseException):
    """Stand for a death that leaves no time for anything."""


def kill() -> None:
    raise Killed


@pytest.fixture(scope="module")
def whole(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run."""
    run_dir = tmp_path_factory.mktemp("whole")
    toy.train(run_dir, toy.config())
    return run_dir


@pytest.fixture
def stopped(toy: ModuleType, tmp_path: Path) -> Path:
    """Return a run that died at update 37, with checkpoints at 20 and 30."""
    with pytest.raises(Killed):
        toy.train(tmp_path, toy.config(), {37: kill})
    assert [p.name for p in checkpoints(tmp_path)] == ["000000030", "000000020"]
    return tmp_path


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("pattern", ["module.*", "optimizer.*", "random.*", "manifest.json"])
@pytest.mark.parametrize("offset", [3, 200, -2])
def test_a_flipped_bit_in_the_newest_checkpoint_falls_back_aloud_and_the_end_is_the_same(
    toy: ModuleType, whole: Path, stopped: Path, pattern: str, offset: int
):
    newest = checkpoints(stopped)[0]
    flip(next(newest.glob(pattern)), offset)
    with pytest.warns(UserWarning, match="skipping a damaged checkpoint: .*000000030"):
        net, history = toy.train(stopped, toy.config())
    assert history.resumed_from == 20
    expected, _ = toy.train(whole, toy.config())
    assert all(torch.equal(t, net.state_dict()[k]) for k, t in expected.state_dict().items())
    assert [p.name for p in checkpoints(stopped)] == ["000000060", "000000050"]


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_file_in_the_newest_checkpoint_falls_back_aloud(
    toy: ModuleType, stopped: Path, keep: float
):
    file = next(checkpoints(stopped)[0].glob("module.*"))
    file.write_bytes(file.read_bytes()[: int(keep * file.stat().st_size)])
    with pytest.warns(UserWarning, match="skipping a damaged checkpoint"):
        assert toy.train(stopped, toy.config())[1].resumed_from == 20


def test_a_checkpoint_whose_first_write_never_ended_is_passed_over_in_silence(
    toy: ModuleType, stopped: Path
):
    (checkpoints(stopped)[0] / "manifest.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert toy.train(stopped, toy.config())[1].resumed_from == 20
    assert len(list((stopped / "checkpoints").iterdir())) == 2


def test_a_damaged_newer_checkpoint_is_gone_after_the_next_save(toy: ModuleType, stopped: Path):
    flip(next(checkpoints(stopped)[0].glob("module.*")), 300)
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(Killed):
        toy.train(stopped, toy.config(checkpoint_every=3), {25: kill})
    assert [p.name for p in checkpoints(stopped)] == ["000000024", "000000021"]


def test_with_every_checkpoint_damaged_the_run_is_refused_and_not_restarted(
    toy: ModuleType, stopped: Path
):
    for path in checkpoints(stopped):
        flip(next(path.glob("module.*")), 300)
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read; restore one"),
    ):
        toy.train(stopped, toy.config())


def test_only_the_two_newest_are_kept_and_foreign_files_stay(toy: ModuleType, tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    toy.train(tmp_path, toy.config())
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["000000050", "000000060", "notes.txt"]


def test_checkpoints_hold_no_pickle(stopped: Path):
    names = {p.suffix for p in checkpoints(stopped)[0].iterdir()}
    assert names == {".safetensors", ".json"}


def test_a_model_of_another_shape_is_refused(toy: ModuleType, stopped: Path):
    wide = nn.Sequential(nn.Linear(3, 9), nn.Dropout(0.1), nn.SiLU(), nn.Linear(9, 2))
    with pytest.raises(CheckpointError, match=r"does not fit this model: .*another run_dir"):
        run(wide, toy.loss, toy.sample, toy.config(), run_dir=stopped)


def test_a_tree_that_is_no_checkpoint_is_refused(toy: ModuleType, tmp_path: Path):
    write_tree(tmp_path / "checkpoints" / "000000007", {"module": {"x": np.zeros(3)}}, {})
    with pytest.raises(CheckpointError, match="holds a run with other settings"):
        toy.train(tmp_path, toy.config())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("os.fsync", r"metrics\.jsonl cannot be written: No space left"),
        ("os.replace", r"no checkpoint at update 30: .*No space left"),
    ],
)
def test_a_disk_that_fails_raises_a_typed_error_and_keeps_the_older_checkpoints(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, message: str
):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=message):
        toy.train(tmp_path, toy.config(), {25: lambda: monkeypatch.setattr(call, full)})
    monkeypatch.undo()
    assert [p.name for p in checkpoints(tmp_path)] == ["000000020", "000000010"]
    assert toy.train(tmp_path, toy.config())[1].resumed_from == 20


def test_a_run_directory_can_be_moved(toy: ModuleType, stopped: Path, tmp_path: Path):
    shutil.copytree(stopped, tmp_path / "moved")
    assert toy.train(tmp_path / "moved", toy.config())[1].resumed_from == 30
