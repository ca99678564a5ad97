"""Votes over the augmentations of a question, and the four numbers they are judged by."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from loopwm.errors import DataError
from loopwm.reason.evaluate import Share
from loopwm.reason.tasks import Pair, Task
from loopwm.stats import Interval, bootstrap

# Confidences are summed as integers of this fraction, so that no order of merging rounds anew.
_UNIT = 2**40


@dataclass(slots=True)
class Tally:
    """Count votes; plain data, that can be written as JSON, sent and merged.

    Grids are written as text: rows of digits with "/" between them.

    Attributes:
        votes: Of each task, of each of its test inputs, of each answer: the number of votes and
            the sum of their confidences in units of 2^-40.
        single: Of each task, of each of its test inputs: the answer to the question as it is,
            without augmentation.
    """

    votes: dict[str, dict[str, dict[str, list[int]]]] = field(default_factory=dict)
    single: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(
        self,
        task: str,
        question: UInt8[ndarray, "R C"],
        answer: UInt8[ndarray, "P Q"],
        confidence: float,
        *,
        plain: bool = False,
    ) -> None:
        """Count a vote.

        Args:
            task: Name of the task.
            question: The test input, its augmentation undone.
            answer: What the model answered, its augmentation undone.
            confidence: Probability in [0, 1] that the model gives its answer.
            plain: Whether the question was asked without augmentation.
        """
        asked, guess = text(question), text(answer)
        answers = self.votes.setdefault(task, {}).setdefault(asked, {})
        count = answers.setdefault(guess, [0, 0])
        count[0] += 1
        count[1] += round(confidence * _UNIT)
        if plain:
            self.single.setdefault(task, {})[asked] = guess

    def ranked(self, task: str, question: UInt8[ndarray, "R C"]) -> list[str]:
        """Return the answers to a question, first by votes, then by mean confidence.

        Args:
            task: Name of the task.
            question: The test input.

        Raises:
            DataError: If nobody voted on it.
        """
        answers = self.votes.get(task, {}).get(text(question))
        if not answers:
            raise DataError(f"no votes on task {task!r}, input {text(question)}: was it asked?")

        def rank(answer: str) -> tuple[int, int, str]:
            votes, confidence = answers[answer]
            # Of as many votes, the larger sum has the larger mean. The text makes the order of
            # ties the same everywhere.
            return -votes, -confidence, answer

        return sorted(answers, key=rank)

    def to_json(self) -> dict[str, Any]:
        """Return the tally as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Tally":
        """Return the tally of what `to_json` returned."""
        return cls(value["votes"], value["single"])


def merge(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies: of the shares of one checkpoint, or of checkpoints.

    Args:
        tallies: In any order, which does not change the votes; they are left as they are.
    """
    total = Tally()
    for tally in tallies:
        for task, questions in tally.votes.items():
            for asked, answers in questions.items():
                sums = total.votes.setdefault(task, {}).setdefault(asked, {})
                for answer, count in answers.items():
                    votes, confidence = sums.get(answer, (0, 0))
                    sums[answer] = [votes + count[0], confidence + count[1]]
        for task, answers in tally.single.items():
            total.single.setdefault(task, {}).update(answers)
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Hold how much of each task is solved.

    Attributes:
        shares: Of each task, the share of its test inputs that are solved.
    """

    shares: Float[ndarray, " N"]

    @property
    def partial(self) -> float:
        """Return the mean share of the test inputs of a task that are solved."""
        return float(self.shares.mean())

    @property
    def strict(self) -> float:
        """Return the share of the tasks of which every test input is solved."""
        return float(self._whole.mean())

    def interval(self, strict: bool = True) -> Interval:
        """Return the 95% interval over tasks of the strict or the partial score.

        It is Wilson's of the strict one, a proportion, and else the bootstrap's; where no input or
        every one is solved the bootstrap would have no width, and it is Wilson's, too.

        Args:
            strict: Whether it is that of the strict score.
        """
        if strict or self.partial in (0, 1):
            low, high = Share(int(self._whole.sum()), len(self.shares)).interval
            return Interval(np.asarray(low), np.asarray(high))
        return bootstrap(self.shares)

    @property
    def _whole(self) -> Float[ndarray, " N"]:
        return (self.shares == 1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class ArcReport:
    """Hold the four numbers; each is a strict and a partial score.

    Attributes:
        single_pass1: One answer, to the question without augmentation.
        voted_pass1: The answer with most votes over the augmentations.
        voted_pass2: Either of the two answers with most votes.
        ensembled_pass2: Either of the two with most votes over all checkpoints.
        checkpoints: Number of checkpoints in the last number; with one it is the number before.
        votes: Fewest votes of the last checkpoint on a test input.
    """

    single_pass1: Score
    voted_pass1: Score
    voted_pass2: Score
    ensembled_pass2: Score
    checkpoints: int
    votes: int

    def to_json(self) -> dict[str, Any]:
        """Return the scores and their 95% intervals over tasks as JSON values."""
        names = ("single_pass1", "voted_pass1", "voted_pass2", "ensembled_pass2")
        return {
            **{name: _document(getattr(self, name)) for name in names},
            "tasks": len(self.single_pass1.shares),
            "checkpoints": self.checkpoints,
            "votes": self.votes,
        }


def report(tasks: Sequence[Task], tallies: Sequence[Tally]) -> ArcReport:
    """Return the four numbers.

    Args:
        tasks: The evaluation tasks, with their answers.
        tallies: One of each checkpoint, the last of which the first three numbers are of. No
            vote of one counts for another, but in the ensembled number.

    Raises:
        DataError: If there is no task or no tally, or a test input was not asked.
    """
    if not tasks or not tallies:
        raise DataError(f"{len(tasks)} tasks and {len(tallies)} tallies: there is nothing to score")
    last = tallies[-1]
    return ArcReport(
        single_pass1=_score(tasks, lambda task, pair: [_single(last, task, pair)]),
        voted_pass1=_voted(tasks, last, 1),
        voted_pass2=_voted(tasks, last, 2),
        ensembled_pass2=_voted(tasks, merge(tallies), 2),
        checkpoints=len(tallies),
        votes=_fewest(last),
    )


def text(grid: UInt8[ndarray, "R C"]) -> str:
    """Return a grid as rows of digits with "/" between them."""
    return "/".join("".join(map(str, row)) for row in grid.tolist())


def _voted(tasks: Sequence[Task], tally: Tally, guesses: int) -> Score:
    return _score(tasks, lambda task, pair: tally.ranked(task.name, pair.input)[:guesses])


def _score(tasks: Sequence[Task], answers: Callable[[Task, Pair], Sequence[str]]) -> Score:
    return Score(
        np.array(
            [
                np.mean([text(pair.output) in answers(task, pair) for pair in task.test])
                for task in tasks
            ]
        )
    )


def _single(tally: Tally, task: Task, pair: Pair) -> str:
    tally.ranked(task.name, pair.input)
    answer = tally.single.get(task.name, {}).get(text(pair.input))
    if answer is None:
        raise DataError(
            f"task {task.name!r} was asked in augmentations only; ask it as it is too, k = 0"
        )
    return answer


def _fewest(tally: Tally) -> int:
    return min(
        sum(votes for votes, _ in answers.values())
        for questions in tally.votes.values()
        for answers in questions.values()
    )


def _document(score: Score) -> dict[str, Any]:
    strict, partial = score.interval(), score.interval(strict=False)
    return {
        "strict": score.strict,
        "strict_interval": [float(strict.low), float(strict.high)],
        "partial": score.partial,
        "partial_interval": [float(partial.low), float(partial.high)],
    }
