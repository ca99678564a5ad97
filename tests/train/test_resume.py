"""A run that was stopped, however it was stopped, ends where the uninterrupted run ends."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from loopwm.errors import CheckpointError
from loopwm.files import read_tree
from loopwm.train.checkpoint import checkpoints
from loopwm.train.fit import run
from loopwm.train.log import TIME_FIELDS

OPTIMIZERS = ("AdamW", "Muon")
KILLS = [int(u) for u in np.random.default_rng(0).integers(1, 59, size=3)]


class Killed(BaseException):
    """Stand for a death that leaves no time for anything."""


def kill() -> None:
    raise Killed


def lines(run_dir: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in TIME_FIELDS} for r in records]


@pytest.fixture(scope="module", params=OPTIMIZERS)
def optimizer(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(toy: ModuleType, optimizer: str, tmp_path_factory: pytest.TempPathFactory):
    """Return the uninterrupted run: its directory and its weights."""
    run_dir = tmp_path_factory.mktemp("whole")
    net, _ = toy.train(run_dir, toy.config(optimizer))
    return run_dir, net.state_dict()


def assert_equal_runs(run_dir: Path, weights: dict[str, torch.Tensor], whole) -> None:
    whole_dir, whole_weights = whole
    assert weights.keys() == whole_weights.keys()
    assert all(torch.equal(weights[k], whole_weights[k]) for k in weights)
    ours, theirs = (read_tree(checkpoints(d)[0]) for d in (run_dir, whole_dir))
    assert (
        ours.arrays.keys() == theirs.arrays.keys() == {"module", "average", "optimizer", "random"}
    )
    for name, group in theirs.arrays.items():
        assert group.keys() == ours.arrays[name].keys()
        for key, array in group.items():
            assert array.tobytes() == ours.arrays[name][key].tobytes(), (name, key)
    assert lines(run_dir) == lines(whole_dir)


@pytest.mark.parametrize("update", KILLS)
def test_a_run_that_dies_at_a_random_update_ends_like_the_uninterrupted_one(
    toy: ModuleType, optimizer: str, whole, tmp_path: Path, update: int
):
    with pytest.raises(Killed):
        toy.train(tmp_path, toy.config(optimizer), {update: kill})
    net, history = toy.train(tmp_path, toy.config(optimizer))
    assert history.resumed_from == update // 10 * 10
    assert_equal_runs(tmp_path, net.state_dict(), whole)


def test_a_run_that_dies_again_and_again_ends_like_the_uninterrupted_one(
    toy: ModuleType, optimizer: str, whole, tmp_path: Path
):
    for update in (5, 12, 33, 34, 59):
        with pytest.raises(Killed):
            toy.train(tmp_path, toy.config(optimizer), {update: kill})
    net, _ = toy.train(tmp_path, toy.config(optimizer))
    assert_equal_runs(tmp_path, net.state_dict(), whole)


@pytest.mark.parametrize(
    ("optimizer", "number", "code"),
    [("AdamW", signal.SIGKILL, -signal.SIGKILL), ("Muon", signal.SIGTERM, 143)],
    indirect=["optimizer"],
)
def test_a_process_stopped_by_a_signal_ends_like_the_uninterrupted_one(
    toy: ModuleType, optimizer: str, whole, tmp_path: Path, number: int, code: int
):
    command = [sys.executable, str(toy.__file__), str(tmp_path), optimizer, "37", str(int(number))]
    assert subprocess.run(command, timeout=60).returncode == code
    # SIGTERM let the update finish and be saved, SIGKILL did not.
    newest = 38 if number == signal.SIGTERM else 30
    assert checkpoints(tmp_path)[0].name == f"{newest:09d}"
    net, history = toy.train(tmp_path, toy.config(optimizer))
    assert history.resumed_from == newest
    assert_equal_runs(tmp_path, net.state_dict(), whole)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kills_at_any_moment_of_saving_do_not_change_the_end(toy: ModuleType, tmp_path: Path):
    net, _ = toy.train(tmp_path / "whole", toy.long_config())
    rng = np.random.default_rng(0)
    newest = [0]
    for _ in range(6):
        command = [sys.executable, str(toy.__file__), str(tmp_path / "killed")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            time.sleep(rng.uniform(0, 0.3))
            process.kill()
        newest.append(int(checkpoints(tmp_path / "killed")[0].name))
    assert newest == sorted(newest)
    assert 0 < newest[1] < newest[-1] < 300, "the kills missed the run"
    again, _ = toy.train(tmp_path / "killed", toy.long_config())
    assert_equal_runs(
        tmp_path / "killed", again.state_dict(), (tmp_path / "whole", net.state_dict())
    )


def test_an_interrupt_from_the_keyboard_ends_like_the_uninterrupted_run(
    toy: ModuleType, optimizer: str, whole, tmp_path: Path
):
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, toy.config(optimizer), {41: lambda: signal.raise_signal(signal.SIGINT)})
    net, history = toy.train(tmp_path, toy.config(optimizer))
    assert history.resumed_from == 42
    assert_equal_runs(tmp_path, net.state_dict(), whole)


def test_a_finished_run_is_not_trained_again(toy: ModuleType, optimizer: str, whole):
    net, history = toy.train(whole[0], toy.config(optimizer), dict.fromkeys(range(60), kill))
    assert history.resumed_from == history.updates == 60
    assert_equal_runs(whole[0], net.state_dict(), whole)
    stripped = [{k: v for k, v in r.items() if k not in TIME_FIELDS} for r in history.records]
    assert stripped == lines(whole[0])


def test_training_seconds_go_on_counting_after_a_resume(toy: ModuleType, tmp_path: Path):
    with pytest.raises(Killed):
        toy.train(tmp_path, toy.config(), {33: kill})
    before = read_tree(checkpoints(tmp_path)[0]).documents["progress"]["seconds"]
    _, history = toy.train(tmp_path, toy.config())
    assert history.seconds > before > 0


def test_a_run_with_other_settings_is_refused_by_name_and_the_files_are_left_alone(
    toy: ModuleType, tmp_path: Path
):
    toy.train(tmp_path, toy.config())
    before = lines(tmp_path)
    message = r"config\.lr was 0\.01 and is now 0\.5; config\.seed was 0 and is now 3\. .*run_dir"
    with pytest.raises(CheckpointError, match=message):
        toy.train(tmp_path, toy.config(lr=0.5, seed=3))
    with pytest.raises(CheckpointError, match=r"optimizer\.name was 'AdamW' and is now 'Muon'"):
        toy.train(tmp_path, toy.config("Muon"))
    assert lines(tmp_path) == before


def test_other_documents_are_refused_by_name(toy: ModuleType, tmp_path: Path):
    task = (toy.loss, toy.sample, toy.config())
    run(toy.module(), *task, run_dir=tmp_path, documents={"model": {"width": 8}})
    with pytest.raises(CheckpointError, match=r"documents\.model\.width was 8 and is now 16"):
        run(toy.module(), *task, run_dir=tmp_path, documents={"model": {"width": 16}})


def test_settings_that_do_not_touch_the_mathematics_may_change(toy: ModuleType, tmp_path: Path):
    net, _ = toy.train(tmp_path, toy.config())
    again, history = toy.train(tmp_path, toy.config(checkpoint_every=7, threads=None))
    assert history.resumed_from == 60
    assert torch.equal(net[0].weight, again[0].weight)


def test_metrics_cut_short_by_someone_else_are_noticed(toy: ModuleType, tmp_path: Path):
    toy.train(tmp_path, toy.config())
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl has 0 bytes"):
        toy.train(tmp_path, toy.config())
