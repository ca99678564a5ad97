"""Real models, trained for a few updates: equal terms for all, resumed, counted, audited."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

import loopwm as lw
from loopwm.data.normalise import Statistics
from loopwm.data.replay import Windows
from loopwm.errors import ConfigError, DataError, NumericalError
from loopwm.study.compare import audit, rounds, trial
from loopwm.study.compare.assemble import assemble
from loopwm.study.compare.own import Units, fit_own, verbs_loss
from loopwm.study.compare.rounds import chosen_of, first_round, run_rounds, second_round
from loopwm.study.compare.sizing import make
from loopwm.study.compare.terms import Family, Terms, families_of
from loopwm.study.compare.trial import Scene, Trial, fit_of
from loopwm.study.datasets import Split
from loopwm.study.prediction import evaluate
from loopwm.study.windows import Sampling
from loopwm.world.build import build
from loopwm.world.objective import sequence_loss
from tests.study.compare.small import TERMS, linear_world, run_trial

TRAIN, VALID, TEST = (linear_world(seed) for seed in range(3))
DATA = Split(TRAIN, VALID, VALID, TEST)
NO_CEILING = Sampling(max_windows=TERMS.windows, ceiling_windows=0)


class Mine(nn.Module):
    """Predict the change by one hidden layer; the state is the observation."""

    def __init__(self, data: lw.RolloutDataset, width: int) -> None:
        super().__init__()
        inputs = data.obs_dim + data.action_dim
        self.layers = nn.Sequential(
            nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, data.obs_dim)
        )

    def start(self, obs: Any) -> tuple[torch.Tensor, ...]:
        return (torch.as_tensor(obs, dtype=torch.float32),)

    def observe(self, state: Any, action: Any, obs: Any) -> tuple[torch.Tensor, ...]:
        return self.start(obs)

    def step(self, state: Any, action: Any) -> tuple[Any, lw.Prediction]:
        moved = state[0] + self.layers(torch.cat([state[0], torch.as_tensor(action)], dim=1))
        zero = torch.zeros(len(moved))
        out = lw.Prediction(moved, zero, zero, zero.long(), zero, zero.bool())
        return (moved,), out


class Cheating(Mine):
    """Be the true system before any training."""

    def step(self, state: Any, action: Any) -> tuple[Any, lw.Prediction]:
        drift, push = torch.tensor([[-0.1, 0.2], [-0.2, -0.1]]), torch.tensor([[0.5], [0.2]])
        x = state[0]
        moved = x + x @ drift.T + torch.as_tensor(action) @ push.T
        zero = torch.zeros(len(moved))
        moved = moved + 0 * self.layers(torch.cat([x, torch.as_tensor(action)], dim=1))
        return (moved,), lw.Prediction(moved, zero, zero, zero.long(), zero, zero.bool())


@pytest.mark.slow
def test_compare_gives_every_arm_the_same_and_reports_it(tmp_path: Path):
    lines: list[str] = []
    options: dict[str, Any] = {
        **{"sizes": TERMS.sizes, "rates": TERMS.rates, "seeds": TERMS.seeds, "valid": VALID},
        **{"horizons": (1, 3), "fit": TERMS.fit, "run_dir": tmp_path, "report": lines.append},
    }
    arms = {"small MLP": lw.MLP(depth=2), "mine": Mine}
    report = lw.compare(TRAIN, TEST, arms, **options)
    assert [each.name for each in report.arms] == ["looped", "small MLP", "mine"]
    assert report.differences == ()
    assert report.missing == ()
    assert set(report.ratio) == {"small MLP", "mine"}
    assert {each.trials for arm in report.arms for each in arm.points} == {2}
    assert {each.seeds for arm in report.arms for each in arm.points} == {2}
    # Three arms, two sizes, two rates and one further seed; rates go together but for "mine".
    assert len(lines) == 3 * 2 * 3 - 2 * 2
    assert sum(line.endswith(" and 1 more") for line in lines) == 2 * 2
    assert "mine" in str(report)
    json.loads(report.to_json())
    again = lw.compare(TRAIN, TEST, arms, **options)
    assert len(lines) == 14
    assert again.ratio == report.ratio


def test_an_own_module_that_knows_the_answer_beforehand_is_found():
    report = lw.compare(
        TRAIN,
        TEST,
        {"honest": Mine, "knowing": Cheating},
        sizes=(2_000, 4_000),
        fit=TERMS.fit,
        rates=(1e-3,),
        seeds=(0,),
        horizons=(1, 3),
    )
    assert {each.arm for each in report.differences} == {"knowing"}
    assert "before any update" in str(report.differences[0])
    assert set(report.ratio) == {"honest"}


def test_an_own_module_that_its_factory_has_trained_already_is_found():
    def trained(data: lw.RolloutDataset, width: int) -> Mine:
        module = Mine(data, width)
        batch = torch.as_tensor(
            np.concatenate([data.obs, data.action], axis=1), dtype=torch.float32
        )
        change = torch.as_tensor(data.next_obs - data.obs, dtype=torch.float32)
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(100):
            optimiser.zero_grad()
            (module.layers(batch) - change).square().mean().backward()
            optimiser.step()
        return module

    terms = replace(TERMS, fit=replace(TERMS.fit, updates=1), horizons=(1,))
    scene = Scene(families_of({"honest": Mine, "trained": trained}), DATA, terms)
    asked = {arm: Trial("", arm, 0, 500, 90, 2e-3, 0, 1, "") for arm in ("honest", "trained")}
    records = {arm: [run_trial(each, scene)["audit"]] for arm, each in asked.items()}
    assert {each.arm for each in audit.differences(records)} == {"trained"}


def test_more_data_or_other_updates_are_found_in_the_records():
    scene = Scene(families_of(["looped", "once"]), DATA, TERMS)
    looped, once = (each for each in first_round(scene) if each.size == 2_000 and each.lr == 2e-3)
    fair = {"looped": [run_trial(looped, scene)["audit"]]}
    assert audit.differences({**fair, "once": [run_trial(once, scene)["audit"]]}) == []
    richer = Scene(scene.families, replace(DATA, train=TRAIN.extend(VALID)), TERMS)
    found = audit.differences({**fair, "once": [run_trial(once, richer)["audit"]]})
    assert {each.what for each in found} == {"data", "statistics"}
    longer = replace(once, updates=6)
    found = audit.differences({**fair, "once": [run_trial(longer, scene)["audit"]]})
    assert {each.what for each in found} == {"updates", "windows"}
    other = replace(
        scene,
        families={
            **scene.families,
            "once": Family(
                "heavier",
                (lw.WorldConfig(depth=lw.depth.Fixed(1), objective=lw.Objective(reward=5.0)),),
            ),
        },
    )
    found = audit.differences({**fair, "once": [run_trial(once, other)["audit"]]})
    assert {each.what for each in found} == {"loss"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data, fits: (data.extend(VALID), fits), "statistics"),
        (lambda data, fits: (data, [replace(each, batch_size=16) for each in fits]), "windows"),
        (lambda data, fits: (data, [replace(each, updates=6) for each in fits]), "updates"),
    ],
)
def test_a_training_that_is_secretly_given_more_than_it_is_said_to_have_is_found(
    change: Any, what: str, monkeypatch: pytest.MonkeyPatch
):
    scene = Scene(families_of(["looped", "once"]), DATA, TERMS)
    looped, once = (each for each in first_round(scene) if each.size == 2_000 and each.lr == 2e-3)
    honest, usual = run_trial(looped, scene)["audit"], trial.fit_each

    def secretly(data: Any, config: Any, fits: Any, **options: Any) -> Any:
        data, fits = change(data, fits)
        return usual(data, config, fits, **options)

    monkeypatch.setattr(trial, "fit_each", secretly)
    records = {"looped": [honest], "once": [run_trial(once, scene)["audit"]]}
    assert what in {each.what for each in audit.differences(records)}


@pytest.mark.parametrize(("robust", "row_clip"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.5)])
def test_the_loss_of_own_modules_is_the_one_of_ours(robust: float, row_clip: float):
    weights = lw.Objective(decay=0.5, context=2, robust=robust, row_clip=row_clip)
    config = lw.MLP(width=8, depth=2, margin=None, objective=weights)
    model = build(config, TRAIN.meta, Statistics.of(TRAIN), 0).train().requires_grad_()
    batch = Windows(TRAIN, 4).at(torch.tensor([0, 17, 18, 19, 45]))
    ours, metrics = sequence_loss(model, batch, torch.Generator().manual_seed(0))
    units = Units.of(TRAIN, torch.device("cpu"))
    theirs, found = verbs_loss(model, batch, units, config.objective)
    # The same sums in float32, in environment units and in standardised ones.
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-4)
    assert float(found["error"]) == pytest.approx(float(metrics["error"]), rel=1e-4)
    gradients = [torch.autograd.grad(each, list(model.parameters())) for each in (ours, theirs)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, own, rtol=1e-3, atol=1e-5)


def test_own_modules_are_trained_on_the_very_windows_of_lw_fit():
    fit = replace(TERMS.fit, updates=4, lr=1e-2, seed=5)
    config = lw.MLP(width=8, depth=2, margin=None)
    ours = lw.fit(TRAIN, config, fit, valid=VALID)
    theirs = build(config, TRAIN.meta, Statistics.of(TRAIN), 5)
    fit_own(theirs, TRAIN, fit, config.objective, valid=VALID)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_own_modules_have_the_loss_of_the_reference():
    loss = lw.Objective(robust=0.2, reward=2.0, decay=1.0, mask=0.5, settle=0.1)
    arms = {"looped": lw.WorldConfig(objective=loss), "mine": Mine}
    usual = Scene(families_of({"mine": Mine}), DATA, TERMS)
    scene = replace(usual, families=families_of(arms))
    mine = next(each for each in first_round(scene) if each.arm == "mine")
    assert mine.name not in {each.name for each in first_round(usual)}
    told = run_trial(mine, scene)["audit"]["loss"]
    # Nothing can be hidden from them, and what concerns iterations is the loop's alone.
    assert told == {**audit.shared(loss), "mask": 0.0}
    assert run_trial(mine, usual)["audit"]["loss"] == audit.shared(lw.Objective())
    fit = fit_of(TERMS, mine)
    module = make(Mine, mine.width, TRAIN, mine.seed, "mine")
    fit_own(module, TRAIN, fit, lw.Objective(robust=0.2, reward=2.0, decay=1.0), valid=VALID)
    report = evaluate(cast(Any, module), TEST, TERMS.horizons, train=TRAIN, sampling=NO_CEILING)
    assert run_trial(mine, scene)["report"]["rmse"] == report.to_dict()["rmse"]


def test_own_modules_learn_no_ending_where_the_environment_was_kept_from_it():
    config = lw.MLP(width=8, depth=2, margin=None)
    model = build(config, TRAIN.meta, Statistics.of(TRAIN), 0).train()
    batch = Windows(TRAIN, 2).at(torch.tensor([0, 17, 45]))
    batch = replace(batch, can_end=torch.zeros_like(batch.can_end))
    ours, _ = sequence_loss(model, batch, torch.Generator().manual_seed(0))
    theirs, _ = verbs_loss(model, batch, Units.of(TRAIN, torch.device("cpu")), config.objective)
    torch.testing.assert_close(theirs, ours)


def test_datasets_that_differ_in_labels_or_description_are_told_apart():
    labelled = replace(
        TRAIN, info={**TRAIN.info, "difficulty/x": np.arange(len(TRAIN), dtype=float)}
    )
    turning = replace(TRAIN, meta=replace(TRAIN.meta, angles=(1,)))
    assert len({audit.digest(each) for each in (TRAIN, labelled, turning)}) == 3


def test_a_training_that_is_stopped_while_it_is_measured_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scene = Scene(families_of(["mlp"]), DATA, TERMS)
    first = first_round(scene)[-1]

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trial, "_measured", stop)
        with pytest.raises(KeyboardInterrupt):
            run_trial(first, scene, tmp_path)
    assert (tmp_path / "running" / first.name).exists()
    run_trial(first, scene, tmp_path)
    assert not (tmp_path / "running" / first.name).exists()


def test_rates_and_shapes_are_chosen_by_validation_at_every_size():
    scene = Scene(families_of(["looped", "mlp"]), DATA, TERMS)
    first = first_round(scene)
    errors = {each.name: 1.0 + 0.1 * index for index, each in enumerate(first)}
    wanted = {
        ("mlp", 2_000): 9.9,
        ("mlp", 4_000): 9.9,
        ("looped", 2_000): 9.9,
        ("looped", 4_000): 9.9,
    }
    found = {}
    for each in first:
        value = errors[each.name]
        wanted[each.arm, each.size] = min(wanted[each.arm, each.size], value)
        found[each.name] = {"validation": value}
    for place, each in chosen_of(first, found).items():
        assert errors[each.name] == wanted[place]
    second = second_round(scene, first, found)
    assert len(second) == 4
    assert {each.seed for each in second} == {1}


def test_a_rate_that_fails_is_not_chosen_and_does_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def explode(*given: Any, **options: Any) -> None:
        raise NumericalError("loss is NaN")

    monkeypatch.setattr(trial, "fit_each", explode)
    scene = Scene(families_of(["looped", "once"]), DATA, replace(TERMS, sizes=(2_000, 4_000)))
    first, second, found = run_rounds(scene, tmp_path)
    assert second == []
    assert {each["failed"] for each in found.values()} == {"loss is NaN"}
    assert len(found) == len(first)


def test_sizes_of_one_width_are_refused_by_name():
    scene = Scene(families_of(["once"]), DATA, replace(TERMS, sizes=(2_000, 2_001, 4_000)))
    with pytest.raises(
        ConfigError, match=r"sizes .*'looped' has width=\d+ at each of 2,000, 2,001"
    ):
        first_round(scene)


def test_trials_of_one_name_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        rounds, "run_bundle", lambda given, *_: [(each.name, {"validation": 1.0}) for each in given]
    )
    monkeypatch.setattr(rounds.time, "sleep", pytest.fail)
    scene = Scene(families_of(["once"]), DATA, TERMS)
    twice = 2 * first_round(scene)[:1]
    assert set(rounds.run_all(twice, scene, tmp_path, print)) == {twice[0].name}


def test_the_second_round_begins_where_the_first_is_finished():
    scene = Scene(families_of(["once"]), DATA, TERMS)
    first = first_round(scene)
    found = {each.name: {"validation": 1.0} for each in first}
    (last,) = (each for each in first if (each.arm, each.size, each.lr) == ("once", 2_000, 4e-3))
    del found[last.name]
    places = {(each.arm, each.size) for each in second_round(scene, first, found)}
    assert places == {("looped", 2_000), ("looped", 4_000), ("once", 4_000)}


def test_of_an_ensemble_the_member_that_still_learns_most_counts(monkeypatch: pytest.MonkeyPatch):
    def records(last: float) -> list[dict[str, Any]]:
        before = [{"update": update, "validation": 1.0} for update in range(1, 8)]
        return [*before, {"update": 9, "validation": last}]

    def trained(*given: Any) -> Any:
        return [(None, [records(1.0), records(0.75), records(0.9)], {})]

    scene = Scene(families_of(["once"]), DATA, TERMS)
    monkeypatch.setattr(trial, "_trained", trained)
    monkeypatch.setattr(trial, "_measured", lambda *given: {})
    one = Trial("", "once", 0, 2_000, 16, 2e-3, 0, 3, "")
    assert run_trial(one, scene)["plateau"] == pytest.approx(0.25)


def test_other_data_terms_or_shapes_make_other_trials():
    scene = Scene(families_of(["looped", "once"]), DATA, TERMS)
    names = {each.name for each in first_round(scene)}
    others = [
        replace(scene, data=replace(DATA, train=VALID)),
        replace(scene, data=replace(DATA, test=VALID)),
        replace(scene, terms=replace(TERMS, fit=replace(TERMS.fit, horizon=3))),
        replace(scene, terms=replace(TERMS, margin=0.1)),
        replace(scene, terms=replace(TERMS, windows=31)),
    ]
    for other in others:
        assert not names & {each.name for each in first_round(other)}
    wider = replace(scene, terms=replace(TERMS, seeds=(0, 1, 2), rates=(2e-3, 4e-3, 8e-3)))
    assert names < {each.name for each in first_round(wider)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: families_of({"mlp": 3}), "must be a configuration"),
        (lambda: families_of(["looped"]), "something to compare"),
        (lambda: families_of(["looped", "lstm"]), "there is no arm 'lstm'; arms: looped, .*gru"),
        (lambda: Family("mine", (Mine,), members=3), "members=3"),
        (lambda: Family("none", ()), "has no shape"),
        (lambda: Family("less", (lw.MLP(),), times=0), "times=0"),
        (lambda: Terms(sizes=()), "sizes must be"),
        (lambda: Terms(seeds=(0, 0)), "seeds must be"),
        (lambda: Terms(levels={7: (0.1,)}), "levels must be"),
        (lambda: Terms(windows=0), "windows must be at least 1"),
        (lambda: Terms(horizons=cast(Any, (1.5,))), "horizons must be .*whole numbers"),
        (lambda: Terms(rates=(1e-3, float("nan"))), "rates must be"),
        (lambda: Terms(rates=(1e-3, float("inf"))), "rates must be"),
        # Trials would have one name: both are written 0.001.
        (lambda: Terms(rates=(1e-3, 1.0000001e-3)), "rates must be .*differ in six digits"),
        (lambda: Terms(margin=-0.1), "margin must be"),
        (lambda: Terms(margin=float("nan")), "margin must be"),
        (lambda: Terms(margin=float("inf")), "margin must be"),
        (lambda: Terms(levels={1: (float("inf"),)}), "levels must be"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_impossible_terms_are_refused(change: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        change()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"levels": {1: 0.2}}, r"levels\[1\] must be several numbers, got 0.2"),
        ({"levels": 0.2}, "levels must hold errors by horizon"),
        ({"seeds": 0}, "seeds must be several numbers, got 0"),
        ({"sizes": 8_000}, "sizes must be several numbers, got 8000"),
        ({"rates": 1e-3}, "rates must be several numbers"),
        ({"horizons": (1.5,)}, "horizons must be"),
        ({"sizes": ("a", 2)}, "sizes must be"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_arguments_of_the_wrong_kind_are_refused_by_name(given: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        lw.compare(TRAIN, TEST, ["once"], **given)


def test_modules_without_the_verbs_are_refused():
    with pytest.raises(ConfigError, match="without start, observe, step"):
        make(lambda data, width: nn.Linear(width, 2), 8, TRAIN, 0, "mine")


def test_data_that_does_not_fit_together_is_refused():
    with pytest.raises(DataError, match="test has 1"):
        lw.compare(TRAIN, TEST.keep_obs([0]), ["once"])
    with pytest.raises(DataError, match="one episode"):
        lw.compare(linear_world(0, episodes=1), TEST, ["once"])


def test_what_is_done_is_kept_and_horizons_without_windows_are_left_out(tmp_path: Path):
    terms = replace(TERMS, sizes=(2_000, 4_000), seeds=(0,), rates=(1e-3,), horizons=(1, 50))
    scene = Scene(families_of(["looped", "once"]), DATA, terms)
    first, second, found = run_rounds(scene, tmp_path)
    assert list((tmp_path / "running").iterdir()) == []
    assert len(list((tmp_path / "cells").glob("*.json"))) == 4
    assert rounds.run_all(first, scene, tmp_path, pytest.fail) == found
    # Episodes of twenty steps have no window of fifty.
    report = assemble(scene.families, terms, first, second, found)
    assert set(report.levels) == set(report.ratio["once"]) == {1}
    assert "k=50" in str(report)
