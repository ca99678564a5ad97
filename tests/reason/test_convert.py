"""Published files are read by name and shape, run no code, and are written back byte for byte."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import loopwm as lw
from loopwm.core.config import MixTokens, PostNorm
from loopwm.errors import ConfigError, StoreError
from loopwm.reason.answer import trace
from loopwm.reason.layout import COMPILED
from loopwm.reason.model import Reasoner
from loopwm.reason.presets import PUBLISHED, preset
from loopwm.reason.stored import load
from loopwm.reason.stored import save as keep
from tests.reason.tiny import small


def weights_of(kind: str, prefix: str = COMPILED, length: int = 3) -> dict[str, Tensor]:
    """Return random weights with the names and proportions of published files."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    width, hidden, tokens = 8, 8, 2 + length
    found = {"H_init": randn(width).bfloat16(), "L_init": randn(width).bfloat16()}
    for layer in ("L_level.layers.0", "L_level.layers.1"):
        if kind == "attention":
            found[f"{layer}.self_attn.qkv_proj.weight"] = randn(3 * width, width)
            found[f"{layer}.self_attn.o_proj.weight"] = randn(width, width)
        else:
            found[f"{layer}.mlp_t.gate_up_proj.weight"] = randn(2 * tokens, tokens)
            found[f"{layer}.mlp_t.down_proj.weight"] = randn(tokens, tokens)
        found[f"{layer}.mlp.gate_up_proj.weight"] = randn(2 * hidden, width)
        found[f"{layer}.mlp.down_proj.weight"] = randn(width, hidden)
    found["puzzle_emb.weights"] = randn(6, 10)
    found["embed_tokens.embedding_weight"] = randn(5, width)
    found["lm_head.weight"] = randn(5, width)
    found["q_head.weight"], found["q_head.bias"] = randn(2, width), randn(2)
    return OrderedDict((prefix + name, tensor) for name, tensor in found.items())


