"""A report says of known results what they are: ratios, bounds, what is missing, what is unfair."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopwm.errors import DataError
from loopwm.study.accuracy import PredictionReport
from loopwm.study.compare.assemble import assemble
from loopwm.study.compare.audit import differences
from loopwm.study.compare.drawing import error_of
from loopwm.study.compare.figures import figures_of, plot_ratios, ratios_over
from loopwm.study.compare.gap import Gap
from loopwm.study.compare.report import ComparisonReport
from loopwm.study.compare.study import Outcome, stages_of
from loopwm.study.compare.summary import headline
from loopwm.study.compare.tables import csv_text, inverse
from loopwm.study.compare.terms import Terms, families_of
from tests.study.compare.small import TERMS, made_report, result, trials
from tests.study.compare.test_study import TINY

SIZES = (1_000, 2_000, 4_000, 8_000, 16_000)


def law(size: float, factor: float = 1.0) -> float:
    """An arm needs `factor` times the size for the same error."""
    return (size / factor) ** -0.5


def report_of(
    factors: dict[str, float],
    *,
    terms: Terms = replace(TERMS, sizes=SIZES, rates=(1e-3,), seeds=(0, 1, 2)),
    change: Any = lambda found: None,
) -> ComparisonReport:
    families = families_of(["looped", *factors])
    first, second, found = [], [], {}
    for arm, factor in {"looped": 1.0, **factors}.items():
        for trial in trials(arm, SIZES):
            (second if trial.seed else first).append(trial)
            found[trial.name] = result(trial, law(trial.size, factor))
    change(found)
    return assemble(families, terms, first, second, found)


def test_the_ratio_is_the_one_the_results_were_made_with():
    report = report_of({"once": 3.0, "mlp": 0.5})
    for k in (1, 3):
        assert report.ratio["once"][k].value == pytest.approx(3.0)
        assert report.ratio["mlp"][k].value == pytest.approx(0.5)
    # At equal size the error is the root of that.
    assert report.matched["parameters"]["once"][1].value == pytest.approx(math.sqrt(3))
    assert report.stands("once")
    assert report.learning == ()


def test_an_arm_that_never_reaches_the_error_gives_a_lower_bound():
    gap = report_of({"once": 100.0}).ratio["once"][1]
    assert gap.bound == ">="
    assert gap.high == math.inf
    # The level in the middle is that of the looped model of 4,000 parameters.
    assert gap.value == pytest.approx(16_000 / 4_000)


def test_levels_given_beforehand_are_used():
    terms = replace(TERMS, sizes=SIZES, rates=(1e-3,), seeds=(0, 1, 2), levels={1: (law(3_000),)})
    report = report_of({"once": 2.0}, terms=terms)
    assert report.levels[1] == (law(3_000),)
    assert len(report.levels[3]) == 3
    assert report.ratio["once"][1].value == pytest.approx(2.0)


def test_an_arm_given_more_updates_is_found_and_left_out_of_every_ratio():
    def cheat(found: dict[str, Any]) -> None:
        for name, each in found.items():
            updates = "20" if name.startswith("mlp") else "10"
            each["audit"] = {"updates": updates, "data": "a"}

    report = report_of({"once": 3.0, "mlp": 0.5}, change=cheat)
    assert [str(each) for each in report.differences] == ["mlp: updates 20 instead of 10"]
    assert set(report.ratio) == {"once"}
    assert not report.stands("mlp")
    assert "mlp: updates 20 instead of 10" in str(report)


def test_a_seed_that_diverged_counts_instead_of_vanishing():
    def diverge(found: dict[str, Any]) -> None:
        name = next(each for each in found if "once-0_w16000_lr0.001_seed2" in each)
        found[name] = {**found[name], "validation": None}

    report = report_of({"once": 3.0}, change=diverge)
    assert report.arms[1].points[-1].validation == math.inf
    assert not report.arms[1].points[-1].envelope
    assert any("not finite" in each for each in report.missing)


def test_a_size_whose_validation_errors_are_all_infinite_stays_in_the_tables():
    def diverge(found: dict[str, Any]) -> None:
        for name in [each for each in found if "once-0_w16000" in each]:
            found[name] = {**found[name], "validation": None}

    report = report_of({"once": 3.0}, change=diverge)
    assert [each.size for each in report.arms[1].points] == [*SIZES]
    assert not report.arms[1].points[-1].envelope


def test_a_ratio_stands_only_with_all_seeds_and_more_than_one():
    def lose(found: dict[str, Any]) -> None:
        del found[next(each for each in found if "once-0_w4000_lr0.001_seed2" in each)]

    assert report_of({"once": 3.0}).stands("once")
    assert not report_of({"once": 3.0}, change=lose).stands("once")


def test_an_infinite_error_stays_infinite_with_its_interval():
    report = PredictionReport.from_dict(made_report("once", 0.1))
    tables = {
        k: tuple((e, 5, math.inf) for e, _, _ in each) for k, each in report.by_episode.items()
    }
    assert error_of([replace(report, by_episode=tables)], 1) == (math.inf, math.inf, math.inf)
    assert error_of([report], 1) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize("arm", ["once", "looped"])
def test_a_ratio_does_not_stand_where_every_rate_failed_at_a_size_of_either_arm(arm: str):
    def fail(found: dict[str, Any]) -> None:
        for name in [name for name in found if name.startswith(f"{arm}-0_w16000")]:
            found[name] = {"validation": None, "failed": "loss is NaN"}

    report = report_of({"once": 3.0, "gru": 2.0}, change=fail)
    assert not report.stands("once")
    assert report.stands("gru") == (arm == "once")


def test_the_reference_is_the_norm_however_many_models_the_others_have():
    given, other = {"loss": "a"}, {"loss": "b"}
    (found,) = differences({"looped": [given], "mlp": [other] * 3})
    assert str(found) == "mlp: loss b instead of a"


def test_what_was_not_run_or_failed_is_shown_as_missing():
    def lose(found: dict[str, Any]) -> None:
        names = [name for name in found if name.startswith("once-0_w16000")]
        for name in names[:2]:
            del found[name]
        found[names[2]] = {"validation": None, "failed": "loss is NaN"}

    report = report_of({"once": 3.0}, change=lose)
    assert len(report.missing) == 3
    assert any("loss is NaN" in each for each in report.missing)
    assert len(report.arms[1].points) == 4
    # Without its largest size the arm does not reach the error any more.
    gap = report.ratio["once"][1]
    assert (gap.value, gap.bound) == (pytest.approx(2.0), ">=")


def test_without_a_looped_model_there_is_nothing_to_compare_with():
    def lose(found: dict[str, Any]) -> None:
        for name in [name for name in found if name.startswith("looped")]:
            del found[name]

    with pytest.raises(DataError, match="no model of the arm 'looped'"):
        report_of({"once": 3.0}, change=lose)


def test_a_ratio_does_not_stand_while_an_arm_still_learns():
    def learn(found: dict[str, Any]) -> None:
        found["once-0_w1000_lr0.001_seed1_u10_0"]["plateau"] = 0.05

    report = report_of({"once": 3.0, "gru": 2.0}, change=learn)
    assert report.learning == ("once",)
    assert not report.stands("once")
    assert report.stands("gru")
    # Every other model gained a thousandth in its last quarter.
    assert (report.gain("once"), report.gain("gru")) == (0.05, 0.001)


def test_each_ratio_of_each_budget_says_whether_it_stands():
    def learn(found: dict[str, Any]) -> None:
        found["looped-0_w4000_lr0.001_seed2_u10_0"]["plateau"] = 0.02

    short, long = report_of({"once": 3.0}, change=learn), report_of({"once": 2.0})
    stages = stages_of(replace(TINY, updates=(10, 20)))
    rows = headline(Outcome(tuple(zip(stages, (short, long), strict=True)))).rows
    assert [(row["updates"], row["stands"], row["gain"]) for row in rows] == [
        (10, False, "2%"),
        (20, True, "0.1%"),
    ]
    assert [row["ratio_1"][:2] for row in rows] == ["3 ", "2 "]


def test_a_point_off_the_envelope_by_validation_is_not_on_the_curve():
    def worse(found: dict[str, Any]) -> None:
        for name, each in found.items():
            if name.startswith("once-0_w4000"):
                each["validation"] = 1.0

    report = report_of({"once": 3.0}, change=worse)
    assert [each.envelope for each in report.arms[1].points] == [True, True, False, True, True]
    # The curve of a power law is straight, so that a point less changes nothing.
    assert report.ratio["once"][1].value == pytest.approx(3.0)


def test_the_gate_compares_untied_cells_of_equal_flops_to_one_cell():
    report = report_of({"untied": 0.25, "once": 1.0})
    # Untied cells with the FLOPs of the middle looped model have its size here.
    assert report.gate[1].value == pytest.approx(0.5)
    assert report.gate[1].verdict == "better"
    assert report_of({"once": 1.0}).gate == {}


def test_an_ensemble_is_compared_with_an_ensemble_or_not_at_all():
    families = families_of(["looped", "mlp-ensemble", "looped-ensemble"])
    found, first = {}, []
    for arm, factor in (("looped", 1.0), ("looped-ensemble", 0.5), ("mlp-ensemble", 2.0)):
        for trial in trials(arm, SIZES, seeds=(0,)):
            first.append(trial)
            found[trial.name] = result(trial, law(trial.size, factor))
    report = assemble(families, replace(TERMS, sizes=SIZES), first, [], found)
    assert {each.name: each.against for each in report.arms} == {
        "looped": "",
        "mlp-ensemble": "looped-ensemble",
        "looped-ensemble": "",
    }
    assert report.ratio["mlp-ensemble"][1].value == pytest.approx(4.0)
    assert set(report.ratio) == {"mlp-ensemble"}


def test_the_other_way_round_a_ratio_is_its_inverse():
    assert inverse(Gap(2.0, 1.0, 4.0)) == Gap(0.5, 0.25, 1.0)
    assert inverse(Gap(2.0, 0.5, math.inf, ">=")) == Gap(0.5, 0.0, 2.0, "<=")
    assert inverse(Gap(2.0, 0.0, 4.0, "<=")) == Gap(0.5, 0.25, math.inf, ">=")


def test_the_report_is_strict_json_and_says_whether_ratios_stand():
    document = json.loads(report_of({"once": 100.0}).to_json())
    gap = document["ratio"]["once"]["1"]
    assert (gap["bound"], gap["high"], gap["stands"]) == (">=", "inf", True)
    assert document["arms"][0]["points"][0]["cost"]["parameters"] == 1000


def test_tables_of_csv_have_columns_for_intervals():
    sheets = report_of({"once": 3.0}).sheets()
    curves = next(each for each in sheets if each.title.startswith("error by size"))
    rows = list(csv.DictReader(csv_text(curves).splitlines()))
    assert len(rows) == 10
    assert float(rows[0]["rmse_1"]) == pytest.approx(law(1_000))
    assert float(rows[0]["rmse_1_low"]) == pytest.approx(law(1_000))


def test_saving_writes_tables_figures_and_the_report(tmp_path: Path):
    written = report_of({"once": 3.0}).save(tmp_path)
    names = {each.name for each in written}
    assert {"report.json", "table-1.csv", "error-parameters.png"} <= names
    assert all(each.stat().st_size > 100 for each in written)


def test_figures_draw_the_envelope_and_mark_bounds():
    report = report_of({"once": 100.0})
    axes = figures_of(report)["error-parameters"].axes
    assert len(axes) == 2
    np.testing.assert_allclose(np.array(axes[0].lines[0].get_ydata()), [law(n) for n in SIZES])
    found = ratios_over([("here", report), ("there", report)], 1)
    figure = plot_ratios(found, across="task")
    assert "^" in [line.get_marker() for line in figure.axes[0].lines]
