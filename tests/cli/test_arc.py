"""`loopwm arc`: train, go on, evaluate, solve, show, export and import at a tiny size."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from loopwm.cli import main
from loopwm.cli.thinking import EvaluateArc, Thinking
from loopwm.cli.train import measured
from loopwm.reason import answer, glyphs, lessons, tasks
from loopwm.reason.answer import Answer
from loopwm.reason.arc import Arc, ArcConfig
from loopwm.reason.convert import export_trm
from loopwm.reason.lessons import lesson
from loopwm.reason.model import Reasoner
from loopwm.reason.presets import preset
from loopwm.reason.stored import load, save
from loopwm.reason.tasks import Pair, Task
from tests.reason.tiny import small

PUZZLE = "12..,34..,..4.,...1"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a reasoner that has seen five batches of sudokus."""
    path = tmp_path_factory.mktemp("arc") / "sudoku"
    main(_training(path))
    return path


def _training(path: Path, updates: int = 5) -> list[str]:
    words = ["arc", "train", "sudoku-4x4", "--out", str(path), "--batch", "8", "--device", "cpu"]
    return [*words, "--updates", str(updates), "--most-steps", "2"]


def test_training_leaves_a_reasoner_its_checkpoints_and_metrics(run_dir: Path, capsys):
    model = load(run_dir)
    assert model.lesson == "sudoku-4x4"
    assert [r["update"] for r in model.history if "validation" in r] == [5]
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert records == model.history
    before = (run_dir / "metrics.jsonl").read_bytes()
    main(_training(run_dir))
    assert (run_dir / "metrics.jsonl").read_bytes() == before
    said = capsys.readouterr().out
    assert "sudoku-4x4, 5 updates: 0.0% of held-out puzzles" in said


