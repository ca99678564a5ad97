"""What is saved of a reasoner comes back, and nothing else is taken for one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loopwm.core.config import PostNorm
from loopwm.errors import StoreError
from loopwm.files import write_tree
from loopwm.reason.presets import PRESETS
from loopwm.reason.stored import decode, encode, load, save


def test_a_reasoner_comes_back_bit_for_bit_with_its_history(config, make, tmp_path: Path):
    model = make(config)
    model.history, model.lesson = [{"update": 1, "loss": 0.5}], "arc"
    save(model, tmp_path / "solver")
    again = load(tmp_path / "solver")
    assert again.config == model.config
    assert (again.history, again.lesson) == (model.history, "arc")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name: str):
    assert decode(encode(PRESETS[name])) == PRESETS[name]


def test_a_cell_that_mixes_no_tokens_survives_json():
    config = replace(PRESETS["arc"], cell=PostNorm(mixer=None))
    assert decode(encode(config)) == config


def test_what_is_no_reasoner_is_refused(config, make, tmp_path: Path):
    with pytest.raises(StoreError, match="train one: loopwm arc train"):
        load(tmp_path / "none")
    write_tree(tmp_path / "other", {}, {"model": {}})
    with pytest.raises(StoreError, match="holds no reasoner"):
        load(tmp_path / "other")
    model = make(config)
    document = {"schema": 99, "config": encode(config), "lesson": ""}
    write_tree(tmp_path / "newer", {"reasoner": {}}, {"reasoner": document, "history": []})
    with pytest.raises(StoreError, match="has schema 99"):
        load(tmp_path / "newer")
    save(model, tmp_path / "solver")
    for file in (tmp_path / "solver").glob("*.safetensors"):
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(bytes(raw))
    with pytest.raises(StoreError, match="damaged"):
        load(tmp_path / "solver")


def test_settings_of_another_version_are_refused(config):
    value = encode(config)
    with pytest.raises(StoreError, match="does not take"):
        decode({**value, "depth": 3})
    with pytest.raises(StoreError, match="does not take"):
        decode({**value, "cell": {**value["cell"], "mixer": {"type": "convolve"}}})


def test_a_table_in_bfloat16_comes_back_as_the_same_numbers(config, make, tmp_path: Path):
    model = make(config).requires_grad_(False)
    table = model.adapter.puzzle.bfloat16()
    model.adapter.hold(table)
    save(model, tmp_path / "solver")
    assert torch.equal(load(tmp_path / "solver").adapter.puzzle, table.float())
