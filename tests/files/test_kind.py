"""Saving never puts one thing in the place of another."""

import re
from pathlib import Path

import numpy as np
import pytest

from loopwm.errors import StoreError
from loopwm.files import kind_at, read_tree, write_tree

DOCUMENTS = {
    "a dataset": ["dataset"],
    "a world model": ["model", "history-0"],
    "a reasoner": ["reasoner", "history"],
    "a world model and a reasoner that share a core": ["model", "history-0", "reasoner", "history"],
    "a checkpoint": ["identity", "progress"],
    "a checkpoint of an agent": ["identity", "run", "learner"],
    "something else that was saved": ["shape"],
}


def save(path: Path, kind: str, value: float) -> None:
    write_tree(path, {"t": {"x": np.array(value)}}, dict.fromkeys(DOCUMENTS[kind], value))


def bytes_in(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir()}


@pytest.mark.parametrize("there", DOCUMENTS)
def test_a_tree_is_replaced_by_its_own_kind_alone(tmp_path: Path, there: str):
    save(tmp_path, there, 1)
    before = bytes_in(tmp_path)
    for new in DOCUMENTS.keys() - {there}:
        words = f"holds {there}, which {new} would replace: choose another folder"
        with pytest.raises(StoreError, match=re.escape(words)):
            save(tmp_path, new, 2)
        assert bytes_in(tmp_path) == before
    assert kind_at(tmp_path) == there
    save(tmp_path, there, 3)
    assert read_tree(tmp_path).tensors("t")["x"] == 3


def test_a_manifest_of_something_else_is_kept(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"name": "a web application"}')
    with pytest.raises(StoreError, match="will not be replaced"):
        save(tmp_path, "a dataset", 1)
    assert "web" in (tmp_path / "manifest.json").read_text()


@pytest.mark.parametrize("text", ["name: a web application\n", "{"])
def test_a_manifest_of_another_program_is_kept_though_it_is_not_json(tmp_path: Path, text: str):
    (tmp_path / "manifest.json").write_text(text)
    before = bytes_in(tmp_path)
    with pytest.raises(StoreError, match="will not be replaced"):
        save(tmp_path, "a world model", 1)
    assert bytes_in(tmp_path) == before


def test_a_damaged_tree_may_be_saved_again(tmp_path: Path):
    save(tmp_path, "a dataset", 1)
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:40])
    assert kind_at(tmp_path) is None
    save(tmp_path, "a dataset", 2)
    assert read_tree(tmp_path).tensors("t")["x"] == 2