def test_another_training_in_the_same_place_is_a_mistake_of_one_line(run_dir: Path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(_training(run_dir, updates=6))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "config.updates was 5 and is now 6" in said
    assert len(said.splitlines()) == 1


def test_evaluation_says_and_writes_shares_after_every_step(run_dir: Path, tmp_path: Path, capsys):
    path = tmp_path / "shares.json"
    words = ["--steps", "3", "--stop", "unchanged", "--noise", "0.2", "--tries", "2"]
    main(["arc", "evaluate", str(run_dir), *words, "--json", str(path)])
    said = capsys.readouterr().out
    for word in ("8 clues", "6 clues", "minimal", "1 step", "verdict true"):
        assert word in said
    written = json.loads(path.read_text())
    (answers,) = (rows for name, rows in written.items() if name.endswith("answers"))
    assert [row["number"] for row in answers] == [500] * 3
    assert all(
        0 <= low <= share <= high <= 100 for share, low, high in (r["exact"] for r in answers)
    )


def test_models_of_one_name_each_have_their_tables(run_dir: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(lessons, "HELD_OUT", 4)
    for folder in ("a", "b"):
        save(load(run_dir), tmp_path / folder / "run")
    places = (tmp_path / "a" / "run", tmp_path / "b" / "run")
    names = EvaluateArc(places, Thinking(steps=1)).sheets()
    assert [name.split(", ")[0] for name in names] == [str(p) for p in places for _ in range(2)]
    apart = EvaluateArc((places[0], run_dir), Thinking(steps=1)).sheets()
    assert [name.split(", ")[0] for name in apart] == ["run", "run", "sudoku", "sudoku"]


def test_no_wrong_answers_are_said_and_what_was_not_measured_is_not():
    assert measured({"world_validation": 0.25, "puzzles_validation": 0.0}) == [
        "error of the world 0.25",
        "wrong answers 0",
    ]
    assert measured({"world_validation": None}) == []
    assert measured({}) == []


def test_a_puzzle_is_answered_with_what_is_given_left_as_it_is(
    run_dir: Path, tmp_path: Path, capsys
):
    main(["arc", "solve", str(run_dir), PUZZLE, "--steps", "2", "--stop", "sure"])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5
    for given, found in zip("".join(PUZZLE.split(",")), "".join(said[:4]), strict=True):
        assert found == given or given == "."
    assert "steps; right with" in said[4]
    file = tmp_path / "puzzle.txt"
    file.write_text(PUZZLE.replace(",", "\n"))
    main(["arc", "solve", str(run_dir), f"@{file}", "--steps", "2", "--stop", "sure"])
    assert capsys.readouterr().out.splitlines() == said


def test_a_puzzle_is_shown_in_the_terminal_and_drawn(run_dir: Path, tmp_path: Path, capsys):
    path = tmp_path / "figures" / "puzzle.png"
    main(["arc", "show", str(run_dir), "--index", "3", "--steps", "5", "--png", str(path)])
    said = capsys.readouterr().out
    for word in ("puzzle", "step 1:", "step 5:", "right answer", "halting value by step: 0."):
        assert word in said
    assert path.read_bytes().startswith(b"\x89PNG")
    main(["arc", "show", str(run_dir), "--puzzle", PUZZLE, "--steps", "1"])
    assert "right answer" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "RUN", "--index", "500"], r"--index must be in [0, 500), got 500"),
        (["solve", "RUN", "12"], "the puzzle has 2 cells, and must have 16"),
        (["solve", "RUN", PUZZLE, "--steps", "0"], "steps must be at least 1, got 0"),
        (["solve", "none", PUZZLE], "there is no reasoner none; train one: loopwm arc train"),
        (["train", "chess", "--out", "x"], "there is no lesson 'chess'"),
        (["train", "sudoku-4x4", "--out", "x", "--device", "abacus"], "cannot be used here"),
        (["import", "none.pt", "--out", "x"], "there is no file none.pt"),
        (["train", "sudoku-4x4", "--init", "RUN", "--out", "RUN"], "--init and --out are both"),
        (["import", "RUN/metrics.jsonl", "--out", "RUN"], "is already there: add --overwrite"),
        (["import", "RUN/metrics.jsonl", "--out", "RUN", "--overwrite"], "holds a run"),
        (["export", "RUN", "RUN/manifest.json"], "lies in the reasoner's own folder"),
        (["show", "RUN", "--index", "3", "--puzzle", PUZZLE], "give one of them"),
        (["evaluate", "RUN", "--device", "abacus"], "cannot be used here"),
        (["solve", "RUN", PUZZLE, "--device", "abacus"], "cannot be used here"),
        (["show", "RUN", "--device", "abacus"], "cannot be used here"),
        (["solve", "RUN", "@BINARY"], "weights is no text in UTF-8"),
        (["evaluate"], "MODEL"),
        (["evaluate", "RUN", "--tasks", "-1"], "--tasks must not be negative, got -1"),
        (["evaluate", "RUN", "--tries", "4"], "--tries 4 needs --noise above 0"),
        (["evaluate", "RUN", "--noise", "nan"], "must be a finite number"),
        (["evaluate", "RUN", "--augmentations", "5"], "--augmentations and --tasks are of ARC"),
        (["import", "none.pt", "--out", "x", "--num-puzzles", "5"], "needs --puzzles drop or"),
        (
            ["import", "RUN/manifest.json", "--out", "x", "--preset", "chess"],
            "'chess' is not known",
        ),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, run_dir: Path, capsys):
    (run_dir.parent / "weights").write_bytes(bytes(range(256)))
    places = {"RUN": str(run_dir), "@BINARY": f"@{run_dir.parent / 'weights'}"}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    with pytest.raises(SystemExit) as stop:
        main(["arc", *words])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_run_does_not_take_the_place_of_a_reasoner_it_did_not_make(tmp_path: Path, capsys):
    save(Reasoner(preset("sudoku-6x6"), 0), tmp_path / "other")
    before = (tmp_path / "other" / "manifest.json").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["arc", "train", "sudoku-4x4", "--out", str(tmp_path / "other"), "--updates", "2"])
    assert stop.value.code == 2
    assert "holds a reasoner that no run there made" in capsys.readouterr().err
    assert (tmp_path / "other" / "manifest.json").read_bytes() == before


def test_what_is_exported_comes_back(tmp_path: Path, capsys):
    from loopwm.reason.presets import PUBLISHED

    published = Reasoner(PUBLISHED["sudoku"])
    save(published, tmp_path / "ours")
    main(["arc", "export", str(tmp_path / "ours"), str(tmp_path / "file.pt")])
    main(["arc", "import", str(tmp_path / "file.pt"), "--out", str(tmp_path / "again")])
    again = load(tmp_path / "again")
    assert again.lesson == "sudoku"
    for name, tensor in published.state_dict().items():
        # The reference stores the fixed starts in 16 bits.
        close = 0.02 if name.startswith("start_") else 0
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=close, rtol=0)
    assert "parameters and 1 puzzle ids" in capsys.readouterr().out


def test_a_small_lesson_is_exported_and_comes_back(run_dir: Path, tmp_path: Path):
    main(["arc", "export", str(run_dir), str(tmp_path / "file.pt")])
    main(["arc", "import", str(tmp_path / "file.pt"), "--out", str(tmp_path / "again")])
    again = load(tmp_path / "again")
    assert again.lesson == "sudoku-4x4"
    assert again.config == load(run_dir).config


