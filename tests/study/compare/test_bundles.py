"""Trials that differ in rate and seed alone train abreast, and each has a result of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import loopwm as lw
from loopwm.errors import NumericalError
from loopwm.study.compare import audit, trial
from loopwm.study.compare.rounds import bundles, first_round, run_all, run_rounds
from loopwm.study.compare.terms import families_of
from loopwm.study.compare.trial import Scene, Trial
from loopwm.study.datasets import Split
from tests.stops import stopped_at
from tests.study.compare.small import TERMS, linear_world, run_trial

TRAIN, VALID, TEST = (linear_world(seed) for seed in range(3))
DATA = Split(TRAIN, VALID, VALID, TEST)
RATES = replace(TERMS, rates=(1e-3, 2e-3, 4e-3), seeds=(0, 1, 2))


def own(data: lw.RolloutDataset, width: int) -> torch.nn.Module:
    raise AssertionError("nothing is built to form bundles")


def scene_of(*arms: str, **options: Any) -> Scene:
    return Scene(families_of(list(arms)), DATA, replace(RATES, **options))


def test_rates_of_one_size_go_together_but_where_layers_do_not_allow_it():
    scene = scene_of("looped", "once", "untied", "mlp", "gru", "contractive", "looped-ensemble")
    first = first_round(scene)
    groups = bundles(first, scene)
    assert sorted(each.name for group in groups for each in group) == sorted(e.name for e in first)
    for group in groups:
        alone = group[0].arm in ("gru", "contractive", "looped-ensemble")
        assert [each.lr for each in group] == ([group[0].lr] if alone else [1e-3, 2e-3, 4e-3])
        assert len({(each.arm, each.shape, each.width, each.seed) for each in group}) == 1


def test_modules_of_ones_own_stand_alone_and_so_does_what_is_compiled():
    mine = Scene(families_of({"mine": own}), DATA, RATES)
    trials = [
        Trial("", "mine", 0, 2_000, 8, lr, seed, 3, "x") for lr in (1e-3, 2e-3) for seed in (0, 1)
    ]
    assert bundles(trials, mine) == [[each] for each in trials]
    compiled = scene_of("once", fit=replace(RATES.fit, compiled=True))
    assert all(len(group) == 1 for group in bundles(first_round(compiled), compiled))


def test_each_trial_of_a_bundle_has_a_model_and_an_audit_of_its_own(tmp_path: Path):
    scene = scene_of("looped", "once", sizes=(2_000, 4_000))
    first, second, found = run_rounds(scene, tmp_path)
    assert {each.name for each in (*first, *second)} == set(found)
    assert {each["at_once"] for each in found.values()} == {3, 2}
    errors = [each["validation"] for each in found.values()]
    assert len(set(errors)) == len(errors)
    records: dict[str, list[Any]] = {"looped": [], "once": []}
    for each in found.values():
        records[each["trial"]["arm"]].append(each["audit"])
    alone = run_trial(first[0], scene)
    assert alone["at_once"] == 1
    assert audit.differences({**records, "alone": [alone["audit"]]}) == []
    assert not list((tmp_path / "running").iterdir())


def test_what_is_left_of_a_bundle_is_trained_without_what_is_there(tmp_path: Path):
    scene = scene_of("once")
    group = bundles(first_round(scene), scene)[0]
    run_all(group[1:2], scene, tmp_path, print)
    found = run_all(group, scene, tmp_path, print)
    assert [found[each.name]["at_once"] for each in group] == [2, 1, 2]


def test_a_rate_that_destroys_training_leaves_the_others_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = trial.fit_each

    def fragile(data: Any, config: Any, settings: Any, **options: Any) -> Any:
        if any(each.lr == 4e-3 for each in settings):
            raise NumericalError("loss is NaN")
        return real(data, config, settings, **options)

    monkeypatch.setattr(trial, "fit_each", fragile)
    scene = scene_of("once")
    group = bundles(first_round(scene), scene)[0]
    found = run_all(group, scene, tmp_path, print)
    assert [found[each.name].get("failed") for each in group] == [None, None, "loss is NaN"]
    assert [found[each.name].get("at_once") for each in group] == [1, 1, None]


def test_an_update_that_is_not_finite_sends_all_to_train_alone(monkeypatch: pytest.MonkeyPatch):
    real = trial.fit_each

    def skipping(data: Any, config: Any, settings: Any, **options: Any) -> Any:
        models = real(data, config, settings, **options)
        models[-1].history[-2]["skipped"] = len(settings) - 1
        return models

    monkeypatch.setattr(trial, "fit_each", skipping)
    scene = scene_of("once")
    found = run_all(bundles(first_round(scene), scene)[0], scene, None, print)
    assert [each["at_once"] for each in found.values()] == [1, 1, 1]


def test_what_is_trained_alone_is_kept_when_the_next_one_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, calls = trial.fit_each, []

    def dying(data: Any, config: Any, settings: Any, **options: Any) -> Any:
        calls.append([each.lr for each in settings])
        if len(settings) > 1:
            options["run_dir"].mkdir(parents=True)
            raise NumericalError("loss is NaN")
        if calls.count([2e-3]) == 1 and settings[0].lr == 2e-3:
            raise KeyboardInterrupt
        return real(data, config, settings, **options)

    monkeypatch.setattr(trial, "fit_each", dying)
    scene = scene_of("once")
    group = bundles(first_round(scene), scene)[0]
    with pytest.raises(KeyboardInterrupt):
        run_all(group, scene, tmp_path, print)
    run_all(group, scene, tmp_path, print)
    assert calls.count([1e-3]) == 1
    assert not list((tmp_path / "running").iterdir())


def test_a_bundle_that_is_stopped_while_it_is_measured_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trial, "_measured", stopped_at(2, trial._measured))
    scene = scene_of("once")
    group = bundles(first_round(scene), scene)[0]
    with pytest.raises(KeyboardInterrupt):
        run_all(group, scene, tmp_path, print)
    found = run_all(group, scene, tmp_path, print)
    assert [found[each.name]["at_once"] for each in group] == [3, 3, 3]
    assert not list((tmp_path / "running").iterdir())
