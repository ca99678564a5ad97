"""The studies of the reasoner: stories, tables, trainings, and TRM as published beside ours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from loopwm.core.count import matmul_flops
from loopwm.errors import ConfigError, DataError
from loopwm.reason import lessons
from loopwm.reason.answer import Noise, solve, trace
from loopwm.reason.arc import Arc, ArcConfig
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.evaluate import Share, accuracy, exact, shares
from loopwm.reason.glyphs import Glyphs
from loopwm.reason.lessons import lesson
from loopwm.reason.loss import step_loss
from loopwm.reason.model import Reasoner
from loopwm.reason.tasks import Pair, Task
from loopwm.study.canvas import png
from loopwm.study.reasoner.bench import bench_arc
from loopwm.study.reasoner.bench_puzzles import bench_puzzles
from loopwm.study.reasoner.drawing import plot_steps
from loopwm.study.reasoner.on_gpu import GpuCell
from loopwm.study.reasoner.plain import plain_loss
from loopwm.study.reasoner.story import Story, draw, panels, tell
from loopwm.study.reasoner.tables import arc_sheet, doublings, puzzle_sheets, ratings_sheet
from loopwm.study.reasoner.trainings import ReasonerCell, compute, puzzles_seen, sheets
from loopwm.study.results import markdown
from tests.reason.echo import held_out
from tests.reason.tiny import MIXERS, small

LOOK = Glyphs("-.123", ("#FFFFFF",) * 5, 3, blank=1)


def model(mixer: str = "attention", **changes) -> Reasoner:
    made = Reasoner(small(mixer, **changes), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator)
    return made


@pytest.mark.parametrize("mixer", MIXERS)
def test_trm_operation_by_operation_has_the_loss_and_the_gradients_of_ours(mixer: str):
    ours, puzzles = model(mixer), held_out(6)
    _, logits, q_halt = ours.step(ours.start(puzzles.tokens), puzzles.tokens, puzzles.puzzle_ids)
    loss = step_loss(logits, q_halt, puzzles.labels).total
    plain = plain_loss(ours, puzzles, torch.float32)
    torch.testing.assert_close(plain.float(), loss, rtol=1e-5, atol=1e-6)
    dense = [p for p in ours.parameters() if p is not ours.adapter.puzzle]
    for a, b in zip(
        torch.autograd.grad(loss, dense), torch.autograd.grad(plain, dense), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_shares_are_counted_as_by_hand_and_have_wilsons_interval():
    ours, puzzles = model(), held_out(40)
    seen = trace(ours, puzzles.tokens, puzzles.puzzle_ids, steps=3)
    right = [
        [a == b for a, b in zip(step, puzzles.labels.tolist(), strict=True)]
        for step in seen.tokens.tolist()
    ]
    assert exact(ours, puzzles, steps=3).tolist() == right
    score = accuracy(ours, puzzles, steps=3)
    assert score.exact == Share(sum(right[-1]), 40) == shares(torch.tensor(right))[-1]
    taken = [q > 0.5 for q in seen.confidence[-1].tolist()]
    assert score.taken.right == sum(taken)
    assert score.agreed.right == sum(a == b for a, b in zip(taken, right[-1], strict=True))
    # Of 8 in 10 (Wilson 1927): from 0.490 to 0.943.
    assert Share(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Share(0, 10).interval == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_cells_that_are_not_asked_for_do_not_count():
    ours, puzzles = model(), held_out(8)
    answers = solve(ours, puzzles.tokens, puzzles.puzzle_ids, steps=1).tokens
    labels = torch.full_like(puzzles.labels, -100)
    labels[:, 0] = answers[:, 0]
    asked = PuzzleBatch(tokens=puzzles.tokens, labels=labels, puzzle_ids=puzzles.puzzle_ids)
    assert accuracy(ours, asked, steps=1).exact.value == 1
    labels[0, 0] = (answers[0, 0] + 1) % 5
    assert accuracy(ours, asked, steps=1).exact.right == 7
    with pytest.raises(DataError, match="there are no puzzles"):
        accuracy(ours, held_out(0))


def test_tables_of_answers_have_a_row_for_each_kind_of_puzzle():
    answers, by_step = puzzle_sheets(model(), {"some": held_out(8), "more": held_out(9)}, steps=5)
    assert [row["number"] for row in answers.rows] == [8, 9]
    assert [each.key for each in by_step.columns] == ["puzzles", "at_1", "at_2", "at_4", "at_5"]
    assert doublings(16) == [1, 2, 4, 8, 16]
    assert doublings(1) == [1]
    assert "[" in markdown(answers)[2]


def test_where_nothing_is_to_be_compared_both_tables_are_of_one_thinking(monkeypatch):
    ours, tests = model(), {"some": held_out(40)}
    thought, step = [], Reasoner.step
    monkeypatch.setattr(Reasoner, "step", lambda *a: thought.append(1) or step(*a))
    answers, by_step = puzzle_sheets(ours, tests, steps=3)
    assert len(thought) == 3
    # Noise of no size is none, and is asked apart.
    apart, same = puzzle_sheets(ours, tests, steps=3, noise=Noise(1, 0.0))
    assert len(thought) == 9
    assert (answers.rows, by_step.rows) == (apart.rows, same.rows)


def story() -> Story:
    return Story(
        "small", LOOK, [2, 1, 1], [[3, 2, 4], [4, 3, 4]], [0.1, 0.9], [-100, 3, 4], [([2], [3])]
    )


def test_a_story_shows_what_is_given_and_marks_what_is_wrong():
    told = story()
    assert told.solved
    console = Console(width=100, record=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(panels(told))
    said = capture.get()
    for word in ("small", "step 1: 10%", "step 2: 90%", "right answer", "example", "0.10 0.90"):
        assert word in said
    # In the first step one of the two cells that are asked for is wrong, and none after it.
    assert said.count("\x1b[1;37;48;2;209;36;47m") == 1


def test_the_picture_of_a_story_has_a_grid_for_each_frame_and_the_halting_value():
    figure = draw(story())
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["example", "becomes", "small", "step 1", "step 2", "right answer", ""]
    assert np.asarray(figure.axes[-1].lines[0].get_ydata()).tolist() == [0.1, 0.9]
    assert png(figure).startswith(b"\x89PNG")


def test_frames_are_the_first_the_last_and_a_few_between():
    long = Story("t", LOOK, [1] * 3, [[2] * 3] * 100, [0.5] * 100)
    assert long.frames() == [1, 2, 3, 4, 6, 8, 12, 100]
    assert Story("t", LOOK, [1] * 3, [[2] * 3], [0.5]).frames() == [1]
    assert long.solved is None


def test_what_is_told_is_the_trace():
    ours = model()
    told = tell(ours, LOOK, [0, 4, 2], puzzle_id=3, steps=4, labels=[1, 1, 1])
    seen = trace(ours, torch.tensor([[0, 4, 2]]), torch.tensor([3]), steps=4)
    assert told.answers == seen.tokens[:, 0].tolist()
    assert told.confidence == pytest.approx(seen.confidence[:, 0].tolist())


def test_the_arms_differ_in_what_they_are_called_after():
    cells = {
        arm: ReasonerCell("region-10", arm, 1, 7).taught for arm in ("looped", "once", "untied")
    }
    looped, once, untied = cells.values()
    assert looped.halting.max_steps == 16
    assert once.halting.max_steps == untied.halting.max_steps == 1
    assert looped.model == lesson("region-10").model
    assert once.model == replace(looped.model, cycles=1, inner=1)
    assert looped.training == once.training == untied.training
    blocks = looped.model.cycles * (looped.model.inner + 1) * looped.model.cell.layers
    assert untied.model.cell.layers == blocks
    # As many matrix products in a step, but for those of decoding.
    tokens = torch.ones(1, 100, dtype=torch.long)
    counts = []
    for taught in (looped, untied):
        made = Reasoner(taught.model)
        counts.append(matmul_flops(lambda made=made: made.advance(made.start(tokens), tokens)))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    "cell", [ReasonerCell("region-10", "once", 0, 2), GpuCell("region-10", 2, 8)]
)
def test_trainings_are_named_after_what_their_lesson_is_today(cell, monkeypatch):
    today = lesson("region-10")
    others = [
        replace(today, model=replace(today.model, width=2 * today.model.width)),
        replace(today, halting=replace(today.halting, rise=0.25)),
        replace(today, training=replace(today.training, lr=2 * today.training.lr)),
    ]
    names = [cell.name]
    for other in others:
        monkeypatch.setitem(lessons.LESSONS, "region-10", other)
        names.append(cell.name)
    assert len(set(names)) == 1 + len(others)
    monkeypatch.undo()
    assert cell.name == names[0]


def test_a_training_is_measured_after_every_step_and_resumes(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(lessons, "HELD_OUT", 4)
    cell = ReasonerCell("region-10", "looped", 0, 2)
    found = compute(tmp_path, 1, cell)
    assert set(found["right"]) == {"like training", "10 steps or more"}
    assert [len(each) for each in found["right"].values()] == [16, 16]
    # Both updates take a batch: at first every puzzle is given one step.
    assert found["puzzles"] == 2 * lesson("region-10").training.batch_size
    assert compute(tmp_path, 1, cell)["right"] == found["right"]
    other = {**found, "arm": "once", "puzzles": 7}
    tables = sheets([found, other])
    assert [len(table.rows) for table in tables] == [2, 2, 2]
    assert tables[-1].rows[1]["puzzles"] == [7.0, 7.0, 7.0]


def test_puzzles_are_counted_from_means_over_updates():
    records = [
        {"update": 10, "new": 4.0},
        {"update": 10, "validation": 0.1},
        {"update": 15, "new": 2.0},
    ]
    assert puzzles_seen(records) == 50


def test_the_four_numbers_of_arc_make_a_table():
    grids = np.random.default_rng(0).integers(0, 10, (12, 3, 4), np.uint8)
    pairs = [Pair(grids[k], grids[k + 1]) for k in range(0, 12, 2)]
    seen, asked = (
        Task("seen", tuple(pairs[:2]), (pairs[2],)),
        Task("asked", (pairs[3],), (pairs[4],)),
    )
    arc = Arc([seen], [asked, Task("left out", (pairs[0],), (pairs[5],))], ArcConfig(6, 2))
    ours = model(vocabulary=12, length=36, puzzles=arc.num_puzzles)
    sheet = arc_sheet([ours, ours], arc, 1, 2, tasks=1)
    assert sheet.title == "1 tasks, 2 views each"
    assert [row["what"] for row in sheet.rows][-1] == "voted over 2 checkpoints, pass@2"


def test_the_bench_has_a_row_for_each_way_and_counts_the_published_one_as_one():
    sheet = bench_arc("sudoku-4x4", batch=2, repeats=1, compiled=False)
    rows = {row["what"]: row for row in sheet.rows}
    assert list(rows) == [
        "TRM as published, fp32",
        "TRM as published, bf16",
        "ours, fp32",
        "ours, bf16",
        "matmul, fp32",
        "matmul, bf16",
    ]
    assert rows["TRM as published, fp32"]["fp32"] == 1
    assert rows["TRM as published, bf16"]["same"] == 1
    # A node for each sublayer keeps less than one for each operation.
    assert rows["ours, fp32"]["memory"] < 0.8 * rows["TRM as published, fp32"]["memory"]
    assert sheet.title.startswith("sudoku-4x4: ")
    assert sheet.columns[1].label.startswith("CPU s")


def test_puzzles_are_made_as_hard_as_asked_for_and_timed():
    (row,) = bench_puzzles({2.0: 3}, repeats=1).rows
    assert row["least"] == 2.0
    assert row["rate"][0] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_bench_says_that_there_is_no_gpu():
    with pytest.raises(ConfigError, match='device="cuda" cannot be used here'):
        bench_arc("sudoku-4x4", device="cuda", compiled=False)


def test_ratings_are_counted_between_their_edges():
    sheet = ratings_sheet({"few": np.array([0.0, 0.5, 3.0, 120.0]), "one": np.array([20.0])})
    shown = {column.label or column.key: column.key for column in sheet.columns}
    few, one = sheet.rows
    counted = {label: few[key] for label, key in shown.items() if few[key]}
    assert counted == {"puzzles": "few", "no guess": 1, "to 1": 1, "to 5": 1, "from 100": 1,
                       "mean": 30.875, "median": 1.75}  # fmt: skip
    assert one[shown["to 30"]] == 1


def test_the_figure_shows_every_seed_and_the_mean():
    shares = {"looped": ([0.1, 0.5, 0.9], [0.3, 0.5, 0.7]), "once": ([0.2, 0.2, 0.1],)}
    (axes,) = plot_steps(shares, "title").axes
    lines = [np.asarray(line.get_ydata()) for line in axes.get_lines()]
    expected = ([10, 50, 90], [30, 50, 70], [20, 50, 80], [20, 20, 10], [20, 20, 10])
    for line, y in zip(lines, expected, strict=True):
        np.testing.assert_allclose(line, y)
    assert [text.get_text() for text in axes.texts] == ["looped", "once"]
