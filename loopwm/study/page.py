"""What the page about a set of models says: how good they are, where they fail, how it was done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loopwm.data.store import RolloutDataset
from loopwm.study.accuracy import PredictionReport
from loopwm.study.episode import Episode
from loopwm.study.plot import plot_episode, plot_error, plot_iterations, plot_learning
from loopwm.study.report import Block, Facts, Grid, Section, Text, Video, grid_of, picture_of
from loopwm.study.table import (
    compare_table,
    dimensions_table,
    number,
    report_table,
    score_lines,
    share,
    step_table,
)


@dataclass(frozen=True)
class Shown:
    """Hold what the page says about one model.

    Attributes:
        report: Its evaluation.
        parameters: Number of parameters.
        config: Its configuration as JSON values.
        history: Training metrics.
    """

    report: PredictionReport
    parameters: int
    config: Any = None
    history: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Views:
    """Hold what is drawn of one episode, where available.

    Attributes:
        imagined: An episode imagined open-loop by the first model.
        stepwise: An episode predicted one step at a time, for its iterations.
        film: Bytes of an mp4 file, or None.
        film_missing: Why there is no film.
    """

    imagined: Episode | None = None
    stepwise: Episode | None = None
    film: bytes | None = None
    film_missing: str = ""


@dataclass(frozen=True)
class Origin:
    """Say where the numbers come from.

    Attributes:
        train: The training set.
        test: The test set.
        settings: How the models were trained, as JSON values.
        provenance: Date, versions and machine (see `loopwm.study.provenance`).
    """

    train: RolloutDataset
    test: RolloutDataset
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def page_sections(models: Mapping[str, Shown], origin: Origin, views: Views) -> list[Section]:
    """Make the sections of the page (see `loopwm.study.report.write_report`).

    Args:
        models: What is shown, by name; the first is the one that the page is about.
        origin: Where the numbers come from.
        views: What is drawn of an episode.
    """
    reports = {name: replace(each.report, name=name) for name, each in models.items()}
    sections = [
        Section("In short", (Text(summary(models)),)),
        Section("What was predicted", _task(origin)),
        Section("How good", _accuracy(models, reports)),
        Section("Where it fails", _failures(reports, origin.test)),
    ]
    if views.imagined is not None:
        sections.append(Section("Imagined and real", _views(views, next(iter(models)))))
    if any(each.history for each in models.values()):
        sections.append(Section("Training", _training(models)))
    return [*sections, Section("How this was made", _making(models, origin))]


def summary(models: Mapping[str, Shown]) -> tuple[str, ...]:
    """Say in a few sentences what the first model predicts, how well, and who is better."""
    name, shown = next(iter(models.items()))
    report = shown.report
    lines = [
        f"{name} ({shown.parameters:,} parameters) was given real observations and then only the "
        "actions taken, and imagined what happens. Errors are root mean squares in standard "
        "deviations of the observation: 0 is perfect, and a constant guess at the mean scores "
        "about 1."
    ]
    errors = ", ".join(f"{number(report.rmse[k])} after {_ahead(report, k)}" for k in _seen(report))
    lines.append(f"Its error is {errors}.")
    copied = report.references.get("copy last")
    longest = max(_seen(report), default=None)
    if copied is not None and longest is not None:
        lines.append(
            f"Repeating the last observation gives {number(copied.rmse[longest])} at the longest "
            "of these."
        )
    for k in _seen(report):
        measured = [each for each in models if k in models[each].report.rmse]
        ranked = sorted(measured, key=lambda each: models[each].report.rmse[k])
        if len(ranked) > 1:
            order = ", ".join(f"{each} {number(models[each].report.rmse[k])}" for each in ranked)
            lines.append(f"Best first at {_ahead(report, k)}: {order}.")
    return tuple(lines)


def _ahead(report: PredictionReport, k: int) -> str:
    words = f"{k} step" + "s" * (k != 1)
    return words if report.dt is None else f"{words} ({k * report.dt:.4g} s)"


def _seen(report: PredictionReport) -> list[int]:
    return [k for k in report.horizons if report.windows[k] > 0]


def _task(origin: Origin) -> tuple[Block, ...]:
    test, train = origin.test, origin.train
    meta = test.meta
    clock = "" if meta.dt is None else f", {meta.dt:g} s of simulated time each"
    velocity = "unclipped" if meta.unclipped else "as the environment observes them"
    facts = {
        "task": meta.env_id,
        "observation": f"{test.obs_dim} dimensions, velocities {velocity}",
        "action": f"{test.action_dim} " + ("choices" if test.discrete else "dimensions"),
        "trained on": f"{len(train):,} real steps in {train.num_episodes:,} episodes{clock}",
        "tested on": f"{len(test):,} other real steps in {test.num_episodes:,} episodes",
        "behaviour": f"training: {train.meta.policy}; test: {meta.policy}",
        "cut episodes": test.meta.dropped or "none",
    }
    if meta.parts:
        facts["parts"] = ", ".join(meta.parts)
    return (Facts(facts),)


def _accuracy(
    models: Mapping[str, Shown], reports: Mapping[str, PredictionReport]
) -> tuple[Block, ...]:
    first = next(iter(reports.values()))
    sizes = {f"{name} ({models[name].parameters:,})": each for name, each in reports.items()}
    rule = first.notes.get("diverged", "")
    blocks: list[Block] = [
        picture_of(
            plot_error(reports), "Open-loop error against horizon; bands are 95% intervals."
        ),
        grid_of(compare_table(sizes), f"Parameters in brackets. Diverged: {rule}."),
        grid_of(compare_table(sizes, "change"), first.notes.get("change", "")),
        grid_of(report_table(first), "The references are measured on the same windows."),
        grid_of(step_table(first)),
    ]
    lines = score_lines(first)
    if lines:
        blocks.append(Text(tuple(lines)))
    return tuple(blocks)


def _failures(reports: Mapping[str, PredictionReport], test: RolloutDataset) -> tuple[Block, ...]:
    name, report = next(iter(reports.items()))
    names = test.meta.obs_names or ()
    longest = max(_seen(report), default=report.horizons[0])
    worst = max(range(test.obs_dim), key=lambda o: report.dimensions[longest][o])
    label = names[worst] if names else f"obs[{worst}]"
    lines = [
        f"The dimension that {name} predicts worst after {longest} steps is {label}, with an error "
        f"of {number(report.dimensions[longest][worst])}. "
        f"{share(report.diverged[longest])} of the windows diverged."
    ]
    blocks: list[Block] = []
    parts = {part: each for part, each in report.parts.items() if each.windows[longest]}
    if parts:
        hardest = max(parts, key=lambda part: parts[part].rmse[longest])
        lines.append(f"The part with the largest error at that horizon is {hardest}.")
        blocks.append(_parts_grid(reports))
    blocks.append(grid_of(dimensions_table(report, names)))
    return (Text(tuple(lines)), *blocks)


def _parts_grid(reports: Mapping[str, PredictionReport]) -> Grid:
    first = next(iter(reports.values()))
    heads = ("model", "steps", *first.parts)
    rows = [
        (
            name,
            str(k),
            *(_part_cell(each.parts.get(part), k) for part in first.parts),
        )
        for name, each in reports.items()
        for k in each.horizons
    ]
    return Grid("RMSE by part of the data", heads, tuple(rows), "In brackets: windows, episodes.")


def _part_cell(part: PredictionReport | None, k: int) -> str:
    if part is None or k not in part.rmse:
        return "-"
    return f"{number(part.rmse[k])} ({part.windows[k]}, {part.episodes[k]})"


def _views(views: Views, name: str) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if views.film is not None:
        blocks.append(Video(views.film, f"Left: what happened. Right: as {name} imagined it."))
    elif views.film_missing:
        blocks.append(Text((views.film_missing,)))
    if views.imagined is not None:
        figure = plot_episode(views.imagined)
        blocks.append(picture_of(figure, f"Real (solid) and imagined by {name} (dashed)."))
    if views.stepwise is not None:
        figure = plot_iterations(views.stepwise)
        blocks.append(
            picture_of(figure, "Iterations of the loop at each step, predicted from the truth.")
        )
    return tuple(blocks)


def _training(models: Mapping[str, Shown]) -> tuple[Block, ...]:
    figure = plot_learning({name: each.history for name, each in models.items()})
    caption = "Error on held-out training episodes, in standard deviations of the one-step change."
    return (picture_of(figure, caption),)


def _making(models: Mapping[str, Shown], origin: Origin) -> tuple[Block, ...]:
    first = next(iter(models.values())).report
    facts: dict[str, Any] = {**origin.provenance, **origin.settings}
    facts |= {f"model: {name}": each.config for name, each in models.items() if each.config}
    facts |= {f"measure: {key}": note for key, note in first.notes.items()}
    return (Facts(facts),)
