"""Easy and hard windows are told apart by the labels of their steps, and compared apart."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from loopwm.data.normalise import Statistics
from loopwm.study.compare.assemble import assemble
from loopwm.study.compare.strata import THIRDS, labels_of, measure_strata, thirds
from loopwm.study.compare.terms import families_of
from loopwm.study.prediction import evaluate
from loopwm.study.reference import CopyLast
from loopwm.study.windows import Sampling
from tests.study.compare.small import TERMS, linear_world, result, trials

SIZES = (1_000, 2_000, 4_000, 8_000, 16_000)


def test_a_third_never_parts_what_is_equally_difficult():
    assert thirds(np.array([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])).tolist() == [1, 0, 0, 2, 2, 1]
    assert thirds(np.array([0.0] * 8 + [1.0, 2.0])).tolist() == [0] * 8 + [2, 2]
    # The last digits of a mean are no difficulty.
    assert thirds(np.array([0.3, 0.1 + 0.2, 0.3])).tolist() == [0, 0, 0]


def test_errors_are_those_of_the_reported_windows_sorted_by_the_mean_label_of_their_steps():
    train, test = linear_world(0), linear_world(1)
    depth = np.random.default_rng(0).integers(0, 5, len(test))
    test = replace(test, info={"difficulty/depth": depth, "difficulty/gap": depth / np.nan})
    model, terms = CopyLast(Statistics.of(train)), replace(TERMS, windows=10_000)
    found = measure_strata(model, test, train, terms)
    assert list(found) == ["depth"]
    report = evaluate(
        model, test, (1, 3), train=train, sampling=Sampling(max_windows=10_000, ceiling_windows=0)
    )
    std = train.obs.std(axis=0)
    for k in (1, 3):
        windows = [
            (depth[row : row + k].mean(), ((test.obs[row] - test.next_obs[row + k - 1]) / std) ** 2)
            for row in range(len(test) - k + 1)
            if test.episode[row] == test.episode[row + k - 1]
        ]
        hard = sorted(each[0] for each in windows)
        low, high = (hard[int(np.ceil(len(hard) * share)) - 1] for share in (1 / 3, 2 / 3))
        sums = [0.0, 0.0, 0.0]
        for mean, square in windows:
            sums[int(mean > low) + int(mean > high)] += square.mean()
        tables = found["depth"][str(k)]
        # Statistics are kept in single precision.
        assert [sum(row[2] for row in each) for each in tables] == pytest.approx(sums, rel=1e-4)
        whole = defaultdict(float)
        for number, _, total in (row for each in tables for row in each):
            whole[number] += total
        assert whole == pytest.approx({n: total for n, _, total in report.by_episode[k]}, rel=1e-4)


def test_labels_that_are_not_all_known_are_left_out():
    data = linear_world(0)
    info = {"difficulty/a": np.arange(len(data)), "difficulty/b": np.full(len(data), np.nan)}
    assert list(labels_of(replace(data, info={**info, "speed": np.ones(len(data))}))) == ["a"]
    assert measure_strata(None, data, data, TERMS) == {}


def test_an_arm_that_fails_where_it_is_hard_is_seen_there_alone():
    families = families_of(["looped", "mlp"])
    first, second, found = [], [], {}
    for arm in families:
        for trial in trials(arm, SIZES):
            (second if trial.seed else first).append(trial)
            tables = []
            for third, factor in enumerate((1.0, 1.0, 4.0)):
                square = (third + 1) / trial.size * (factor if arm == "mlp" else 1)
                tables.append([[episode, 2, 2 * square] for episode in range(10)])
            made = result(trial, trial.size**-0.5)
            # The middle third is empty where many windows are equally difficult.
            found[trial.name] = made | {
                "strata": {"depth": {"1": [tables[0], [], tables[2]], "3": tables}}
            }
    terms = replace(TERMS, sizes=SIZES, rates=(1e-3,))
    report = assemble(families, terms, first, second, found)
    at = {(each.third, each.horizon): each for each in report.strata}
    assert set(at) == {(third, k) for third in THIRDS for k in (1, 3)} - {(THIRDS[1], 1)}
    assert at[THIRDS[0], 1].quality.value == pytest.approx(1.0)
    assert at[THIRDS[2], 1].quality.value == pytest.approx(4.0)
    # A quarter of the parameters is half of the accuracy.
    assert at[THIRDS[2], 3].matched.value == pytest.approx(2.0)
    assert "hardest third" in str(report)
    plain = {name: {**each, "strata": {}} for name, each in found.items()}
    assert "by difficulty" not in str(assemble(families, terms, first, second, plain))
