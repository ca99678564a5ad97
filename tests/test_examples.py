"""Every example runs at its tiny size, and is short enough to be read."""

import itertools
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
# These train several models, or act for a whole episode.
SLOW = {
    *("compare_depths", "compare_own_model", "own_environment"),
    *("partial_observation", "uncertainty"),
}
RUNS = [
    pytest.param(each, marks=[pytest.mark.slow] if each.stem in SLOW else [], id=each.stem)
    for each in EXAMPLES
]
# Something that each prints when it has come to its end.
LAST_WORDS = {
    "compare_own_model": "times the looped model's parameters",
    "compare_depths": "the same cell, not looped",
    "difficulty": "without_contact",
    "halting": "chosen: OutputDelta",
    "minari_roundtrip": "episode      int64    equal",
    "own_environment": "planned in imagination",
    "partial_observation": "four stacked observations",
    "plan": "nothing   the pole stood",
    "solve_sudoku": "halting value by step",
    "train_hopper": "RMSE",
    "uncertainty": "wilder actions",
}


def test_each_example_is_listed_here():
    assert {each.stem for each in EXAMPLES} == set(LAST_WORDS)


@pytest.mark.parametrize("path", RUNS)
def test_the_example_runs_with_smoke(path: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "--smoke"])
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert LAST_WORDS[path.stem] in said
    assert "DIFFERENT" not in said


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_is_short_and_says_what_it_shows(path: Path, monkeypatch, capsys):
    text = path.read_text()
    assert len(text.splitlines()) <= 120
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    assert text.split('"""')[1].split(".")[0].split()[0] in capsys.readouterr().out


def test_the_environment_of_the_example_ends_where_what_is_observed_says_so():
    path = next(each for each in EXAMPLES if each.stem == "own_environment")
    env = runpy.run_path(str(path))["Fan"]()
    env.reset(seed=0)
    found = []
    for x, v in itertools.product(np.linspace(4.9, 5.1, 41), (-0.5, 0.0, 0.5)):
        for sign in (-1, 1):
            env.state = sign * np.array([x, v])
            obs, _, terminated, _, _ = env.step(np.zeros(1, np.float32))
            assert terminated == (abs(obs[0]) > 5)
            found.append(terminated)
    assert set(found) == {True, False}
