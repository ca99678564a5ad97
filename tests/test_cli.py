"""The command line: help without torch, one line for each mistake, and the way from end to end."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import loopwm as lw
from loopwm.cli import main
from loopwm.cli.choice import ModelChoice, Refinement
from loopwm.cli.collect import Collect
from loopwm.cli.stored import refuse_unwritable
from loopwm.cli.train import Train
from loopwm.cli.usage import COMMANDS, parse
from loopwm.core.config import Bounded, Contractive, PostNorm
from loopwm.core.depth import Fixed, Poisson
from loopwm.core.halt import Fixed as FixedHalt
from loopwm.core.halt import OutputDelta
from loopwm.data.collect import collect
from loopwm.data.store import RolloutDataset
from loopwm.errors import StoreError
from loopwm.study.results import Column, Sheet, Study, save_study
from loopwm.train.config import AdamW, Muon
from loopwm.world.config import GRU, MLP, RSSM, Gaussian, Untied, WorldConfig

ALL_HELP = """
import sys, time
from loopwm.cli import main
pages = [[], ["--help"], ["policies"], *([*name.split(), "--help"] for name in {names})]
for page in pages:
    try:
        main(page)
    except SystemExit as stop:
        assert stop.code == 0, page
first = time.process_time()
print("TORCH", [name for name in ("torch", "mujoco", "gymnasium") if name in sys.modules])
print("SECONDS", first)
"""


def run(*words: str | Path) -> None:
    main([str(word) for word in words])


def mistake(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run a command that must fail, and return the line that says why."""
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("loopwm: ")
    return captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with a dataset and a trained model, both made by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    kwargs = (
        '{"terminate_when_unhealthy": false, "exclude_current_positions_from_observation": true}'
    )
    run("collect", "Hopper-v5", "--steps", "2500", "--unclipped", "--out", folder / "data",
        "--env-kwargs", kwargs)  # fmt: skip
    run("train", folder / "data", "--out", folder / "run", "--width", "16", "--updates", "10")
    return folder


