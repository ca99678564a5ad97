"""What a comparison found: curves, ratios, costs, and on which conditions they stand."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loopwm.files import write_file, write_json
from loopwm.study.compare.audit import Difference
from loopwm.study.compare.gap import Gap
from loopwm.study.compare.terms import REFERENCE
from loopwm.study.results import Sheet
from loopwm.study.strict import plain

# Measures of size, in the order of the tables.
MEASURES = {
    "parameters": "parameters",
    "core_parameters": "parameters of the dynamics",
    "bytes": "bytes",
    "training_flops": "training FLOPs",
    "flops": "FLOPs per step",
    "latency": "latency",
}
# Below this gain in the last quarter of training a validation error counts as at its plateau.
PLATEAU = 0.01


@dataclass(frozen=True)
class Point:
    """Hold one arm at one size, over its seeds.

    Attributes:
        size: Parameters aimed at.
        width: Width chosen for it.
        shape: Index of the chosen shape.
        lr: Chosen learning rate.
        edge: Whether that is the first or last of those tried.
        trials: Trials that chose among.
        seeds: Seeds trained.
        cost: Each measure of size (`MEASURES`), and "seconds" of training.
        plateau: Gain of the validation error in the last quarter, the largest of the seeds.
        validation: Error that the choices were made by.
        rmse: Error by horizon: value and 95% interval over seeds and episodes.
        diverged: Largest share of diverged windows, by horizon.
        envelope: Whether the point is on the lower envelope, which the curve is drawn through.
        shifted: The same as `rmse`, on experience unlike what was trained on, where there is any.
        at_once: Most models that one of them was trained at once with, itself included.
    """

    size: int
    width: int
    shape: int
    lr: float
    edge: bool
    trials: int
    seeds: int
    cost: Mapping[str, float]
    plateau: float | None
    validation: float
    rmse: Mapping[int, tuple[float, float, float]]
    diverged: Mapping[int, float]
    envelope: bool
    shifted: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    at_once: int = 1


@dataclass(frozen=True)
class Beyond:
    """Hold how an arm fares beyond what it was trained on, at one error within.

    Attributes:
        level: Error on experience as trained on.
        growth: Error on shifted experience over it.
        gap: Error on shifted experience over the reference's, both at the level within.
    """

    level: float
    growth: Gap
    gap: Gap


@dataclass(frozen=True)
class Stratum:
    """Hold how an arm compares in some of the test windows, chosen by difficulty.

    Attributes:
        label: Difficulty label.
        third: Which third of the windows by it.
        horizon: Open-loop steps.
        arm: Name of the arm.
        quality: Parameters at equal error over the reference's, at the middle of its errors there.
        matched: Error over the reference's at the parameters of the reference's middle model.
    """

    label: str
    third: str
    horizon: int
    arm: str
    quality: Gap
    matched: Gap


@dataclass(frozen=True)
class ArmReport:
    """Hold one arm.

    Attributes:
        name: Name of the arm.
        label: What tables call it.
        members: Number of models.
        against: Name of the reference with as many members, "" where there is none.
        points: Its sizes, ascending.
    """

    name: str
    label: str
    members: int
    against: str
    points: tuple[Point, ...]

    @property
    def learning(self) -> bool:
        """Say whether a point of the curve was still learning at the end of its training."""
        return self.gain is None or self.gain >= PLATEAU

    @property
    def gain(self) -> float | None:
        """The largest gain of a point of the curve in the last quarter; None where not known."""
        gains = [each.plateau for each in self.points if each.envelope]
        known = [each for each in gains if each is not None]
        return max(known) if known and len(known) == len(gains) else None


# Arm, then horizon, then one gap for each level of error.
BySize = Mapping[str, Mapping[int, tuple[Gap, ...]]]
# Arm, then horizon: the ratio of errors.
ByError = Mapping[str, Mapping[int, Gap]]


@dataclass(frozen=True)
class ComparisonReport:
    """Hold what a comparison of looped with unlooped models found; print it to see it.

    Ratios are the other arm's number over the looped model's: above 1 means that the other needs
    more, or errs more.

    Attributes:
        horizons: Open-loop steps at which arms were compared.
        arms: The arms, the reference first.
        levels: The errors at which sizes are compared, by horizon.
        quality: For each measure of size the ratio at equal error.
        matched: For each measure of size the ratio of errors at the size of the reference's middle
            model.
        beyond: How arms fare on shifted experience, by arm and horizon, for each level of error.
        strata: How arms compare where the test set's difficulty labels are small and large.
        gate: Error of untied cells with the reference's FLOPs over that of one cell with its
            parameters, by horizon: where it is not below 1, depth itself buys nothing.
        differences: Arms that were not given what the others were given; they are in no ratio.
        missing: Models that were not run, or failed.
        notes: How it was measured, in words.
        asked: Number of sizes that every arm was asked for.
    """

    horizons: tuple[int, ...]
    arms: tuple[ArmReport, ...]
    levels: Mapping[int, tuple[float, ...]]
    quality: Mapping[str, BySize]
    matched: Mapping[str, ByError]
    beyond: Mapping[str, Mapping[int, tuple[Beyond, ...]]] = field(default_factory=dict)
    strata: tuple[Stratum, ...] = ()
    gate: Mapping[int, Gap] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    missing: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    asked: int = 0

    @property
    def ratio(self) -> dict[str, dict[int, Gap]]:
        """The headline: parameters at equal error over the looped model's, by arm and horizon.

        Read at the middle one of the levels of error.
        """
        chosen = self.quality["parameters"]
        return {
            arm: {k: gaps[len(gaps) // 2] for k, gaps in by_horizon.items() if gaps}
            for arm, by_horizon in chosen.items()
        }

    @property
    def learning(self) -> tuple[str, ...]:
        """Arms that were still learning: ratios with them do not stand yet."""
        return tuple(each.name for each in self.arms if each.learning)

    def stands(self, arm: str) -> bool:
        """Say whether the ratio of an arm stands: whether nothing speaks against it."""
        against = {each.name: each.against for each in self.arms}[arm]
        return bool(against) and not (self.doubts(arm) or self.doubts(against))

    def doubts(self, arm: str) -> tuple[str, ...]:
        """Say why ratios with an arm do not stand yet; empty where they do."""
        found = {each.name: each for each in self.arms}[arm]
        most = max(point.seeds for each in self.arms for point in each.points)
        lacking = sum(point.seeds < most for point in found.points)
        reasons = {
            "was not given what the others were given": arm in {e.arm for e in self.differences},
            "still learning, or too short to tell": found.learning,
            "one seed: how trainings differ is not known": most == 1,
            f"{self.asked - len(found.points)} sizes missing": len(found.points) < self.asked,
            f"seeds missing at {lacking} sizes": lacking > 0,
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    def gain(self, arm: str) -> float | None:
        """Return how much either of the arms of a ratio gained in the last quarter of training.

        Returns:
            The larger share; below `PLATEAU` the ratio stands. None where it is not known.
        """
        found = {each.name: each for each in self.arms}
        pair = [found[arm], *([found[found[arm].against]] if found[arm].against in found else [])]
        gains = [each.gain for each in pair]
        return None if None in gains else max(each for each in gains if each is not None)

    def sheets(self) -> list[Sheet]:
        """Return the tables."""
        from loopwm.study.compare.tables import sheets_of

        return sheets_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; numbers that are not finite become text."""
        ratio = {
            arm: {k: {**asdict(gap), "stands": self.stands(arm)} for k, gap in each.items()}
            for arm, each in self.ratio.items()
        }
        return plain({"ratio": ratio, "learning": self.learning, **asdict(self)})

    def to_json(self) -> str:
        """Return the report as strict JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def save(self, folder: str | Path) -> list[Path]:
        """Write `report.json`, a CSV file for each table, and the figures if matplotlib is there.

        Args:
            folder: Directory to write to; it is made if needed.

        Returns:
            The files written.
        """
        from loopwm.errors import MissingExtra
        from loopwm.study.canvas import png
        from loopwm.study.compare.figures import figures_of
        from loopwm.study.compare.tables import csv_text

        folder = Path(folder)
        write_json(folder / "report.json", self.to_dict())
        written = [folder / "report.json"]
        for number, sheet in enumerate(self.sheets(), 1):
            path = folder / f"table-{number}.csv"
            write_file(path, csv_text(sheet).encode())
            written.append(path)
        try:
            drawn = {name: png(figure) for name, figure in figures_of(self).items()}
        except MissingExtra:
            return written
        for name, image in drawn.items():
            write_file(folder / f"{name}.png", image)
            written.append(folder / f"{name}.png")
        return written

    def __str__(self) -> str:
        """Return the tables as plain text."""
        from loopwm.study.compare.tables import text_of

        return text_of(self)


def reference_of(members: Mapping[str, int], arm: str) -> str:
    """Return the looped arm that an arm is compared with: the one with as many members, or ""."""
    for name in (REFERENCE, f"{REFERENCE}-ensemble"):
        if name != arm and name in members and members[name] == members[arm]:
            return name
    return ""
