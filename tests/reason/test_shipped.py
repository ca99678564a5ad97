"""The weights that ship, asked puzzles that they were not trained on."""

from pathlib import Path

import pytest

from loopwm.core.count import parameters
from loopwm.reason.arc import Arc
from loopwm.reason.evaluate import accuracy
from loopwm.reason.lessons import lesson
from loopwm.reason.poll import poll
from loopwm.reason.puzzles.sudoku import hard_sudokus
from loopwm.reason.stored import load
from loopwm.reason.vote import report

MODELS = Path(__file__).parents[2] / "docs" / "models"


@pytest.mark.slow
def test_the_shipped_reasoner_solves_hard_sudokus_and_knows_which():
    model = load(MODELS / "sudoku-hard")
    assert model.lesson == "sudoku-hard"
    assert parameters(model) < 2_500_000
    _, held_out = hard_sudokus()
    score = accuracy(model, held_out.batch().rows(slice(6)), steps=16)
    # 89% of all 500, so that fewer than 4 of 6 would come by chance once in two hundred times.
    assert score.exact.right >= 4
    assert score.agreed.right == 6


@pytest.mark.slow
def test_the_shipped_reasoner_solves_evaluation_tasks_of_arc():
    model = load(MODELS / "arc-12-wide")
    arc = lesson(model.lesson).make().source
    assert isinstance(arc, Arc)
    sizes = lesson(model.lesson).model
    assert (sizes.vocabulary, sizes.length) == (arc.vocabulary, arc.length)
    assert (model.config.length, model.config.puzzles) == (arc.length, arc.num_puzzles)
    asked = [question for question in arc.questions(1) if question.task < 40]
    found = report(arc.evaluation[:40], [poll(model, arc, asked, steps=4)])
    # 8 of all 114, 4 of them among these; an answer has some hundred cells, all to be right.
    assert found.single_pass1.strict * 40 >= 3
