"""What a table of the record is made by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopwm.study.results import Sheet

# Seeds, paragraphs on the method, tables.
Computed = tuple[Sequence[int], tuple[str, ...], tuple[Sheet, ...]]


@dataclass(frozen=True)
class Options:
    """Say how a table is recomputed.

    Attributes:
        work: Where cells, data and checkpoints are kept between runs.
        threads: CPU threads.
        report: Receives a line about each piece of work begun.
        figures: Where figures go, or None for none.
    """

    work: Path = Path("runs/study")
    threads: int = 1
    report: Callable[[str], None] = lambda line: None
    figures: Path | None = None


@dataclass(frozen=True)
class Recipe:
    """Name a study and say how it is computed.

    Attributes:
        title: Heading.
        question: What is asked.
        order: Place on the page.
        compute: Returns seeds, method and tables.
    """

    title: str
    question: str
    order: int
    compute: Callable[[Options], Computed]
