"""From the cells of a comparison to its tables: errors, ratios, parameters, plateau, parts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loopwm.study.accuracy import PredictionReport
from loopwm.study.arms import ARMS
from loopwm.study.paired import error_ratio
from loopwm.study.results import Column, Sheet

Result = Mapping[str, Any]

REFERENCE = "looped"


@dataclass(frozen=True)
class Group:
    """Hold the cells of one arm: the same model from several seeds.

    Attributes:
        arm: Name of the arm.
        label: What tables call it.
        results: The cells' results.
        reports: Their evaluations, in the same order.
    """

    arm: str
    label: str
    results: tuple[Result, ...]
    reports: tuple[PredictionReport, ...]


def group_cells(finals: Mapping[str, Result], of: int = 0) -> list[Group]:
    """Group finished cells by arm, seeds ascending.

    Trainings that failed were not measured: the label says how many, wherever it stands.

    Args:
        finals: Results by cell name.
        of: Seeds that were to be run; where fewer were, the label says how many.
    """
    by_arm: dict[str, list[Result]] = {}
    failed: Counter[str] = Counter()
    for result in finals.values():
        arm = result["cell"]["arm"]
        if "report" in result:
            by_arm.setdefault(arm, []).append(result)
        else:
            failed[arm] += 1
    groups = []
    for arm, results in by_arm.items():
        ordered = tuple(sorted(results, key=lambda each: each["cell"]["seed"]))
        reports = tuple(PredictionReport.from_dict(each["report"]) for each in ordered)
        label = ordered[0]["label"]
        if failed[arm]:
            label += f" ({failed[arm]} of {failed[arm] + len(ordered)} seeds failed)"
        if failed[arm] + len(ordered) < of:
            label += f" ({failed[arm] + len(ordered)} of {of} seeds run)"
        groups.append(Group(arm, label, ordered, reports))
    return groups


def otherwise(groups: Sequence[Group], way: str) -> list[Group]:
    """Return the same arms with their evaluations in another way of imagining.

    Args:
        groups: The arms; those without such an evaluation are left out.
        way: "free", held to no range, or "latent", feeding back the latent state alone.
    """
    return [
        replace(
            group,
            reports=tuple(
                replace(PredictionReport.from_dict(each["also"][way]), references={})
                for each in group.results
            ),
        )
        for group in groups
        if all(way in each["also"] for each in group.results)
    ]


def over_seeds(
    groups: Sequence[Group], horizons: Sequence[int], part: str = "", title: str = ""
) -> Sheet:
    """Make the table of errors: a row for each arm, mean over seeds [lowest, highest].

    Args:
        groups: The arms.
        horizons: Columns of RMSE.
        part: Part of the mixture, or "" for all of it.
        title: Title of the table; by default the part.
    """
    columns = [Column("model")]
    columns += [Column(f"rmse_{k}", f"k={k}") for k in horizons]
    columns += [Column(f"change_{k}", f"k={k}, change") for k in horizons]
    columns += [Column("diverged", "diverged")]
    rows = []
    for group in groups:
        reports = [_part(report, part) for report in group.reports]
        row: dict[str, Any] = {"model": group.label}
        for k in horizons:
            row[f"rmse_{k}"] = spread([report.rmse[k] for report in reports])
            row[f"change_{k}"] = spread([report.rmse_change[k] for report in reports])
        row["diverged"] = max(max(report.diverged.values()) for report in reports)
        rows.append(row)
    if groups:
        rows += _reference_rows(groups[0], horizons, part)
    return Sheet(title or part or "all parts", tuple(columns), tuple(rows))


def medians(
    groups: Sequence[Group],
    horizons: Sequence[int],
    title: str = "median window [quartiles]",
) -> Sheet:
    """Make the table of the typical window: median error, which a few diverged ones do not move.

    Args:
        groups: The arms.
        horizons: Columns: for each the median [quartiles], both averaged over seeds.
        title: Title of the table.
    """
    columns = [Column("model"), *(Column(f"median_{k}", f"k={k}") for k in horizons)]
    rows = []
    for group in groups:
        row: dict[str, Any] = {"model": group.label}
        for k in horizons:
            ends = np.array([report.quartiles[k] for report in group.reports]).mean(axis=0)
            middle = float(np.mean([report.median[k] for report in group.reports]))
            row[f"median_{k}"] = [middle, float(ends[0]), float(ends[1])]
        rows.append(row)
    return Sheet(title, tuple(columns), tuple(rows))


def costs(groups: Sequence[Group], trials: Mapping[str, Result] | None = None) -> Sheet:
    """Make the table of what each arm costs and whether it had stopped learning.

    Args:
        groups: The arms.
        trials: The trials that chose learning rate and shape, by cell name.
    """
    labels = {
        "model": "model",
        "parameters": "parameters",
        "core": "of them dynamics",
        "flops": "FLOPs per step",
        "trials": "trials",
        "lr": "learning rate",
        "updates": "updates",
        "seconds": "training, s (median)",
        "plateau": "gain in the last quarter",
    }
    tried = Counter(_family(each["cell"]["arm"]) for each in (trials or {}).values())
    rows = []
    for group in groups:
        first = group.results[0]
        gains = [each["plateau"] for each in group.results if each["plateau"] is not None]
        rows.append(
            {
                "model": group.label,
                "parameters": first["parameters"],
                "core": first["core_parameters"],
                "flops": first["flops"],
                "trials": tried[_family(group.arm)],
                "lr": f"{first['cell']['lr']:g}",
                "updates": first["cell"]["updates"],
                "seconds": float(np.median([each["seconds"] for each in group.results])),
                "plateau": None if not gains else f"{100 * max(gains):.2g}%",
            }
        )
    columns = tuple(Column(name, label) for name, label in labels.items())
    return Sheet("cost and plateau", columns, tuple(rows))


def ratios(groups: Sequence[Group], horizons: Sequence[int], against: str = REFERENCE) -> Sheet:
    """Make the table of RMSE over that of one arm, on the same windows.

    Above 1 means worse than that arm.

    Args:
        groups: The arms.
        horizons: Columns.
        against: The arm that all are compared with.
    """
    columns = [Column("model"), *(Column(f"ratio_{k}", f"k={k}") for k in horizons)]
    base = next((group for group in groups if group.arm == against), None)
    rows = []
    for group in groups if base is not None else ():
        if group is base or base is None:
            continue
        row: dict[str, Any] = {"model": group.label}
        row |= {f"ratio_{k}": error_ratio(group.reports, base.reports, k) for k in horizons}
        rows.append(row)
    label = against if base is None else base.label
    title = f"RMSE over that of: {label} [95%, seeds and episodes drawn anew]"
    return Sheet(title, tuple(columns), tuple(rows))


def spreads(groups: Sequence[Group], horizons: Sequence[int]) -> Sheet:
    """Make the table of how well the stated spread fits, mean over seeds [lowest, highest].

    Args:
        groups: The arms; those that state no spread are left out.
        horizons: Rows for each arm.
    """
    names = ("nll", "coverage", "spearman", "spearman_disagreement")
    labels = ("NLL", "90% coverage", "rank correlation of error with spread", "with disagreement")
    rows = []
    for group in groups:
        for k in horizons:
            scores = [each.uncertainty[k] for each in group.reports if k in each.uncertainty]
            if scores:
                row: dict[str, Any] = {"model": group.label, "k": k}
                row |= {name: spread([getattr(each, name) for each in scores]) for name in names}
                rows.append(row)
    columns = (Column("model"), Column("k"), *map(Column, names, labels))
    return Sheet("stated spread", columns, tuple(rows))


def heads(groups: Sequence[Group], horizons: Sequence[int]) -> Sheet:
    """Make the table of rewards and termination, mean over seeds [lowest, highest].

    Termination is scored one step ahead, on the steps at which an episode could have ended.

    Args:
        groups: The arms.
        horizons: Columns of the error of the reward.
    """
    columns = [Column("model"), *(Column(f"reward_{k}", f"reward, k={k}") for k in horizons)]
    columns += [Column("auroc", "termination, AUROC"), Column("brier", "Brier score")]
    columns += [Column("base", "Brier score of the share"), Column("events", "terminal steps")]
    rows = []
    for group in groups:
        row: dict[str, Any] = {"model": group.label}
        row |= {f"reward_{k}": spread([each.reward[k] for each in group.reports]) for k in horizons}
        scores = [each.termination for each in group.reports if each.termination is not None]
        if scores:
            row["auroc"] = spread([each.auroc for each in scores])
            row["brier"] = spread([each.brier for each in scores])
            row["base"] = scores[0].brier_base
            row["events"] = f"{scores[0].events:,} of {scores[0].rows:,}"
        rows.append(row)
    known = [each for each in columns if any(each.key in row for row in rows)]
    return Sheet("reward and termination", tuple(known), tuple(rows))


def _family(arm: str) -> str:
    """Name what the trials of an arm are counted with: the shapes of one model together."""
    return ARMS[arm].family or arm if arm in ARMS else arm


def spread(values: Sequence[float]) -> list[float]:
    """Return mean, lowest and highest of some seeds' numbers."""
    return [float(np.mean(values)), float(min(values)), float(max(values))]


