"""The experience that a comparison over tasks trains and tests on, collected once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwm.data.environment import make
from loopwm.data.standard import collect_standard
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.study.compare.excited import collect_excited
from loopwm.study.compare.grid import collect_grid
from loopwm.study.compare.shifts import SHIFTS, cut
from loopwm.study.datasets import SEEDS, Split

# The tasks whose policies ship.
STANDARD = ("Hopper-v5", "HalfCheetah-v5")
# Contact forces are 78 dimensions that no model of the state can be asked for.
_KWARGS: dict[str, dict[str, Any]] = {"Ant-v5": {"include_cfrc_ext_in_observation": False}}


@dataclass(frozen=True)
class Place:
    """Name what a comparison is trained and tested on.

    Attributes:
        task: Gymnasium id.
        skip: Control interval, in multiples of the task's own.
        rows: Transitions trained on; a twentieth of the episodes watches the training.
        valid_rows: Transitions that choices are made by.
        test_rows: Transitions that are reported.
        mixture: "standard" for the standard mixture where policies ship, "models" for excitation
            of other models of the task (`loopwm.study.compare.grid`); else, and where no policies
            ship, excitations alone.
        shift: Name of what is kept from training (`loopwm.study.compare.shifts.SHIFTS`), or "".
    """

    task: str
    skip: int
    rows: int
    valid_rows: int
    test_rows: int
    mixture: str
    shift: str = ""

    @property
    def name(self) -> str:
        """Name the place for people and files."""
        return self.data_name + (f"_{self.shift}" if self.shift else "")

    @property
    def data_name(self) -> str:
        """Name what is collected, the same for every shift of it."""
        task = self.task.replace("/", "-").replace(":", "-")
        return f"{task}_skip{self.skip}_n{self.rows}_{self.kind}"

    @property
    def source(self) -> str:
        """Return the id that Gymnasium makes the task by, even if nothing has registered it yet."""
        return f"loopwm_envs:{self.task}" if self.task.startswith("loopwm/") else self.task

    @property
    def kind(self) -> str:
        """Name what is collected: "standard", "excited" or "models"."""
        if self.mixture == "models":
            return "models"
        return "standard" if self.standard else "excited"

    @property
    def standard(self) -> bool:
        """Say whether the standard mixture is to be had and wanted."""
        return self.mixture == "standard" and self.task in STANDARD and self.skip == 1


def experience(
    place: Place, folder: Path, report: Callable[[str], None] = lambda line: None
) -> Split:
    """Load the experience of a place, or collect and keep it.

    Args:
        place: What is wanted.
        folder: Where it is kept.
        report: Receives a line for each part that is collected.
    """
    sizes = {"train": place.rows, "valid": place.valid_rows, "test": place.test_rows}
    parts = {}
    for part, rows in sizes.items():
        path = folder / f"{place.data_name}_{part}{rows}"
        if not path.exists():
            report(f"collecting {rows:,} transitions of {place.task} ({part}, {place.kind})")
            # Two processes may both collect it: the rows are the same, and saving is atomic.
            _collected(place, part, rows).save(path)
        parts[part] = RolloutDataset.load(path)
    if place.shift:
        parts = cut(parts, SHIFTS[place.shift])
    train, held = parts["train"].split(0.95, seed=0)
    return Split(train, held, parts["valid"], parts["test"], parts.get("shifted"))


def _collected(place: Place, part: str, rows: int) -> RolloutDataset:
    if place.standard:
        return collect_standard(place.task, rows, SEEDS[part], part)
    kwargs = _KWARGS.get(place.task, {})
    if place.skip > 1:
        kwargs = {**kwargs, "frame_skip": place.skip * _frame_skip(place.source)}
    if place.kind == "models":
        return collect_grid(place.task, rows, SEEDS[part], kwargs)
    return collect_excited(place.source, rows, SEEDS[part], kwargs)


def _frame_skip(source: str) -> int:
    env = make(source)
    skip = getattr(env.unwrapped, "frame_skip", None)
    env.close()
    if skip is None:
        raise ConfigError(f"skips: {source} has no frame_skip to multiply; use skips = [1] for it")
    return int(skip)
