"""Train a reasoner on what a lesson says."""

from dataclasses import replace
from pathlib import Path

from loopwm.reason.fit import fit
from loopwm.reason.lessons import Lesson, Material
from loopwm.reason.model import Reasoner


def teach(
    lesson: Lesson,
    material: Material,
    run_dir: str | Path | None = None,
    init: Reasoner | None = None,
) -> Reasoner:
    """Train a reasoner by a lesson, validated on the first of its tests.

    Args:
        lesson: Sizes, how to train, and when puzzles leave.
        material: What `lesson.make` returned.
        run_dir: See `loopwm.reason.fit.fit`.
        init: Reasoner whose weights training starts from.
    """
    return fit(
        material.source,
        replace(lesson.model, puzzles=material.source.num_puzzles),
        lesson.training,
        halting=lesson.halting,
        valid=next(iter(material.tests.values()), None),
        run_dir=run_dir,
        init=init,
    )
