"""`loopwm agent`: train, go on, evaluate, draw."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from loopwm.cli import main
from loopwm.errors import ConfigError, MissingExtra
from loopwm.study import film
from tests.study.test_video import decoded

SETTINGS = json.dumps(
    {
        "refit": {
            "first": 20,
            "every": 20,
            "updates": 2,
            "fit": {"updates": 5, "batch_size": 16},
            "model": {"width": 8},
        },
        "planning": {"horizon": 2, "candidates": 4, "iterations": 1},
    }
)


def train(out: Path, *words: str) -> None:
    command = ["agent", "train", "--algo", "mpc", "--env", "InvertedPendulum-v5", "--out", str(out)]
    main([*command, "--every", "20", "--episodes", "2", "--settings", SETTINGS, *words])


def mistake(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("without_shape_checks")
def test_an_agent_is_trained_further_trained_and_evaluated(tmp_path: Path, capsys):
    run = tmp_path / "run"
    train(run, "--steps", "40", "--no-video")
    said = capsys.readouterr().out
    assert re.search(r"MPC, 40 real steps, \d+ s of one core: mean return .* in 2 episodes", said)
    assert (run / "returns.png").read_bytes()[:4] == b"\x89PNG"
    train(run, "--steps", "60", "--no-video")
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [20, 40, 60]
    capsys.readouterr()
    report = tmp_path / "report.json"
    main(["agent", "evaluate", "--run", str(run), "--episodes", "3", "--json", str(report)])
    assert "InvertedPendulum-v5, 1 agents, 3 episodes each" in capsys.readouterr().out
    assert len(json.loads(report.read_text())["returns"]) == 3
    train(tmp_path / "other", "--steps", "20", "--no-video", "--env-kwargs", '{"frame_skip": 3}')
    line = mistake(capsys, "agent", "evaluate", "--run", str(run), str(tmp_path / "other"))
    assert "learned in different environments (env_kwargs={} and {'frame_skip': 3})" in line
    line = mistake(
        capsys, *["agent", "train", "--algo", "mpc", "--env", "InvertedPendulum-v5"],
        *["--out", str(run), "--seed", "1", "--settings", SETTINGS],
    )  # fmt: skip
    assert "seed was 0 and is now 1" in line


@pytest.mark.slow
@pytest.mark.usefixtures("without_shape_checks")
def test_a_film_shows_the_episode_or_one_line_says_what_is_missing(tmp_path: Path, capsys):
    train(tmp_path, "--steps", "20")
    said = capsys.readouterr().out
    path = tmp_path / "video.mp4"
    if "no graphics library" in said:
        assert not path.exists()
        return
    assert f"wrote {path}" in said
    frames = decoded(path, (512, 480, 3))
    assert len(frames) >= 2
    # Something is seen below the bar with the words.
    assert all(frame[40:].std() > 5 for frame in frames)


def test_without_a_graphics_library_the_remedy_is_named(monkeypatch, tmp_path: Path):
    from loopwm.agent.evaluate import play
    from loopwm.agent.life import Life

    monkeypatch.setattr(film, "backends", lambda: ["osmesa"])
    done = type("Done", (), {"stderr": "OpenGL is missing", "returncode": 1})
    monkeypatch.setattr(film.subprocess, "run", lambda *_, **__: done)
    meta = Life("InvertedPendulum-v5", seed=0).meta
    (episode,) = play(lambda obs: obs[:1] * 0, "InvertedPendulum-v5", 1, 0)
    with pytest.raises(MissingExtra, match="apt-get install"):
        film.film_episode(tmp_path / "x.mp4", episode, meta, 0)
    done.stderr = "DependencyNotInstalled: pygame is not installed"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(MissingExtra, match=r"gymnasium\[classic-control\]"):
        film.film_episode(tmp_path / "x.mp4", episode, meta, 0)


@pytest.mark.parametrize(
    ("words", "steps", "unclipped"),
    [
        ("--env Hopper-v5", 15_000, True),
        ("--env Hopper-v5 --steps 30", 30, True),
        ("--env Hopper-v5 --algo mpc", 2_000, False),
        ("--env Hopper-v5 --algo mpc --unclipped", 2_000, True),
        ("--env Ant-v5", 2_000, False),
    ],
)
def test_what_was_chosen_for_an_environment_is_taken_whole(
    words: str, steps: int, unclipped: bool, monkeypatch, capsys
):
    asked: dict[str, Any] = {}

    def train_agent(env: str, algorithm: Any, steps: int, **options: Any) -> Any:
        asked.update(options, steps=steps)
        raise ConfigError("enough")

    monkeypatch.setattr("loopwm.agent.train.train_agent", train_agent)
    assert "enough" in mistake(capsys, "agent", "train", "--out", "r", *words.split())
    assert (asked["steps"], asked["unclipped"]) == (steps, unclipped)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("agent train --env Pendulm-v1 --out r", "did you mean Pendulum-v1"),
        ("agent train --env Pendulum-v1 --out r --steps 0", "steps must be at least 1"),
        ("agent train --env CartPole-v1 --algo dyna --out r", "plan with lw.MPC"),
        ('agent train --env X-v0 --out r --settings {"a":1}', "there is no setting 'a'"),
        ("agent evaluate --run nowhere", "nowhere holds no agent"),
        ("agent trian", "did you mean 'train'"),
    ],
)
def test_a_mistake_is_one_line(words: str, expected: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = mistake(capsys, *words.split())
    assert line.count("\n") == 1
    assert expected in line