def test_no_help_page_imports_torch_or_a_simulator_and_all_are_quick():
    code = ALL_HELP.format(names=list(COMMANDS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "TORCH []" in done.stdout
    # All pages together, in seconds of the processor, which a busy machine does not stretch much.
    assert float(done.stdout.split("SECONDS")[1]) < 3
    for name in COMMANDS:
        assert f"usage: loopwm {name}" in done.stdout


def test_the_first_help_page_takes_less_than_a_second_of_the_processor():
    code = "import time; from loopwm.cli import main\ntry: main(['--help'])\nfinally: "
    code += "print('SECONDS', time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(done.stdout.split("SECONDS")[1]) < 1


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("agent train", "--no-video Film no episode"),
        ("imagine", "--no-video Write no video"),
        ("bench", "--no-compiled Leave torch.compile out"),
        ("bench", "--no-growth Leave out how"),
        ("bench arc", "--no-compiled Leave torch.compile out"),
    ],
)
def test_a_flag_that_says_no_is_said_to_do_so(command: str, expected: str, capsys):
    with pytest.raises(SystemExit):
        run(*command.split(), "--help")
    assert expected in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_the_help_is_a_command(name: str):
    text = COMMANDS[name].__doc__ or ""
    examples = [line.strip() for line in text.splitlines() if line.strip().startswith("loopwm ")]
    assert examples
    for example in examples:
        assert isinstance(parse(shlex.split(example)[1:]), COMMANDS[name])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian x", "did you mean 'train'"),
        ("nonsense", "commands: demo, collect"),
        ("policies lst", "did you mean 'list'"),
        ("train", "missing: DATA, --out PATH"),
        ("train d --out r --updats 4", r"--updats.*did you mean --updates\?.*loopwm train --help"),
        ("train d --out r --updates", "--updates needs a value; see: loopwm train --help"),
        ("train d --out r --updates five", "--updates.*'five'"),
        ("train d --out r --updates 0", "updates=0 is out of range"),
        ("train d --out r --lr -1", "lr=-1.0 is out of range: it must be a positive number"),
        ("train d --out r --device quantum", 'device="quantum" cannot be used.*"auto" or "cpu"'),
        ("train d --out r --model lop", "invalid choice 'lop'.*looped"),
        ("compare", "give a file of settings or --quick"),
        ("compare a.toml --quick", "give a file of settings or --quick"),
        ("compare a.toml --list --report", "--list and --report exclude each other"),
        ("compare a.toml --workers 0", "must be above 0"),
        ("compare nowhere.toml", "there is no file nowhere.toml"),
        ("train d --out r --model mlp --fixed-depth", "--fixed-depth does not apply to --model"),
        ("train d --out r --with chess", r"there is no lesson 'chess'; choose one of sudoku-4x4"),
        ("train d --out r --with arc --model mlp", "--with shares a looped core, and MLP has none"),
        (
            "train d --out r --with arc --members 2",
            "--with trains one world model, got --members 2",
        ),
        ("train d --out r --with arc --cell bounded", "--with gives the world model the cell of"),
        (
            "train d --out r --with arc-12 --width 20",
            "twice the heads.*width=20.*valid width is 16",
        ),
        ("train d --out r --slots 8", "--slots and --puzzle-weight need --with LESSON"),
        ("train d --out r", r"there is no dataset d; make one: loopwm collect"),
        ("evaluate m", "needs a model and a dataset"),
        ("evaluate m d", "there is no model m; train one"),
        ("evaluate m d --tol 0.1 --iterations 3", "exclude each other"),
        ("imagine m d --out o --tol 0", "tol must be above 0"),
        ("collect Hoper-v5 --out d", "there is no environment 'Hoper-v5'; did you mean Hopper-v5"),
        ("collect Hopper-v5 --out d --steps 0", "steps must be at least 1, got 0"),
        ("collect Hopper-v5 --out d --env-kwargs {", "--env-kwargs is no JSON.*write"),
        ("collect Hopper-v5 --out d --env-kwargs [1]", "--env-kwargs must be a JSON object"),
        ('collect Hopper-v5 --out d --env-kwargs {"heigth":1}', "does not accept.*heigth"),
        ("collect Hopper-v5 --out . --steps 10", "already there: add --overwrite"),
        ("collect Hopper-v5 --out d --policy standard --unclipped", "leave out --env-kwargs"),
        ("collect Hopper-v5 --out d --split test", "--policy mixture has none.*another --seed"),
        ("collect Hopper-v5 --out d --policy ou --split valid", "--policy ou has none"),
        ("results --folder none", "none holds no studies.*--rerun"),
        ("results --rerun nothing", "there is no study 'nothing'; known: .*bench.*"),
        ("results --rerun prediction-hoper", "did you mean 'prediction-hopper'"),
        ("bench --batch 0", "--batch must be at least 1, got 0"),
        ("bench plan --candidates 1", "--candidates must be at least 2, got 1"),
        ("policies train Hopper-v5 --seeds -1", "seeds must be at least one number"),
        ("policies train Hopper-v5 --seeds", "seeds must be at least one number"),
        ("policies list Nothing-v0", "there are no.*actors for 'Nothing-v0'"),
    ],
)
def test_a_mistake_is_one_line_that_says_how_to_go_on(
    words: str, expected: str, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert re.search(expected, mistake(capsys, *words.split()))


def test_a_dataset_with_nan_is_refused_in_one_line(folder: Path, tmp_path: Path, capsys):
    data = RolloutDataset.load(folder / "data")
    # What a faulty exporter would write: checked on reading, not on the way to the disk.
    data.reward[7] = float("nan")
    data.save(tmp_path / "bad")
    line = mistake(capsys, "train", tmp_path / "bad", "--out", tmp_path / "run")
    assert re.search("reward.*7", line)
    assert not (tmp_path / "run").exists()


def test_a_damaged_dataset_is_refused_in_one_line(folder: Path, tmp_path: Path, capsys):
    RolloutDataset.load(folder / "data").save(tmp_path / "data")
    shard = next((tmp_path / "data").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert str(tmp_path) in mistake(capsys, "evaluate", folder / "run", tmp_path / "data")


def test_a_model_is_no_dataset(folder: Path, tmp_path: Path, capsys):
    line = mistake(capsys, "train", folder / "run", "--out", tmp_path / "again")
    assert "is not a dataset" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train DATA --out DATA", "holds a dataset, which a world model would replace"),
        ("train DATA --out DATA --with sudoku-4x4", "holds a dataset, which a world model and a"),
        ("collect Hopper-v5 --overwrite --out RUN", "a world model, which a dataset would replace"),
        ("arc train sudoku-4x4 --out DATA", "holds a dataset, which a reasoner would replace"),
        ("arc import DATA/manifest.json --overwrite --out RUN", "a world model, which a reasoner"),
        ("agent train --env Pendulum-v1 --out DATA", "holds a dataset; an agent needs a folder"),
    ],
)
def test_nothing_of_another_kind_is_replaced(folder: Path, capsys, words: str, expected: str):
    before = {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    places = words.replace("DATA", str(folder / "data")).replace("RUN", str(folder / "run"))
    assert re.search(expected, mistake(capsys, *places.split()))
    assert before == {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize(
    ("words", "work"),
    [
        ("collect Pendulum-v1 --steps 20 --out OUT", "loopwm.data.collect.collect"),
        ("collect Hopper-v5 --policy standard --out OUT", "loopwm.data.standard.collect_standard"),
        ("train DATA --updates 1 --out OUT", "loopwm.world.fit.fit"),
        ("train DATA --with sudoku-4x4 --out OUT", "loopwm.cli.train.puzzles_of"),
        ("arc train sudoku-4x4 --out OUT", "loopwm.reason.teach.teach"),
        ("policies train Hopper-v5 --out OUT", "loopwm.agent.policies.train_policies"),
        ("compare --quick --folder OUT", "loopwm.study.compare.conduct.conduct"),
        ("compare --quick --results OUT", "loopwm.study.compare.conduct.conduct"),
        ("agent train --env Pendulum-v1 --out OUT", "loopwm.agent.train._Run.run"),
        ("demo --smoke --out OUT", "loopwm.study.demo.run_lanes"),
    ],
)
def test_that_nothing_can_be_written_is_said_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch, capsys, words: str, work: str
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, lambda *_, **__: pytest.fail("the work began"))
    (tmp_path / "file").touch()
    places = words.replace("DATA", str(folder / "data")).replace("OUT", "file/below")
    assert re.search("cannot write file|file.* cannot be written", mistake(capsys, *places.split()))


def test_the_probe_leaves_nothing_and_looks_where_it_will_be_written(tmp_path: Path):
    refuse_unwritable(tmp_path / "new" / "data")
    assert [each.name for each in tmp_path.rglob("*")] == ["new"]
    refuse_unwritable(tmp_path / "new")
    assert not any((tmp_path / "new").iterdir())
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(StoreError, match=f"cannot write .*{name}"):
            refuse_unwritable(tmp_path / name)
    with pytest.raises(StoreError, match="cannot write /proc/nothing/data"):
        refuse_unwritable(Path("/proc/nothing/data"))


def test_other_settings_in_a_used_run_directory_are_named(folder: Path, capsys):
    line = mistake(capsys, "train", folder / "data", "--out", folder / "run", "--width", "8")
    assert re.search("holds a run with other settings.*width", line)


@pytest.mark.slow
def test_one_thread_computes_unless_the_user_says_otherwise():
    code = "import os, sys; from loopwm.cli import main\ntry: main(['--version'])\n"
    code += "finally: import torch; print('THREADS', torch.get_num_threads())"
    for chosen, expected in ((None, 1), ("2", 2)):
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        environment |= {} if chosen is None else {"OMP_NUM_THREADS": chosen}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
        assert f"THREADS {expected}" in done.stdout.decode()


def test_traceback_shows_where_a_mistake_was_noticed():
    with pytest.raises(ValueError, match="there is no command"):
        run("--traceback", "nonsense")


def test_an_interruption_ends_with_130_and_one_line(monkeypatch, capsys):
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    for command, words in ((Train, "train d --out r"), (Collect, "collect Hopper-v5 --out d")):
        monkeypatch.setattr(command, "run", interrupt)
        with pytest.raises(SystemExit) as stop:
            run(*words.split())
        assert stop.value.code == 130
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert ("goes on from what it last saved" in said) == (command is Train)


def test_the_dataset_holds_what_was_asked_for(folder: Path):
    data = RolloutDataset.load(folder / "data")
    assert len(data) == 2500
    assert data.meta.unclipped
    assert data.meta.env_kwargs["terminate_when_unhealthy"] is False


def test_models_are_evaluated_side_by_side(folder: Path, tmp_path: Path, capsys):
    for name in ("mlp", "once"):
        run("train", folder / "data", "--out", tmp_path / name, "--model", name, "--width", "8",
            "--updates", "5")  # fmt: skip
    models = [folder / "run", tmp_path / "mlp", tmp_path / "once"]
    run("evaluate", *models, folder / "data", "--horizons", "1", "5", "--max-windows", "50",
        "--json", tmp_path / "report.json", "--plots", tmp_path / "plots")  # fmt: skip
    shown = capsys.readouterr().out
    for row in ("run", "mlp", "once", "copy last", "linear"):
        assert re.search(rf"^│ {row} ", shown, re.MULTILINE)
    document = json.loads((tmp_path / "report.json").read_text())
    assert list(document) == ["run", "mlp", "once"]
    assert set(document["mlp"]["rmse"]) == {"1", "5"}
    assert (tmp_path / "plots" / "error-obs.png").read_bytes().startswith(b"\x89PNG")


def test_a_label_that_never_changes_has_no_correlation_in_a_file_that_is_json(
    folder: Path, tmp_path: Path
):
    data = RolloutDataset.load(folder / "data")
    labels = {"difficulty/constant": np.zeros(len(data))}
    replace(data, info={**data.info, **labels}).save(tmp_path / "data")
    run("evaluate", folder / "run", tmp_path / "data", "--depth", "--max-windows", "50",
        "--json", tmp_path / "depth.json")  # fmt: skip
    text = (tmp_path / "depth.json").read_text()
    (report,) = json.loads(text, parse_constant=pytest.fail).values()
    assert report["raw"]["constant"]["value"] == "nan"
    assert -1 <= report["raw"]["size of the state"]["value"] <= 1


def test_an_episode_is_imagined_into_figures(folder: Path, tmp_path: Path):
    run("imagine", folder / "run", folder / "data", "--out", tmp_path, "--horizon", "20",
        "--no-video")  # fmt: skip
    assert {each.name for each in tmp_path.iterdir()} == {"imagined.png", "iterations.png"}


def test_the_steps_to_imagine_come_after_the_context(folder: Path, tmp_path: Path, monkeypatch):
    seen = []
    monkeypatch.setattr("loopwm.study.plot.plot_episode", lambda each: seen.append(each))
    monkeypatch.setattr("loopwm.study.canvas.png", lambda figure: b"")
    run("imagine", folder / "run", folder / "data", "--out", tmp_path, "--horizon", "3",
        "--context", "5", "--no-video")  # fmt: skip
    (episode,) = seen
    assert len(episode.real) - episode.context == 3


def test_a_model_without_a_loop_has_no_plot_of_iterations(folder: Path, tmp_path: Path, capsys):
    data = lw.RolloutDataset.load(folder / "data")
    short = lw.FitConfig(updates=1, batch_size=8, progress=False)
    lw.fit(data, lw.MLP(width=8, depth=1), short).save(tmp_path / "mlp")
    words = ("imagine", tmp_path / "mlp", folder / "data", "--out", tmp_path / "out")
    assert "has no loop" in mistake(capsys, *words, "--tol", "0.1")
    run(*words, "--horizon", "3", "--no-video")
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"imagined.png"}
    assert "the model has no loop" in capsys.readouterr().out


