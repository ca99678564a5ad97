"""A comparison trains what it says, chooses by validation, and tabulates what was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loopwm.errors import ConfigError, NumericalError
from loopwm.study import datasets, efficiency, plan
from loopwm.study.accuracy import PredictionReport
from loopwm.study.arms import ARMS, arm_of
from loopwm.study.comparison import (
    group_cells,
)
from loopwm.study.datasets import Experience, Split, is_velocity, position_dims, study_data
from loopwm.study.efficiency import Cell, held_out_error, run_cell, run_seeds
from loopwm.study.plan import Plan, plan_finals, plan_further, plan_trials, run_plan
from loopwm.study.prediction import evaluate
from loopwm.study.recipe import training
from loopwm.study.windows import Sampling
from loopwm.train.config import FitConfig
from loopwm.world.build import load
from loopwm.world.config import WorldConfig
from loopwm.world.fit import fit_each
from loopwm.world.model import WorldModel
from tests.stops import stopped_at

BASE = Cell(task="linear", updates=4, rows=200)


@pytest.fixture
def small(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cells train on the linear world, on tiny models."""
    split = Split(world.train, world.test, world.test, world.test)
    monkeypatch.setattr(efficiency, "study_data", lambda experience, folder: split)
    monkeypatch.setattr(efficiency, "HORIZONS", (1, 5))
    for name in ("looped", "once"):
        config = replace(ARMS[name].config, width=8)
        monkeypatch.setitem(ARMS, name, replace(ARMS[name], config=config))


def trial(arm: str, lr: float, validation: float | None) -> dict[str, Any]:
    return {"cell": {"arm": arm, "lr": lr}, "validation": validation}


def test_a_cell_trains_evaluates_and_leaves_its_model(small: None, tmp_path: Path) -> None:
    result = run_cell(BASE, tmp_path)
    report = PredictionReport.from_dict(result["report"])
    assert report.horizons == (1, 5)
    assert result["parameters"] > result["core_parameters"] > 0
    assert result["flops"] > 0
    assert (tmp_path / "models" / BASE.name).exists()
    assert not (tmp_path / "running" / BASE.name).exists()