def save(weights: dict[str, Tensor], path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(weights, path)
    return path


@pytest.mark.parametrize("prefix", [COMPILED, "model.inner.", "inner.", ""])
@pytest.mark.parametrize("kind", ["attention", "perceptron"])
def test_a_file_comes_back_byte_for_byte(tmp_path: Path, kind: str, prefix: str):
    path = save(weights_of(kind, prefix), tmp_path / "in" / "step_723914")
    model = lw.import_trm(path, small(kind))
    again = tmp_path / "out" / "step_723914"
    lw.export_trm(model, again)
    assert again.read_bytes() == path.read_bytes()
    assert [p.name for p in again.parent.iterdir()] == ["step_723914"]


def test_a_state_dict_that_a_module_made_comes_back_byte_for_byte(tmp_path: Path):
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in weights_of("attention", "").items():
                *folders, last = name.split(".")
                place = self
                for folder in folders:
                    if not hasattr(place, folder):
                        place.add_module(folder, torch.nn.Module())
                    place = place.get_submodule(folder)
                place.register_buffer(last, tensor)

    path = save(Holder().state_dict(), tmp_path / "a" / "model.pt")
    lw.export_trm(lw.import_trm(path, small("attention")), tmp_path / "b" / "model.pt")
    assert (tmp_path / "b" / "model.pt").read_bytes() == path.read_bytes()


def test_safetensors_come_back_byte_for_byte(tmp_path: Path):
    path, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    save_file(weights_of("attention"), path, metadata={"format": "pt"})
    lw.export_trm(lw.import_trm(path, small("attention")), again)
    assert again.read_bytes() == path.read_bytes()


def test_every_weight_lands_where_the_equations_look_for_it(tmp_path: Path, equations, puzzles):
    weights, (tokens, _, ids) = weights_of("attention", ""), puzzles
    model = lw.import_trm(save(weights, tmp_path / "x.pt"), small("attention"))
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    _, logits, q_halt = model.step(model.start(tokens), tokens, ids)
    named = {name: tensor.double() for name, tensor in weights.items()}
    state = equations.begin(named, 5)
    row, first = tokens[0].tolist(), int(ids[0])
    _, expected, verdict = equations.step(named, state, row, first, prefix=2, cycles=2, inner=2)
    # Random weights of size 1 enlarge the roundings of single precision.
    torch.testing.assert_close(logits[0].double(), expected, rtol=2e-3, atol=2e-3)
    assert float(q_halt[0]) == pytest.approx(float(verdict[0]), abs=2e-3)


def test_what_was_learned_of_puzzles_is_mapped_dropped_or_averaged(tmp_path: Path):
    weights = weights_of("attention")
    path, table = save(weights, tmp_path / "x.pt"), weights[COMPILED + "puzzle_emb.weights"]
    kept = lw.import_trm(path, small("attention"))
    assert torch.equal(kept.adapter.puzzle, table)
    assert kept.config.puzzles == 6
    assert is_mapped(kept.adapter.puzzle, path)
    assert not is_mapped(kept.decode.weight, path)
    dropped = lw.import_trm(path, small("attention"), puzzles="drop", num_puzzles=2)
    assert torch.equal(dropped.adapter.puzzle, torch.zeros(2, 10))
    mean = lw.import_trm(path, small("attention"), puzzles="mean", num_puzzles=3)
    torch.testing.assert_close(mean.adapter.puzzle.detach(), table.mean(0).expand(3, 10))
    assert mean.config.puzzles == 3
    lw.export_trm(mean, tmp_path / "mean.pt")
    assert lw.import_trm(tmp_path / "mean.pt", small("attention")).config.puzzles == 3


def is_mapped(tensor: Tensor, path: Path) -> bool:
    """Say whether a tensor lies in a file, by the process's own list of what is mapped."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list what a process has mapped")
    for line in maps.read_text().splitlines():
        begin, _, end = line.split()[0].partition("-")
        if int(begin, 16) <= tensor.data_ptr() < int(end, 16):
            return line.endswith(str(path))
    return False


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_preset_is_found_by_vocabulary_and_mixer(tmp_path: Path, name: str):
    # A narrow copy of the preset has the right names; only its shapes are then refused.
    config = PUBLISHED[name]
    kind = "perceptron" if isinstance(config.cell.mixer, MixTokens) else "attention"
    weights = weights_of(kind)
    weights[COMPILED + "embed_tokens.embedding_weight"] = torch.zeros(config.vocabulary, 8)
    with pytest.raises(StoreError, match=r"must have \(.*512"):
        lw.import_trm(save(weights, tmp_path / "x.pt"))


@pytest.mark.slow
def test_published_shapes_are_read_without_a_configuration(tmp_path: Path):
    made = lw.Reasoner.from_preset("sudoku", num_puzzles=2)
    lw.export_trm(made, tmp_path / "x.pt")
    model = lw.import_trm(tmp_path / "x.pt")
    assert model.config == replace(PUBLISHED["sudoku"], puzzles=2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[name]), name


def test_unknown_missing_and_misshapen_tensors_are_refused_by_name(tmp_path: Path):
    weights = weights_of("attention", "")
    weights["H_level.layers.0.mlp.down_proj.weight"] = torch.zeros(2, 2)
    with pytest.raises(StoreError, match=r"unknown names \['H_level.layers.0.mlp.down_proj"):
        lw.import_trm(save(weights, tmp_path / "a.pt"), small("attention"))
    weights = weights_of("attention", "")
    del weights["q_head.bias"]
    with pytest.raises(StoreError, match=r"missing names \['q_head.bias'\]"):
        lw.import_trm(save(weights, tmp_path / "b.pt"), small("attention"))
    weights = weights_of("attention", "")
    weights["lm_head.weight"] = torch.zeros(5, 9)
    with pytest.raises(StoreError, match=r"lm_head.weight has shape \(5, 9\).*must have \(5, 8\)"):
        lw.import_trm(save(weights, tmp_path / "c.pt"), small("attention"))
    longer = small("perceptron", cell=PostNorm(MixTokens(), expand=1.5, multiple=1), length=4)
    with pytest.raises(StoreError, match=r"layers.0.mlp_t.gate_up_proj.weight has shape \(10, 5\)"):
        lw.import_trm(save(weights_of("perceptron"), tmp_path / "d.pt"), longer)
    with pytest.raises(StoreError, match="a vocabulary of 5, which no preset has"):
        lw.import_trm(save(weights_of("attention"), tmp_path / "e.pt"))


@pytest.mark.usefixtures("without_shape_checks")
def test_what_is_to_become_of_puzzles_is_checked():
    with pytest.raises(ConfigError, match='puzzles must be "keep", "drop" or "mean", got \'foo\''):
        lw.import_trm("nowhere.pt", puzzles="foo")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="num_puzzles must be at least 1, got 0"):
        lw.import_trm("nowhere.pt", puzzles="drop", num_puzzles=0)


@pytest.mark.parametrize("name", ["sudoku-4x4", "sudoku-6x6", "maze-9", "region-10"])
def test_the_preset_of_a_small_lesson_is_found_by_its_shapes(tmp_path: Path, name: str):
    lw.export_trm(lw.Reasoner.from_preset(name, num_puzzles=2), tmp_path / "x.pt")
    assert lw.import_trm(tmp_path / "x.pt").config == replace(preset(name), puzzles=2)


class Runs:
    def __reduce__(self):
        return print, ("code has run",)


def test_files_that_hold_code_or_something_else_are_refused(tmp_path: Path, capsys):
    torch.save({"H_init": Runs()}, tmp_path / "code.pt")
    with pytest.raises(StoreError, match="files that hold more than tensors are refused"):
        lw.import_trm(tmp_path / "code.pt")
    assert "code has run" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(StoreError, match="does not hold tensors by name, but list"):
        lw.import_trm(tmp_path / "list.pt")
    (tmp_path / "text").write_text("nothing of the kind")
    with pytest.raises(StoreError, match=r"is neither a file of torch\.save nor of safetensors"):
        lw.import_trm(tmp_path / "text")
    with pytest.raises(StoreError, match="cannot read"):
        lw.import_trm(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_cut_short_is_damaged(tmp_path: Path, suffix: str):
    path = tmp_path / f"x.{suffix}"
    weights = weights_of("attention")
    torch.save(weights, path) if suffix == "pt" else save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(StoreError, match="is damaged"):
        lw.import_trm(path, small("attention"))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_model_made_here_answers_the_same_after_export_and_import(
    tmp_path: Path, config, make, puzzles, suffix: str
):
    made, (tokens, _, ids) = make(config), puzzles
    lw.export_trm(made, tmp_path / f"x.{suffix}")
    again = lw.import_trm(tmp_path / f"x.{suffix}", config)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, made.state_dict()[name]), name
    ours, theirs = (each.step(each.start(tokens), tokens, ids)[1] for each in (made, again))
    # Same numbers, of which those that have a gradient may be summed in another order.
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-5, atol=1e-6)
    # What was imported in float32 is written so, too.
    lw.export_trm(again, tmp_path / "out" / f"x.{suffix}")
    written = (tmp_path / "out" / f"x.{suffix}").read_bytes()
    assert written == (tmp_path / f"x.{suffix}").read_bytes()


def test_a_start_that_bfloat16_holds_is_written_in_it_and_another_is_not(tmp_path: Path, make):
    model = make(small("perceptron"))
    start = model.get_buffer("start_answer")
    start.copy_(start.bfloat16())
    lw.export_trm(model, tmp_path / "x.pt")
    stored = torch.load(tmp_path / "x.pt", weights_only=True)
    assert stored[COMPILED + "H_init"].dtype == torch.bfloat16
    assert stored[COMPILED + "L_init"].dtype == torch.float32


def test_a_published_file_that_was_saved_here_in_between_keeps_its_formats(tmp_path: Path):
    path = save(weights_of("attention"), tmp_path / "x.pt")
    keep(lw.import_trm(path, small("attention")), tmp_path / "kept")
    lw.export_trm(load(tmp_path / "kept"), tmp_path / "y.pt")
    stored = torch.load(tmp_path / "y.pt", weights_only=True)
    for name, tensor in torch.load(path, weights_only=True).items():
        assert stored[name].dtype == tensor.dtype
        assert torch.equal(stored[name], tensor), name


def test_a_new_model_is_written_as_the_reference_saves_one(tmp_path: Path, make):
    model = make(small("perceptron"))
    for name in ("start_answer", "start_thought"):
        # The reference draws them so.
        model.get_buffer(name).copy_(model.get_buffer(name).bfloat16())
    lw.export_trm(model, tmp_path / "x.pt")
    lw.export_trm(model, tmp_path / "x.safetensors")
    stored = torch.load(tmp_path / "x.pt", weights_only=True)
    assert stored.keys() == weights_of("perceptron").keys()
    assert stored[COMPILED + "H_init"].dtype == torch.bfloat16
    for name, tensor in load_file(tmp_path / "x.safetensors").items():
        assert torch.equal(tensor, stored[name])


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize(
    "changes", [{"cycles": 5}, {"inner": 1}, {"cell": small("perceptron").cell}]
)
def test_a_reasoner_made_here_comes_back_with_its_sizes(tmp_path: Path, name: str, changes: dict):
    model = Reasoner(small("attention", **changes), 0)
    lw.export_trm(model, tmp_path / name)
    again = lw.import_trm(tmp_path / name)
    assert again.config == model.config
    asked = torch.randint(0, 5, (4, 3))
    one, two = (trace(each, asked, steps=2) for each in (model, again))
    assert torch.equal(one.confidence, two.confidence)
    # What is imported once more is written as it was.
    (tmp_path / "again").mkdir()
    lw.export_trm(again, tmp_path / "again" / name)
    assert lw.import_trm(tmp_path / "again" / name).config == model.config


def test_what_is_no_trm_is_not_exported_as_one(tmp_path: Path):
    for changes in ({"inner": 0}, {"cell": replace(small("attention").cell, mixer=None)}):
        with pytest.raises(ConfigError, match="a TRM mixes its tokens"):
            lw.export_trm(Reasoner(small("attention", **changes), 0), tmp_path / "file.pt")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    weights = weights_of("attention")
    weights[COMPILED + "lm_head.weight"][0, 0] = float("nan")
    path = save(weights, tmp_path / "file.pt")
    with pytest.raises(StoreError, match=r"1 numbers of lm_head\.weight"):
        lw.import_trm(path, small("attention"))
    weights = weights_of("attention")
    weights[COMPILED + "puzzle_emb.weights"][0, 0] = float("inf")
    path = save(weights, tmp_path / "table.pt")
    with pytest.raises(StoreError, match=r"numbers of puzzle_emb\.weights"):
        lw.import_trm(path, small("attention"), puzzles="mean")


def test_a_number_of_puzzles_that_would_be_ignored_is_refused(tmp_path: Path):
    path = save(weights_of("attention"), tmp_path / "file.pt")
    with pytest.raises(ConfigError, match='num_puzzles needs puzzles="drop"'):
        lw.import_trm(path, small("attention"), num_puzzles=7)


def test_old_and_wrapped_files_are_told_what_to_do(tmp_path: Path):
    path = tmp_path / "file.pt"
    torch.save(weights_of("attention"), path, _use_new_zipfile_serialization=False)
    with pytest.raises(StoreError, match=r"before torch 1\.6"):
        lw.import_trm(path)
    torch.save({"model": weights_of("attention"), "step": 3}, path)
    with pytest.raises(StoreError, match="under 'model' it does"):
        lw.import_trm(path)
