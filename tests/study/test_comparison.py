"""Tables of a comparison hold what was measured, seed by seed."""

from dataclasses import replace
from typing import Any

import pytest

from loopwm.study.comparison import (
    Group,
    costs,
    group_cells,
    heads,
    medians,
    over_seeds,
    ratios,
)
from loopwm.study.paired import error_ratio
from loopwm.study.prediction import evaluate
from loopwm.study.windows import Sampling


def test_a_ratio_is_that_of_the_errors_on_the_same_windows(world: Any) -> None:
    sampling = Sampling(max_windows=80, ceiling_windows=0)
    small, large = (
        evaluate(world.model(bias), world.test, (5,), sampling=sampling) for bias in (0.1, 0.2)
    )
    ratio = error_ratio([large], [small], 5)
    assert ratio is not None
    assert ratio == pytest.approx([2.0, 2.0, 2.0], rel=1e-3)
    # Of two seeds that differ either may be drawn twice, whichever episodes are.
    several = error_ratio([small, large], [small, small], 5)
    assert several == pytest.approx([2.5**0.5, 1.0, 2.0], rel=1e-3)
    assert error_ratio([replace(large, by_episode={5: ()})], [small], 5) is None
    (number, windows, total), *rest = large.by_episode[5]
    fewer = replace(large, by_episode={5: ((number, windows - 1, total), *rest)})
    for first, second in (([fewer], [small]), ([large], [fewer]), ([large, fewer], [small, small])):
        assert error_ratio(first, second, 5) is None


def test_seeds_that_failed_are_counted_in_the_label(world: Any) -> None:
    report = evaluate(world.model(0.1), world.test, (1,)).to_dict()
    cells = {
        "a": {"cell": {"arm": "once", "seed": 0}, "label": "one", "report": report},
        "b": {"cell": {"arm": "once", "seed": 1}, "label": "one", "failed": "loss is NaN"},
    }
    (group,) = group_cells(cells)
    assert group.label == "one (1 of 2 seeds failed)"


def test_tables_hold_mean_lowest_and_highest_of_the_seeds(world: Any) -> None:
    sampling = Sampling(max_windows=80, ceiling_windows=0)

    def group(arm: str, biases: tuple[float, ...]) -> Group:
        reports = tuple(
            evaluate(world.model(bias), world.test, (1, 5), sampling=sampling) for bias in biases
        )
        result = {
            "cell": {"lr": 1e-3, "updates": 5, "arm": arm, "seed": 0},
            **{"parameters": 10, "core_parameters": 5, "flops": 2.0, "seconds": 1.0},
            "plateau": 0.003,
        }
        return Group(arm, arm, (result,) * len(biases), reports)

    groups = [group("looped", (0.1, 0.3)), group("once", (0.4,))]
    sheet = over_seeds(groups, (1, 5))
    middle, low, high = sheet.rows[0]["rmse_5"]
    assert (low, high) == (groups[0].reports[0].rmse[5], groups[0].reports[1].rmse[5])
    assert middle == pytest.approx((low + high) / 2)
    assert [row["model"] for row in sheet.rows] == ["looped", "once", "copy last", "linear"]
    typical = medians(groups, (5,)).rows[1]["median_5"]
    only = groups[1].reports[0]
    assert typical == [only.median[5], *only.quartiles[5]]
    part = over_seeds(groups, (5,), "second")
    assert part.rows[1]["rmse_5"][0] == groups[1].reports[0].parts["second"].rmse[5]
    (row,) = ratios(groups, (5,)).rows
    assert row["ratio_5"][0] > 1
    assert costs(groups).rows[0]["plateau"] == "0.3%"
    ends = heads(groups, (1,))
    score = only.termination
    assert score is not None
    assert ends.rows[1]["auroc"] == [score.auroc] * 3
    assert ends.rows[1]["reward_1"] == [only.reward[1]] * 3
    assert ends.rows[1]["events"] == f"{score.events} of {score.rows}"