def test_where_a_file_fits_several_presets_one_is_asked_for(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    # Published files say nothing of their sizes.
    monkeypatch.setattr("loopwm.reason.convert.note", lambda config: {})
    file, words = tmp_path / "file.pt", ["--out", str(tmp_path / "again")]
    export_trm(Reasoner(preset("arc-16")), file)
    with pytest.raises(SystemExit):
        main(["arc", "import", str(file), *words])
    assert "fits the presets arc-12 and arc-16" in capsys.readouterr().err
    main(["arc", "import", str(file), *words, "--preset", "arc-16"])
    assert load(tmp_path / "again").config == preset("arc-16")
    assert load(tmp_path / "again").lesson == "arc-16"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["solve", "OWN", "d931c21c"], "the reasoner has 3 puzzle ids, the tasks of ARC here have"),
        (["show", "OWN"], "the reasoner has 3 puzzle ids"),
        (["evaluate", "OWN"], "the reasoner has 3 puzzle ids"),
        (["evaluate", "OWN", "--stop", "sure"], "--stop, --noise and --tries do not apply to ARC"),
    ],
)
def test_a_reasoner_that_learned_other_tasks_is_not_asked_about_arc(
    words: list[str], message: str, tmp_path: Path, capsys, monkeypatch
):
    few = [_task("shown")], [_task("d931c21c")]
    monkeypatch.setattr(tasks, "load_arc", lambda version: few)
    model = Reasoner(replace(preset("arc-12"), puzzles=3))
    model.lesson = "arc-12"
    save(model, tmp_path)
    with pytest.raises(SystemExit):
        main(["arc", *(word.replace("OWN", str(tmp_path)) for word in words)])
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_reasoner_of_another_form_of_the_lesson_is_told_so(of_arc: Path, tmp_path: Path, capsys):
    other = Reasoner(replace(load(of_arc).config, length=9))
    other.lesson = "arc-4"
    save(other, tmp_path / "other")
    with pytest.raises(SystemExit):
        main(["arc", "solve", str(tmp_path / "other"), "asked"])
    assert "have 9 tokens, those of the lesson" in capsys.readouterr().err


def _task(name: str, side: int = 2) -> Task:
    grid = np.ones((side, side), np.uint8)
    return Task(name, (Pair(grid, grid),), (Pair(grid, grid),))


@pytest.fixture(params=[False, True], ids=["plain", "told"])
def of_arc(tmp_path: Path, monkeypatch, request: pytest.FixtureRequest) -> Path:
    """Return a reasoner that is asked one task, on a canvas of 4 x 4."""

    training, evaluation = [_task("shown")], [_task("asked"), _task("large", 30)]
    monkeypatch.setattr(tasks, "load_arc", lambda version: (training, evaluation))
    arc = Arc(training, evaluation[:1], ArcConfig(4, 1, told=request.param))
    shape = {"vocabulary": arc.vocabulary, "length": arc.length, "puzzles": arc.num_puzzles}
    sizes = small("attention", **shape)
    look = glyphs.arc(4, told=request.param)
    taught = replace(lesson("arc-12"), model=sizes, look=look, make=lambda: lessons.Material(arc))
    monkeypatch.setitem(lessons.LESSONS, "arc-4", taught)
    model = Reasoner(sizes)
    model.lesson = "arc-4"
    save(model, tmp_path / "arc")
    return tmp_path / "arc"


def test_a_task_of_arc_is_answered_by_a_grid_and_its_canvas_is_not_shown(
    of_arc: Path, capsys, monkeypatch
):
    before = load(of_arc).config.length - 16

    def answered(canvas: list[int]) -> list[str]:
        # Before the canvas, where something is told, an answer means nothing.
        tokens = torch.tensor([[2] * before + canvas])
        found = Answer(tokens, torch.tensor([0.5]), torch.tensor([1]), torch.tensor([False]))
        monkeypatch.setattr(answer, "solve", lambda *_, **__: found)
        main(["arc", "solve", str(of_arc), "asked"])
        return capsys.readouterr().out.splitlines()[:-1]

    # Two rows of three colours, their edges, and what is beyond.
    assert answered([2, 3, 4, 1, 11, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0]) == ["012", "900"]
    assert answered([0] * 16) == ["no grid"]


def test_a_task_of_arc_that_cannot_be_asked_says_why(of_arc: Path, capsys):
    reasons = {
        "shown": "is a training task, whose answers are trained on",
        "large": "needs a canvas of side 30, the reasoner's has side 4",
        "chess": "there is no evaluation task 'chess'",
    }
    for name, reason in reasons.items():
        for words in (["solve", str(of_arc), name], ["show", str(of_arc), "--puzzle", name]):
            with pytest.raises(SystemExit):
                main(["arc", *words])
            assert reason in capsys.readouterr().err


def test_a_reasoner_of_no_lesson_cannot_be_evaluated(tmp_path: Path, capsys):
    save(Reasoner(small("attention")), tmp_path / "own")
    with pytest.raises(SystemExit):
        main(["arc", "evaluate", str(tmp_path / "own")])
    assert "does not say what its reasoner was taught" in capsys.readouterr().err


def test_the_lessons_are_listed(capsys):
    main(["arc", "list"])
    said = capsys.readouterr().out
    for name in ("sudoku-4x4", "maze-9", "region-10", "arc-16"):
        assert name in said
