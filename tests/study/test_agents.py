"""The tables of agents say what their runs say, and a stopped run of a cell goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopwm.agent import recipes
from loopwm.agent.config import MPC, Planning, Refit, SoftActorCritic
from loopwm.errors import ConfigError
from loopwm.study import agents
from loopwm.study.curves import curve_of, plot_returns
from loopwm.study.recipe import Options
from loopwm.study.results import Study, markdown, save_study
from loopwm.train.config import FitConfig
from loopwm.world.config import MLP

TINY = recipes.Recipe(
    MPC(
        refit=Refit(
            model=MLP(width=8, depth=1),
            fit=FitConfig(updates=5, batch_size=16, horizon=1, progress=False),
            updates=2,
            first=20,
            every=10,
        ),
        planning=Planning(horizon=2, candidates=4, iterations=1),
    ),
    steps=40,
    target=6.0,
    episodes=2,
)


def history(*points: tuple[int, float]) -> list[dict[str, Any]]:
    return [
        {"step": k, "real_return": v, "returns": [v - 1, v + 1], "seconds": 36.0} for k, v in points
    ]


def test_runs_are_named_after_what_their_variant_is_today(monkeypatch: pytest.MonkeyPatch):
    def names() -> list[str]:
        every: tuple[recipes.Variant, ...] = ("looped", "mlp", "real", "sac")
        hopper = [agents.AgentCell("Hopper-v5", each, 0).name for each in every]
        return [*hopper, agents.AgentCell("InvertedPendulum-v5", "mlp", 0).name]

    before = names()
    monkeypatch.setattr(recipes, "MLP", lambda **rest: MLP(**{**rest, "width": 16}))
    monkeypatch.setattr(
        recipes, "SoftActorCritic", lambda **rest: SoftActorCritic(**{**rest, "lr": 1e-4})
    )
    same = [one == two for one, two in zip(before, names(), strict=True)]
    assert same == [True, False, True, False, False]


def test_a_target_counts_from_where_it_holds_for_good():
    assert agents.first_reached([(1, 5.0), (2, 7.0), (3, 8.0)], 6) == 2
    assert agents.first_reached([(1, 7.0), (2, 5.0), (3, 6.0)], 6) == 3
    assert agents.first_reached([(1, 7.0), (2, 5.0)], 6) is None
    assert agents.first_reached([], 6) is None


def test_curves_are_the_evaluations_and_others_by_name():
    records = [{"step": 1, "return": 3.0}, {"step": 2, "real_return": 4.0, "return": None}]
    assert curve_of(records) == [(2, 4.0)]
    assert curve_of(records, "return") == [(1, 3.0)]


def test_the_figure_has_each_run_their_mean_and_the_target():
    runs = {"a": [history((1, 0.0), (2, 4.0)), history((1, 2.0), (2, 8.0))]}
    axes = plot_returns(runs, target=5.0, title="t").axes[0]
    drawn = [np.asarray(line.get_ydata()).tolist() for line in axes.lines]
    assert drawn == [[0.0, 4.0], [2.0, 8.0], [1.0, 6.0], [5.0, 5.0]]
    with pytest.raises(ConfigError, match="no evaluation"):
        plot_returns({"a": [[{"step": 1}]]})


@pytest.mark.usefixtures("without_shape_checks")
def test_the_table_says_what_the_runs_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    env_id = "InvertedPendulum-v5"
    monkeypatch.setattr(agents, "RECIPES", {env_id: TINY})
    monkeypatch.setattr(agents, "SEEDS", (0, 1))
    options = Options(work=tmp_path, figures=tmp_path / "figures")
    seeds, method, sheets = agents.agents(env_id, ("looped", "mlp"), options)
    assert seeds == (0, 1)
    summary, curves = sheets
    assert [row["agent"] for row in summary.rows] == ["looped model", "ensemble of MLPs"]
    lines = (tmp_path / "figures" / "agents-invertedpendulum-v5.csv").read_text().splitlines()
    last = [line.split(",") for line in lines if line.split(",")[2] == "40"]
    returns = [float(row[4]) for row in last if row[0] == "looped"]
    assert len(returns) == 2 * TINY.episodes
    assert summary.rows[0]["mean"][0] == pytest.approx(np.mean(returns))
    assert [row["seed"] for row in curves.rows] == ["0", "1", "0", "1"]
    assert (tmp_path / "figures" / "agents-invertedpendulum-v5.png").stat().st_size > 1_000
    study = Study("x", "t", "q", method, sheets, {}, 1)
    assert save_study(study, tmp_path).exists()
    assert "never" in "\n".join(markdown(summary)) or "40" in "\n".join(markdown(summary))
    # What was not run is shown as such, and nothing is computed.
    missing = agents.AgentCell(env_id, "mlp", 1).name
    (tmp_path / "agent-cells" / f"{missing}.json").unlink()
    only = replace(options, finished=True, report=pytest.fail)
    summary, curves = agents.agents(env_id, ("looped", "mlp"), only)[2]
    words = [row["seeds"] for row in summary.rows]
    assert ["not run" in word for word in words] == [False, True]
    assert words[1].endswith("seed 1 not run")
    assert [row["seed"] for row in curves.rows] == ["0", "1", "0"]
    other = agents.AgentCell(env_id, "mlp", 0).name
    (tmp_path / "agent-cells" / f"{other}.json").rename(tmp_path / "kept")
    summary, curves = agents.agents(env_id, ("looped", "mlp"), only)[2]
    assert ["not run" in row["seeds"] for row in summary.rows] == [False, True]
    assert [row["seed"] for row in curves.rows] == ["0", "1"]
    with pytest.raises(ConfigError, match="no run of"):
        agents.agents(env_id, ("mlp",), only)
    (tmp_path / "kept").rename(tmp_path / "agent-cells" / f"{other}.json")
    agents.agents(env_id, ("looped", "mlp"), options)
    # A second call finds all cells finished.
    said: list[str] = []
    agents.agents(env_id, ("looped", "mlp"), replace(options, report=said.append))
    assert said == []