def test_the_bench_prints_rates(capsys):
    run("bench", "--no-compiled", "--no-growth", "--repeats", "1", "--batch", "8", "--horizon", "2",
        "--task", "Hopper-v5")  # fmt: skip
    assert "bare cell" in capsys.readouterr().out


def test_the_bench_of_planners_prints_times(capsys):
    run("bench", "plan", "--candidates", "8", "--horizon", "2", "--iterations", "1", "--repeats",
        "1", "--threads", "1", "--task", "Pendulum-v1")  # fmt: skip
    assert "CEM, looped, 4" in capsys.readouterr().out


def test_results_are_rendered_from_their_files(tmp_path: Path, capsys):
    sheet = Sheet("numbers", (Column("model"), Column("error")), ({"model": "x", "error": 0.25},))
    save_study(Study("mine", "A study", "Why?", ("How.",), (sheet,)), tmp_path / "results")
    run("results", "--folder", tmp_path / "results", "--page", tmp_path / "results.md")
    assert "| x | 0.250 |" in (tmp_path / "results.md").read_text()
    assert "results.md: mine" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--episode", "99"), ("--start", "5000")])
def test_an_episode_that_is_not_there_is_a_mistake(folder: Path, tmp_path: Path, capsys, words):
    line = mistake(capsys, "imagine", folder / "run", folder / "data", "--out", tmp_path, *words)
    assert "must lie in 0.." in line


