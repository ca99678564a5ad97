"""What lies beyond the training data is compared at equal error within, seed by seed."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import loopwm as lw
from loopwm.errors import DataError
from loopwm.study.compare.assemble import assemble
from loopwm.study.compare.curve import value_at
from loopwm.study.compare.report import ComparisonReport
from loopwm.study.compare.rounds import first_round
from loopwm.study.compare.study import Outcome, stages_of
from loopwm.study.compare.summary import generalisation, headline
from loopwm.study.compare.terms import families_of
from loopwm.study.compare.trial import Scene, Trial
from loopwm.study.datasets import Split
from tests.study.compare.small import TERMS, linear_world, result, run_trial, trials
from tests.study.compare.test_study import TINY

SIZES = (1_000, 2_000, 4_000, 8_000, 16_000)
Within = Callable[[str, Trial], float]


def report_of(
    within: Within, beyond: Within | None, levels: dict[int, tuple[float, ...]] | None = None
) -> ComparisonReport:
    families = families_of(["looped", "mlp"])
    first, second, found = [], [], {}
    for arm in families:
        for trial in trials(arm, SIZES):
            (second if trial.seed else first).append(trial)
            shifted = None if beyond is None else beyond(arm, trial)
            found[trial.name] = result(trial, within(arm, trial), shifted=shifted)
    terms = replace(TERMS, sizes=SIZES, rates=(1e-3,), levels=levels or {})
    return assemble(families, terms, first, second, found)


def within(arm: str, trial: Trial) -> float:
    """The MLP needs a fifth more in size; each seed errs a tenth more than the one before."""
    factor = {"looped": 1.0, "mlp": 1.2}[arm]
    return (1 + trial.seed / 10) * (trial.size / factor) ** -0.5


def beyond(arm: str, trial: Trial) -> float:
    return {"looped": 2.0, "mlp": 5.0}[arm] * within(arm, trial)


def test_another_quantity_is_read_where_the_error_is_reached_and_nowhere_else():
    errors = np.array([[0.8, 0.4, 0.2]])
    values = 2 * errors**0.7
    for level in (0.8, 0.5, 0.4, 0.25, 0.2):
        read = value_at(errors, values, level)
        assert read.low[0] == read.high[0] == pytest.approx(math.log(2 * level**0.7))
    for level in (0.9, 0.1):
        read = value_at(errors, values, level)
        assert (read.low[0], read.high[0]) == (-math.inf, math.inf)


def test_a_model_that_diverged_on_either_side_gives_no_number_that_is_none():
    errors, values = np.array([[math.inf, 0.4, 0.2]]), np.array([[math.inf, 0.6, 0.5]])
    assert value_at(errors, values, 0.5).high[0] == pytest.approx(math.log(0.6))
    assert value_at(errors, values, 0.2).high[0] == pytest.approx(math.log(0.5))


def test_errors_beyond_are_compared_at_equal_error_within_whatever_the_sizes():
    report = report_of(within, beyond)
    for k in (1, 3):
        ours, theirs = report.beyond["looped"][k], report.beyond["mlp"][k]
        assert [each.growth.value for each in ours] == pytest.approx([2.0] * 3)
        assert [each.gap.value for each in theirs] == pytest.approx([2.5] * 3)
        assert [each.level for each in theirs] == list(report.levels[k])
    # Columns of one heading would be shown once.
    (stage,) = stages_of(TINY)
    shifted = replace(stage, place=replace(stage.place, shift="speeds"))
    for sheet in (*report.sheets(), generalisation(Outcome(((shifted, report),)))):
        labels = [each.label or each.key for each in sheet.columns]
        assert len(set(labels)) == len(labels)
    assert "shifted experience" in str(report)


def test_what_a_seed_does_to_all_errors_cancels():
    # Unpaired, a draw of the good seeds within and of the bad ones beyond would widen these.
    for each in report_of(within, beyond).beyond["mlp"][1]:
        assert (each.growth.low, each.growth.high) == pytest.approx((5.0, 5.0))
        assert (each.gap.low, each.gap.high) == pytest.approx((2.5, 2.5))


def test_an_arm_that_never_errs_as_little_within_is_not_compared():
    report = report_of(lambda arm, t: within(arm, t) * (50 if arm == "mlp" else 1), beyond)
    assert {each.gap.bound for each in report.beyond["mlp"][1]} == {"?"}


def test_horizons_may_have_levels_of_different_number():
    report = report_of(within, beyond, {1: (0.03, 0.02, 0.015), 3: (0.04,)})
    tables = {" ".join(each.title.split()[:2]): each for each in report.sheets()}
    rows = [row for row in tables["error on"].rows if row["model"].startswith("MLP")]
    assert ["level_3" in row for row in rows] == [True, False, False]
    by_measure = {
        row["measure"]: row for row in tables["size over"].rows if row["level"] == "middle"
    }
    assert by_measure["FLOPs per step"]["ratio_1"] == str(report.quality["flops"]["mlp"][1][1])
    assert by_measure["FLOPs per step"]["ratio_3"] == str(report.quality["flops"]["mlp"][3][0])
    assert "2 of 3" in str(report)


def test_without_shifted_experience_there_is_no_such_table():
    report = report_of(within, None)
    assert report.beyond == {}
    assert "shifted" not in str(report)


def test_shifted_experience_is_measured_like_the_test_and_makes_another_trial():
    train, valid, test = (linear_world(seed) for seed in range(3))
    families = families_of(["looped", "mlp"])
    plain = Scene(families, Split(train, valid, valid, test), TERMS)
    scene = replace(plain, data=replace(plain.data, shifted=test))
    (trial, *_) = (each for each in first_round(scene) if each.arm == "mlp")
    found = run_trial(trial, scene)
    assert found["shifted"] == found["report"]
    assert found["audit"]["shifted"] == found["audit"]["test"]
    assert not {each.name for each in first_round(plain)} & {e.name for e in first_round(scene)}


def test_shifted_experience_of_another_task_is_refused():
    train, test = linear_world(0), linear_world(1)
    with pytest.raises(DataError, match="shifted has 1"):
        lw.compare(train, test, ["once"], shifted=test.keep_obs([0]))


def test_a_study_shows_what_is_beyond_apart_from_its_headline():
    (stage,) = stages_of(TINY)
    shifted = replace(stage, place=replace(stage.place, shift="speeds"))
    report = report_of(within, beyond)
    outcome = Outcome(((stage, report), (shifted, report)))
    assert {row["place"] for row in headline(outcome).rows} == {stage.place.name}
    looped, mlp = generalisation(outcome).rows
    assert looped["growth_1"].startswith("2 [")
    assert mlp["gap_1"] == "2.5 [2.5, 2.5]"
    assert mlp["shift"] == "speeds"
    assert "speeds: fast episodes, from slow ones" in generalisation(outcome).title