def test_a_plan_is_resumed_without_training_again(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Plan(BASE, ("looped", "once"), (1e-3, 2e-3), 2, 3, (0, 1))
    lines: list[str] = []
    trials, finals = run_plan(wanted, tmp_path, report=lines.append)
    # Of each arm, the run of the first seed at the chosen rate is one of its trials.
    assert (len(trials), len(finals), len(lines)) == (4, 4, 6)
    assert len(trials.keys() & finals.keys()) == 2
    assert {each["cell"]["seed"] for each in trials.values()} == {0}
    monkeypatch.setattr(plan, "run_seeds", lambda *given: pytest.fail("trained again"))
    assert run_plan(wanted, tmp_path) == (trials, finals)


def test_what_is_finished_of_a_plan_is_shown_and_the_rest_is_told(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Plan(BASE, ("looped", "once"), (1e-3,), updates=3, seeds=(0, 1))
    assert run_plan(wanted, tmp_path, finished=True) == ({}, {})
    _, finals = run_plan(wanted, tmp_path)
    lost = next(name for name, each in finals.items() if each["cell"]["arm"] == "once")
    (tmp_path / "cells" / f"{lost}.json").unlink()
    monkeypatch.setattr(plan, "run_seeds", lambda *given: pytest.fail("trained"))
    _, left = run_plan(wanted, tmp_path, finished=True)
    assert left.keys() == finals.keys() - {lost}
    labels = {group.arm: group.label for group in group_cells(left, of=2)}
    assert labels["once"].endswith("(1 of 2 seeds run)")
    assert "run)" not in labels["looped"]


def test_rates_are_tried_until_the_best_one_lies_between_two_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The error of each arm by learning rate is known, so is the rate that must be found.
    best = {"looped": 16e-3, "once": 0.5e-3, "gru": 2e-3}

    def compute(cells: Sequence[Cell], *_: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        for cell in cells:
            error = abs(np.log(cell.lr / best[cell.arm])) if cell.arm in best else None
            yield cell.name, trial(cell.arm, cell.lr, error)

    monkeypatch.setattr(plan, "run_seeds", compute)
    wanted = Plan(BASE, (*best, "untied"), (1e-3, 2e-3, 4e-3), 6, 3, (0,))
    tried, finals = run_plan(wanted, tmp_path)
    assert {each["cell"]["arm"]: each["cell"]["lr"] for each in finals.values()} == best
    rates = {
        arm: [t["cell"]["lr"] for t in tried.values() if t["cell"]["arm"] == arm] for arm in best
    }
    assert sorted(rates["looped"]) == [1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3]
    assert sorted(rates["once"]) == [0.25e-3, 0.5e-3, 1e-3, 2e-3, 4e-3]
    assert len(rates["gru"]) == 3
    assert plan_further(BASE, tried, 6) == []


def test_a_single_rate_needs_no_trial(small: None, tmp_path: Path) -> None:
    trials, finals = run_plan(Plan(BASE, ("looped",), (1e-3,), updates=3, seeds=(0, 1)), tmp_path)
    assert trials == {}
    assert [(c["cell"]["updates"], c["cell"]["seed"]) for c in finals.values()] == [(3, 0), (3, 1)]
    assert all("report" in each for each in finals.values())


def test_seeds_trained_at_once_are_the_members_of_one_training(small: None, tmp_path: Path) -> None:
    wanted = Plan(BASE, ("looped", "once"), (1e-3,), updates=3, seeds=(0, 1), at_once=("looped",))
    lines: list[str] = []
    _, finals = run_plan(wanted, tmp_path, report=lines.append)
    assert [line.split(": ")[0] for line in lines] == ["1 of 3", "2 of 3", "3 of 3"]
    assert [each["cell"]["seed"] for each in finals.values()] == [0, 1, 0, 1]
    cells = [Cell(**each["cell"]) for each in finals.values() if each["cell"]["arm"] == "looped"]
    data = efficiency.study_data(Experience(BASE.task, BASE.rows), tmp_path)
    settings = [efficiency._fit_config(cell, 1) for cell in cells]
    members = fit_each(data.train, efficiency._config(cells[0]), settings, valid=data.held)
    for cell, member in zip(cells, members, strict=True):
        mine = load(tmp_path / "models" / cell.name).state_dict()
        assert all(torch.equal(mine[name], value) for name, value in member.state_dict().items())
    assert not list((tmp_path / "running").iterdir())


def test_seeds_trained_at_once_go_on_after_a_stop_between_two_models(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [replace(BASE, seed=seed) for seed in (0, 1)]
    whole = dict(run_seeds(cells, tmp_path / "whole"))
    monkeypatch.setattr(WorldModel, "save", stopped_at(2, WorldModel.save))
    with pytest.raises(KeyboardInterrupt):
        dict(run_seeds(cells, tmp_path / "stopped"))
    assert [(tmp_path / "stopped" / "models" / cell.name).exists() for cell in cells] == [1, 0]
    again = dict(run_seeds(cells, tmp_path / "stopped"))
    assert {name: each["report"] for name, each in again.items()} == {
        name: each["report"] for name, each in whole.items()
    }


@pytest.mark.parametrize("broken", ["stopped", "skipped"])
def test_seeds_of_which_one_meets_nan_are_trained_alone(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    cells = [replace(BASE, seed=seed) for seed in (0, 1)]

    def spoiled(data: Any, config: Any, settings: Any, **named: Any) -> Any:
        several = len(settings) > 1
        if several and broken == "stopped":
            raise NumericalError("an update was not finite")
        models = fit_each(data, config, settings, **named)
        if several:
            models[1].history[-1]["skipped"] = 1
        return models

    monkeypatch.setattr("loopwm.world.fit.fit_each", spoiled)
    at_once = dict(run_seeds(cells, tmp_path / "at once"))
    alone = {cell.name: run_cell(cell, tmp_path / "alone") for cell in cells}
    for cell in cells:
        assert at_once[cell.name]["report"] == alone[cell.name]["report"]


def test_seeds_of_an_ensemble_are_trained_as_ensembles(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARMS, "pair", replace(ARMS["looped"], members=2))
    cells = [replace(BASE, arm="pair", seed=seed) for seed in (0, 1)]
    found = dict(run_seeds(cells, tmp_path))
    single = run_cell(BASE, tmp_path)
    assert {found[cell.name]["parameters"] for cell in cells} == {2 * single["parameters"]}


def test_rates_are_chosen_by_the_error_of_one_step_and_of_fifteen(world: Any) -> None:
    split = Split(world.train, world.train, world.test, world.train)
    model = world.model(0.1)
    report = evaluate(
        model, world.test, (1, 15), train=world.train, sampling=Sampling(ceiling_windows=0)
    )
    expected = np.sqrt(report.rmse[1] * report.rmse[15])
    assert held_out_error(model, split, 1) == pytest.approx(expected, rel=1e-9)


def test_a_cell_tells_apart_what_is_held_to_the_range_and_what_is_not(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float | None, str | None]] = []

    def record(model: Any, *given: Any, **options: Any) -> PredictionReport:
        seen.append((model.margin, options.get("feedback")))
        return evaluate(model, *given, **options)

    monkeypatch.setattr("loopwm.study.prediction.evaluate", record)
    result = run_cell(BASE, tmp_path)
    # On the validation set, then thrice on the test set.
    assert seen == [(0.1, None), (0.1, None), (0.1, "latent"), (None, None)]
    assert set(result["also"]) == {"latent", "free"}


def test_a_model_that_is_there_is_measured_and_not_trained(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_cell(BASE, tmp_path)
    monkeypatch.setattr("loopwm.world.fit.fit", lambda *given, **options: pytest.fail("trained"))
    again = run_cell(BASE, tmp_path)
    assert again == first
    assert again["seconds"] > 0


def test_a_rate_that_destroys_training_is_a_finding(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*given: Any, **options: Any) -> None:
        raise NumericalError("loss is NaN")

    monkeypatch.setattr("loopwm.world.fit.fit", explode)
    result = run_cell(BASE, tmp_path)
    assert (result["validation"], result["failed"]) == (None, "loss is NaN")
    assert group_cells({"one": result}) == []


def test_trials_cover_every_arm_and_rate_and_nothing_else() -> None:
    cells = plan_trials(BASE, ("looped", "gru"), (1e-3, 3e-3))
    assert [(each.arm, each.lr) for each in cells] == [
        *(("looped", 1e-3), ("looped", 3e-3)),
        *(("gru", 1e-3), ("gru", 3e-3)),
    ]
    assert len({each.name for each in cells}) == 4


def test_the_best_rate_and_the_best_shape_are_chosen_by_validation() -> None:
    trials = {
        "a": trial("looped", 1e-3, 0.5),
        "b": trial("looped", 3e-3, 0.4),
        "c": trial("mlp-4x208", 1e-3, 0.6),
        "d": trial("mlp-3x256", 3e-3, 0.3),
        "e": trial("mlp-2x384", 3e-3, None),
    }
    cells = plan_finals(BASE, trials, (0, 1))
    assert [(each.arm, each.lr, each.seed) for each in cells] == [
        *(("looped", 3e-3, 0), ("mlp-3x256", 3e-3, 0)),
        *(("looped", 3e-3, 1), ("mlp-3x256", 3e-3, 1)),
    ]
    with pytest.raises(ConfigError, match="did not fail"):
        plan_finals(BASE, {"e": trials["e"]}, (0,))


def test_a_cell_of_adamw_trains_by_adamw(small: None, tmp_path: Path) -> None:
    by_adamw = replace(BASE, optimizer="adamw")
    assert by_adamw.name != BASE.name
    error, other = (run_cell(cell, tmp_path)["validation"] for cell in (by_adamw, BASE))
    assert error != other


def test_two_cells_that_differ_have_different_names() -> None:
    changes: dict[str, Any] = {
        **{"task": "other", "arm": "once", "seed": 1, "lr": 2e-3, "updates": 5, "rows": 300},
        **{"observation": "positions", "mixture": "excitation", "horizon": 8, "context": 2},
        **{"batch": 64},
    }
    names = {replace(BASE, **{key: value}).name for key, value in changes.items()}
    assert len(names | {BASE.name}) == len(changes) + 1


def test_a_cell_of_other_settings_or_of_another_version_has_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [BASE.name]
    monkeypatch.setattr("loopwm.world.build.SCHEMA", -1)
    names.append(BASE.name)
    monkeypatch.setitem(ARMS, BASE.arm, replace(ARMS[BASE.arm], config=WorldConfig(width=65)))
    names.append(BASE.name)
    assert len(set(names)) == 3


def test_an_arm_can_have_an_untried_rate_of_its_own(small: None, tmp_path: Path) -> None:
    plan = Plan(BASE, ("looped", "once"), (5e-3,), updates=3, seeds=(0,), own={"once": 1e-2})
    finals = run_plan(plan, tmp_path)[1].values()
    assert {each["cell"]["arm"]: each["cell"]["lr"] for each in finals} == {
        "looped": 5e-3,
        "once": 1e-2,
    }
    assert "0.005, 0.01 for same cell" in training(plan)


def test_every_mlp_of_the_family_has_four_times_the_parameters_of_the_looped_model() -> None:
    from loopwm.data.meta import DatasetMeta
    from loopwm.data.normalise import Statistics
    from loopwm.world.build import build

    for obs, act in ((11, 3), (17, 6)):
        one = (0.0,) * act
        meta = DatasetMeta(action_low=one, action_high=one)
        ones = np.ones(obs, np.float32)
        one_reward = np.ones((), np.float32)
        stats = Statistics(ones, ones, ones, ones, one_reward, one_reward, -ones, ones)
        sizes = {
            name: build(arm.config, meta, stats, 0).num_parameters
            for name, arm in ARMS.items()
            if arm.family == "mlp" or name == "looped"
        }
        looped = sizes.pop("looped")
        assert len(sizes) == 3
        assert min(sizes.values()) >= 4 * looped


@pytest.mark.parametrize(
    ("name", "answer"), [("lopped", "did you mean 'looped'?"), ("xyz", "known: looped, once")]
)
def test_an_unknown_arm_is_answered_by_the_known_ones(name: str, answer: str) -> None:
    with pytest.raises(ConfigError, match=answer.replace("?", r"\?")):
        arm_of(name)


def test_experience_is_collected_once_and_split_by_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "VALID_ROWS", 700)
    monkeypatch.setattr(datasets, "TEST_ROWS", 1200)
    wanted = Experience("Pendulum-v1", 4200, mixture="excitation")
    split = study_data(wanted, tmp_path)
    assert len(split.train) + len(split.held) == 4200
    assert (len(split.valid), len(split.test)) == (700, 1200)
    monkeypatch.setattr(datasets, "collect", lambda *given: pytest.fail("collected again"))
    again = study_data(wanted, tmp_path)
    np.testing.assert_array_equal(split.train.obs, again.train.obs)


def test_velocities_are_told_by_their_names(world: Any) -> None:
    meta = replace(world.train.meta, obs_names=("rootz", "d rootz/dt", "thigh"))
    assert position_dims(replace(world.train, meta=meta)) == [0, 2]
    assert is_velocity("d rootx/dt")
    assert not is_velocity("dt")


def test_the_training_settings_are_those_of_the_cell() -> None:
    config = efficiency._fit_config(replace(BASE, updates=100, lr=2e-3, horizon=7, seed=3), 2)
    assert isinstance(config, FitConfig)
    assert (config.updates, config.lr, config.horizon, config.seed) == (100, 2e-3, 7, 3)
    assert (config.threads, config.validate_every) == (2, 5)