def _reference_rows(group: Group, horizons: Sequence[int], part: str) -> list[dict[str, Any]]:
    rows = []
    for name, whole in group.reports[0].references.items():
        report = _part(whole, part)
        row: dict[str, Any] = {"model": name, "diverged": max(report.diverged.values())}
        row |= {f"rmse_{k}": report.rmse[k] for k in horizons}
        row |= {f"change_{k}": report.rmse_change[k] for k in horizons}
        rows.append(row if name != "ceiling" else _ceiling_row(group, horizons, part))
    return rows


def _ceiling_row(group: Group, horizons: Sequence[int], part: str) -> dict[str, Any]:
    """Every seed's model has a ceiling of its own, measured on fewer windows than its errors."""
    every = [_part(each.references["ceiling"], part) for each in group.reports]
    windows = max(every[0].windows.values())
    row: dict[str, Any] = {"model": f"ceiling, of {group.label}, {windows:,} windows"}
    row["diverged"] = max(max(each.diverged.values()) for each in every)
    for k in horizons:
        row[f"rmse_{k}"] = spread([each.rmse[k] for each in every])
        row[f"change_{k}"] = spread([each.rmse_change[k] for each in every])
    return row


def _part(report: PredictionReport, part: str) -> PredictionReport:
    return report.parts[part] if part else report
