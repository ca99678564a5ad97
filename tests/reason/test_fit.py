"""Training a reasoner: it learns, resumes bit for bit, and refuses what does not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from loopwm.core.loop import LoopedCore
from loopwm.errors import CheckpointError, ConfigError, DataError
from loopwm.files import read_tree
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.check import check_puzzles
from loopwm.reason.config import Halting
from loopwm.reason.evaluate import accuracy
from loopwm.reason.fit import fit
from loopwm.reason.model import Reasoner
from loopwm.train.checkpoint import checkpoints
from loopwm.train.compiled import compiled_cells
from loopwm.train.config import AdamATan2, FitConfig, SignSGD
from tests.reason.echo import Reversed, held_out
from tests.reason.tiny import small

SETTINGS = FitConfig(
    updates=12,
    batch_size=4,
    lr=1e-3,
    clip=None,
    ema=0.9,
    final_lr=1.0,
    optimizer=AdamATan2(rows=SignSGD(1e-2, 0.1)),
    device="cpu",
    checkpoint_every=5,
    validate_every=6,
    log_every=4,
    progress=False,
)
RULE = Halting(max_steps=3, explore=0.5, rise=0.5)


class Died(BaseException):
    """Stand for a death that leaves no time for anything."""


class Dying(Reversed):
    """Draw the same puzzles, and die at a draw."""

    def __init__(self, at: int) -> None:
        self.left = at

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        self.left -= 1
        if self.left < 0:
            raise Died
        return super().sample(generator, count)


Dying.__name__ = Reversed.__name__


def trained(source: Reversed, run_dir: Path | None = None, **changes) -> Reasoner:
    config = replace(SETTINGS, **changes)
    return fit(
        source,
        small("attention"),
        config,
        halting=RULE,
        valid=held_out(),
        run_dir=run_dir,
    )


def test_a_run_that_died_ends_bit_for_bit_like_a_whole_one(tmp_path: Path):
    whole = trained(Reversed(), tmp_path / "whole")
    with pytest.raises(Died):
        # The first draw tells sources apart; further ones fill slots.
        trained(Dying(at=5), tmp_path / "again")
    assert checkpoints(tmp_path / "again")[0].name == "000000005"
    resumed = trained(Reversed(), tmp_path / "again")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    trees = [read_tree(checkpoints(tmp_path / name)[0]) for name in ("whole", "again")]
    groups = [tree.arrays for tree in trees]
    assert {"module", "average", "optimizer", "random"} <= groups[0].keys()
    # Slots with their latents, the average, both optimisers, every generator.
    assert {"latent_0", "latent_1", "tokens", "steps", "halted"} <= groups[0]["module"].keys()
    for group, arrays in groups[0].items():
        for key, array in arrays.items():
            assert array.tobytes() == groups[1][group][key].tobytes(), (group, key)


def test_another_source_or_rule_does_not_go_on_with_a_run(tmp_path: Path):
    trained(Reversed(), tmp_path)

    class Other(Reversed):
        def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
            batch = super().sample(generator, count)
            return replace(batch, labels=batch.tokens)

    with pytest.raises(CheckpointError, match=r"documents\.source"):
        trained(Other(), tmp_path)
    with pytest.raises(CheckpointError, match=r"documents\.halting\.max_steps was 3 and is now 5"):
        fit(
            Reversed(),
            small("attention"),
            SETTINGS,
            halting=replace(RULE, max_steps=5),
            valid=held_out(),
            run_dir=tmp_path,
        )


def test_only_rows_of_puzzles_that_were_seen_are_trained():
    before = Reasoner(small("attention"), SETTINGS.seed).adapter.puzzle.detach()
    after = trained(Reversed()).adapter.puzzle
    assert torch.equal(after[5], before[5])
    assert bool((after[:5] != before[:5]).any(1).all())


def test_training_learns_and_validation_is_the_share_of_wrong_answers():
    model = fit(
        Reversed(),
        small("attention", cycles=1),
        replace(SETTINGS, updates=300, batch_size=32, lr=5e-3, validate_every=150, ema=0.99),
        halting=Halting(4, rise=0.5),
        valid=held_out(),
    )
    checks = [r["validation"] for r in model.history if "validation" in r]
    assert len(checks) == 2
    score = accuracy(model, held_out(), steps=4)
    assert checks[-1] == pytest.approx(1 - score.exact.value)
    # By chance one answer of 125 is right, and thirty of 1,024 never are; what 64 held-out answers
    # say of training differs from one processor to another by as much as training gains.
    many = Reversed().sample(torch.Generator().manual_seed(5), 1024)
    assert accuracy(model, many, steps=4).exact.right >= 30


def test_training_goes_on_from_given_weights():
    first = trained(Reversed())
    again = fit(Reversed(), first.config, replace(SETTINGS, updates=1, lr=1e-9), init=first)
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=2e-2, rtol=0)
    with pytest.raises(ConfigError, match="init has other sizes"):
        fit(Reversed(), small("attention", inner=3), SETTINGS, init=first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": 7}, r"vocabulary=5, the reasoner vocabulary=7.*vocabulary=5"),
        ({"length": 4}, r"length=3, the reasoner length=4"),
        ({"puzzles": 2}, r"6 puzzle ids, the reasoner 2: choose ReasonerConfig\(puzzles=6\)"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(changes: dict, message: str):
    with pytest.raises(DataError, match=message):
        fit(Reversed(), small("attention", **changes), SETTINGS)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("tokens", lambda each: each + 1, r"tokens must be in \[0, 5\), got values from 1 to 5"),
        ("tokens", lambda each: each[:, :2], "puzzles have 2 tokens, the reasoner is for 3"),
        ("tokens", lambda each: each.float(), r"tokens must be whole numbers, got torch\.float32"),
        ("labels", lambda each: each + 9, r"labels must be in \[0, 5\)"),
        ("labels", lambda each: each[:, :2], "every token needs a label"),
        ("puzzle_ids", lambda each: each + 6, r"puzzle_ids must be in \[0, 6\)"),
    ],
)
def test_what_a_source_draws_is_looked_at_before_training(name: str, changed: Any, message: str):
    class Mistaken(Reversed):
        def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
            batch = super().sample(generator, count)
            return replace(batch, **{name: changed(getattr(batch, name))})

    with pytest.raises(DataError, match=message):
        fit(Mistaken(), small("attention"), SETTINGS)


def test_a_run_that_began_from_given_weights_goes_on_from_those_alone(tmp_path: Path):
    first, other = (Reasoner(small("attention"), seed) for seed in (1, 2))

    def go_on(init: Reasoner | None) -> Reasoner:
        return fit(Reversed(), small("attention"), SETTINGS, run_dir=tmp_path, init=init)

    go_on(first)
    go_on(first)
    for init in (other, None):
        with pytest.raises(CheckpointError, match=r"documents\.init was '\w+' and is now"):
            go_on(init)


def test_training_goes_on_from_a_table_in_bfloat16(tmp_path: Path):
    first = Reasoner(small("attention"), 1).requires_grad_(False)
    first.adapter.hold(first.adapter.puzzle.bfloat16())
    model = fit(Reversed(), small("attention"), SETTINGS, run_dir=tmp_path, init=first)
    assert model.adapter.puzzle.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tokens", 5, r"tokens must be in \[0, 5\), got values from 0 to 5"),
        ("labels", 9, r"labels must be in \[0, 5\)"),
        ("puzzle_ids", -1, r"puzzle_ids must be in \[0, 6\), got values from -1"),
    ],
)
def test_puzzles_out_of_range_are_refused(name: str, value: int, message: str):
    puzzles = held_out()
    getattr(puzzles, name)[0] = value
    with pytest.raises(DataError, match=message):
        check_puzzles(puzzles, small("attention"))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("name", ["tokens", "labels", "puzzle_ids"])
def test_of_whole_numbers_those_that_tables_are_looked_up_by_are_taken(name: str):
    class Drawn(Reversed):
        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

        def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
            batch = super().sample(generator, count)
            return replace(batch, **{name: getattr(batch, name).to(self.dtype)})

    for dtype in (torch.uint8, torch.int8, torch.int16):
        with pytest.raises(DataError, match=rf"{name} must be whole numbers, got {dtype}"):
            fit(Drawn(dtype), small("attention"), SETTINGS)
    usual = fit(Drawn(torch.int64), small("attention"), SETTINGS).state_dict()
    for key, tensor in fit(Drawn(torch.int32), small("attention"), SETTINGS).state_dict().items():
        assert torch.equal(tensor, usual[key]), key


def test_no_puzzles_and_puzzles_of_another_length_are_refused():
    with pytest.raises(DataError, match="there are no puzzles"):
        check_puzzles(held_out(0), small("attention"))
    with pytest.raises(DataError, match="puzzles have 3 tokens, the reasoner is for 4"):
        check_puzzles(held_out(), small("attention", length=4))


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore")  # of the compiler itself
def test_a_compiled_run_is_the_eager_one_but_for_rounding_and_leaves_a_plain_cell():
    torch.compiler.reset()
    eager, compiled = (
        fit(
            Reversed(),
            small("perceptron", puzzles=6),
            replace(SETTINGS, compiled=compiled),
            halting=RULE,
            valid=held_out(),
        )
        for compiled in (False, True)
    )
    for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert "forward" not in vars(compiled.core.cell)
    shared = LoopedCore(compiled.core.cell)
    with compiled_cells(torch.nn.ModuleList([shared, compiled.core])):
        assert "forward" in vars(shared.cell)
    assert "forward" not in vars(shared.cell)
    assert set(compiled.state_dict()) == set(eager.state_dict())


class Spoiling(nn.Module):
    """Stand before a cell, and return NaN at one of its calls."""

    def __init__(self, cell: nn.Module, at: int) -> None:
        super().__init__()
        self.forward_of, self.left = cell.forward, at

    def forward(self, *args: Any, **more: Any) -> Any:
        self.left -= 1
        found = self.forward_of(*args, **more)
        return found * float("nan") if self.left == 0 else found


def test_an_update_that_is_not_finite_costs_its_puzzles_and_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    begun = Reasoner.__init__

    def spoiled(self: Reasoner, *args: Any) -> None:
        begun(self, *args)
        cell = self.core.cell
        monkeypatch.setattr(cell, "forward", Spoiling(cast(nn.Module, cell), 30).forward)

    monkeypatch.setattr(Reasoner, "__init__", spoiled)
    model = fit(
        Reversed(),
        small("attention"),
        replace(SETTINGS, updates=30, checkpoint_every=10),
        halting=Halting(16),
        run_dir=tmp_path,
    )
    assert model.history[-1]["skipped"] == 1


class Straying(Reversed):
    """Draw what fits at first, and a number out of range later."""

    def __init__(self, column: str) -> None:
        self.draws, self.column = 0, column

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        self.draws += 1
        batch = super().sample(generator, count)
        if self.draws > 2:
            getattr(batch, self.column)[0] = 11
        return batch


@pytest.mark.parametrize("column", ["tokens", "labels", "puzzle_ids"])
def test_what_is_drawn_late_is_looked_at_too(column: str):
    with pytest.raises(DataError, match=column):
        fit(Straying(column), small("attention"), SETTINGS, halting=Halting(1))


def test_puzzles_of_which_nothing_is_asked_are_no_puzzles():
    batch = held_out()
    batch.labels[1::2] = -100
    with pytest.raises(DataError, match="32 of 64 puzzles have no label"):
        check_puzzles(batch, small("attention"))
    with pytest.raises(DataError, match="32 of 64 puzzles have no label"):
        accuracy(Reasoner(small("attention"), 0), batch)


@pytest.mark.usefixtures("without_shape_checks")
def test_halting_must_be_a_rule():
    with pytest.raises(ConfigError, match="halting must be a Halting"):
        fit(Reversed(), small("attention"), SETTINGS, halting=4)  # pyright: ignore[reportArgumentType]
