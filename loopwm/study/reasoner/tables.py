"""What is reported of a reasoner: shares of right answers by step, and the four numbers of ARC."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from loopwm.reason.answer import Noise
from loopwm.reason.arc import Arc, Question
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.evaluate import Score, Share, accuracy, followed
from loopwm.reason.model import Reasoner
from loopwm.reason.poll import poll
from loopwm.reason.stop import Stop
from loopwm.reason.tasks import Task
from loopwm.reason.vote import Tally, report
from loopwm.study.results import Column, Sheet


def puzzle_sheets(
    model: Reasoner,
    tests: Mapping[str, PuzzleBatch],
    steps: int = 16,
    stop: Stop | None = None,
    noise: Noise | None = None,
) -> list[Sheet]:
    """Make the tables of a reasoner's shares of right answers on held-out puzzles, in percent.

    Args:
        model: Who is asked.
        tests: Held-out puzzles by name.
        steps: Most steps.
        stop: Rule by which puzzles leave earlier, in the first table.
        noise: Tries with noise, in the first table.

    Returns:
        One table of the answers under these settings, one of the answers after each step without.
    """
    answers, by_step = [], []
    for name, puzzles in tests.items():
        score, found = followed(model, puzzles, steps=steps)
        if stop is not None or noise is not None:
            score = accuracy(model, puzzles, steps=steps, stop=stop, noise=noise)
        answers.append(_answers(name, score))
        at = {f"at_{k}": percent(found[k - 1]) for k in doublings(steps)}
        by_step.append({"puzzles": name, **at})
    columns = (
        Column("puzzles"),
        *(Column(f"at_{k}", f"{k} steps" if k > 1 else "1 step") for k in doublings(steps)),
    )
    title = "right after so many steps, % [95% interval]"
    return [Sheet("answers", _ANSWERS, tuple(answers)), Sheet(title, columns, tuple(by_step))]


def arc_sheet(
    models: Sequence[Reasoner], arc: Arc, steps: int, augmentations: int, tasks: int = 0
) -> Sheet:
    """Make the table of the four numbers of ARC, in percent.

    Args:
        models: Checkpoints, the last of which the first three numbers are of.
        arc: Where the questions are from.
        steps: Steps of each answer.
        augmentations: Ways in which each task is asked.
        tasks: Evaluation tasks that are asked, the first ones; 0 asks all.
    """
    asked = arc.evaluation[: tasks or None]
    questions = [each for each in arc.questions(augmentations) if each.task < len(asked)]
    tallies = [polled(model, arc, questions, steps) for model in models]
    return votes_sheet(asked, tallies, augmentations)


def polled(model: Reasoner, arc: Arc, questions: Sequence[Question], steps: int) -> Tally:
    """Ask questions of a reasoner where it is, more of them at once on a GPU.

    Args:
        model: Who is asked.
        arc: Where the questions are from.
        questions: See `Arc.questions`.
        steps: Steps of each answer.
    """
    device = model.decode.weight.device
    batch_size = 64 if device.type == "cpu" else 1024
    return poll(model, arc, questions, steps=steps, batch_size=batch_size, device=device)


def votes_sheet(asked: Sequence[Task], tallies: Sequence[Tally], augmentations: int) -> Sheet:
    """Make the table of the four numbers of ARC of votes that were cast.

    Args:
        asked: The tasks.
        tallies: The votes of each checkpoint.
        augmentations: Ways in which each task was asked.
    """
    found = report(asked, tallies)
    scores = {
        "single view, pass@1": found.single_pass1,
        "voted, pass@1": found.voted_pass1,
        "voted, pass@2": found.voted_pass2,
        f"voted over {found.checkpoints} checkpoints, pass@2": found.ensembled_pass2,
    }
    rows = []
    for name, score in scores.items():
        row: dict[str, Any] = {"what": name}
        for kind, value in (("strict", score.strict), ("partial", score.partial)):
            interval = score.interval(kind == "strict")
            row[kind] = [100 * float(each) for each in (value, interval.low, interval.high)]
        rows.append(row)
    columns = (
        Column("what"),
        Column("strict", "whole tasks, % [95% interval]"),
        Column("partial", "mean share of a task's test inputs, % [95% interval]"),
    )
    return Sheet(f"{len(asked)} tasks, {augmentations} views each", columns, tuple(rows))


def doublings(steps: int) -> list[int]:
    """Return 1, 2, 4 and so on, and at last `steps`."""
    return sorted({*(2**k for k in range(steps.bit_length()) if 2**k <= steps), steps})


def ratings_sheet(sets: Mapping[str, Float[ndarray, " N"]]) -> Sheet:
    """Make the histogram of how hard sudokus are.

    Args:
        sets: Ratings of puzzles by the name of their set.
    """
    from loopwm.reason.puzzles.sudoku import histogram

    found = {name: histogram(ratings) for name, ratings in sets.items()}
    edges = next(iter(found.values()))["from"]
    labels = ["no guess", *(f"to {end:g}" for end in edges[2:]), f"from {edges[-1]:g}"]
    rows = tuple(
        {"puzzles": name, "mean": each["mean"], "p50": each["p50"]}
        | {f"from_{edge}": count for edge, count in zip(edges, each["count"], strict=True)}
        for name, each in found.items()
    )
    counts = (Column(f"from_{edge}", label) for edge, label in zip(edges, labels, strict=True))
    columns = (Column("puzzles"), *counts, Column("mean"), Column("p50", "median"))
    return Sheet("ratings: puzzles by wrong guesses", columns, rows)


def percent(share: Share) -> list[float]:
    """Return a share and the ends of its interval in percent."""
    return [100 * each for each in (share.value, *share.interval)]


_ANSWERS = (
    Column("puzzles"),
    Column("number"),
    Column("exact", "right, % [95% interval]"),
    Column("taken", "taken for right, %"),
    Column("agreed", "verdict true, %"),
    Column("steps", "mean steps"),
)


def _answers(name: str, score: Score) -> dict[str, Any]:
    return {
        "puzzles": name,
        "number": score.exact.total,
        "exact": percent(score.exact),
        "taken": percent(score.taken),
        "agreed": percent(score.agreed),
        "steps": score.steps,
    }