def test_a_model_knows_nothing_of_another_environment(folder: Path, tmp_path: Path, capsys):
    collect("CartPole-v1", 50).save(tmp_path / "other")
    words = ("imagine", folder / "run", tmp_path / "other", "--out", tmp_path)
    line = mistake(capsys, *words)
    assert "observations of 11 numbers (it was trained on Hopper-v5), the data of 4" in line
    assert "--horizon must be at least 1, got 0" in mistake(capsys, *words, "--horizon", "0")
    for more in ((), ("--depth",)):
        line = mistake(capsys, "evaluate", folder / "run", tmp_path / "other", *more)
        assert "the model has observations of 11 numbers" in line
    assert line == mistake(capsys, "certify", folder / "run", "--data", tmp_path / "other")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", WorldConfig()),
        ("--model once", WorldConfig(depth=Fixed(1))),
        ("--width 96 --depth 4", WorldConfig(width=96, depth=Poisson(4))),
        ("--depth 4 --fixed-depth", WorldConfig(depth=Fixed(4))),
        ("--cell contractive", WorldConfig(cell=Contractive())),
        ("--cell post-norm", WorldConfig(cell=PostNorm(None, multiple=8))),
        ("--model untied --cell bounded", Untied(cell=Bounded())),
        ("--no-carry --frames 4", WorldConfig(carry=False, frames=4)),
        ("--model mlp --depth 3 --head gaussian", MLP(depth=3, head=Gaussian())),
        ("--model untied --depth 6", Untied(blocks=6)),
        ("--model gru --feedback latent", GRU(feedback="latent")),
        ("--model rssm --width 32", RSSM(width=32)),
    ],
)
def test_options_become_the_configuration_of_the_model(words: str, expected: object):
    command = parse(["train", "d", "--out", "r", *words.split()])
    assert isinstance(command, Train)
    assert command.choice.config() == expected


