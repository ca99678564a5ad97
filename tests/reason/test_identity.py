"""What tells trainings of a reasoner apart, so that a stopped one goes on only as it began."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from loopwm.errors import CheckpointError
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.config import Halting
from loopwm.reason.fit import fit
from loopwm.train.config import AdamATan2, FitConfig
from tests.reason.echo import Reversed, held_out
from tests.reason.tiny import small

SETTINGS = FitConfig(
    updates=2, batch_size=4, lr=1e-3, optimizer=AdamATan2(), device="cpu", progress=False
)


def run(source: Reversed, run_dir: Path, valid: PuzzleBatch | None = None) -> None:
    fit(source, small("attention"), SETTINGS, halting=Halting(2), valid=valid, run_dir=run_dir)


class Late(Reversed):
    """Draw other puzzles, but for the first ones."""

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        batch = super().sample(generator, count)
        batch.labels[9:] = 0
        return batch


class Renumbered(Reversed):
    """Draw the same puzzles under other ids."""

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        batch = super().sample(generator, count)
        return replace(batch, puzzle_ids=4 - batch.puzzle_ids)


class Fewer(Reversed):
    """Have no id that is never drawn."""

    num_puzzles = 5


@dataclass(frozen=True)
class Set(Reversed):
    """Say in a setting what the first puzzles do not show."""

    rare: float = 0.0


for each in (Late, Renumbered, Fewer):
    each.__name__ = Reversed.__name__


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (Reversed(), Late(), r"first was '\w+' and is now"),
        (Reversed(), Renumbered(), r"first was '\w+' and is now"),
        (Reversed(), Fewer(), "num_puzzles was 6 and is now 5"),
        (Set(), Set(rare=0.5), r"settings\.rare was '0\.0' and is now '0\.5'"),
    ],
)
def test_a_source_is_told_apart_by_its_puzzles_ids_and_settings(
    before: Reversed, after: Reversed, named: str, tmp_path: Path
):
    run(before, tmp_path)
    with pytest.raises(CheckpointError, match=rf"documents\.source\.{named}"):
        run(after, tmp_path)


def test_other_held_out_puzzles_do_not_go_on_with_a_run(tmp_path: Path):
    run(Reversed(), tmp_path, held_out())
    for valid in (held_out(63), None):
        with pytest.raises(CheckpointError, match=r"documents\.valid was '\w+' and is now"):
            run(Reversed(), tmp_path, valid)