@pytest.mark.parametrize("model", ["mlp", "untied", "gru"])
def test_options_of_other_models_are_refused(model):
    with pytest.raises(ValueError, match=f"does not apply to --model {model}"):
        ModelChoice(model=model, fixed_depth=True).config()


@pytest.mark.slow
def test_a_world_model_and_a_reasoner_are_trained_together_and_evaluated_apart(
    folder: Path, tmp_path: Path, capsys
):
    out = tmp_path / "both"
    words = ("--updates", "3", "--batch-size", "8", "--slots", "8", "--width", "32")
    run("train", folder / "data", "--out", out, "--with", "sudoku-4x4", *words)
    shown = capsys.readouterr().out
    assert re.search(r"one core, \d+% of the world model and \d+% of the reasoner", shown)
    run("evaluate", out, folder / "data", "--horizons", "1", "--max-windows", "20")
    assert "copy last" in capsys.readouterr().out
    run("arc", "evaluate", out, "--steps", "2")
    assert "8 clues" in capsys.readouterr().out


def test_adamw_alone_keeps_the_settings_that_it_has_beside_muon():
    words = ["train", "d", "--out", "r", "--betas", "0.8", "0.9"]
    optimizers = []
    for command in (parse(words), parse([*words, "--adamw"])):
        assert isinstance(command, Train)
        optimizers.append(command.fit_config().optimizer)
    adamw = AdamW(betas=(0.8, 0.9))
    assert optimizers == [Muon(adamw=adamw), adamw]


def test_refinement_is_a_stop_rule():
    assert Refinement(iterations=3).rule() == FixedHalt(3)
    assert Refinement(tol=0.1).rule() == OutputDelta(0.1)
    assert Refinement().rule() is None


@pytest.mark.slow
def test_a_run_stopped_by_ctrl_c_goes_on_when_the_command_is_repeated(folder: Path, tmp_path: Path):
    words = ["train", folder / "data", "--out", tmp_path / "run", "--width", "16", "--threads", "1"]
    words += ["--updates", "300", "--checkpoint-every", "10", "--log-every", "10"]
    # A test run in the background would hand on an ignored SIGINT.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from loopwm.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    while not (tmp_path / "run" / "checkpoints").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint.count("\n") == 1
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "300 updates" in again.stdout
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [each["update"] for each in map(json.loads, lines) if "loss" in each]
    assert losses == list(range(10, 301, 10))
