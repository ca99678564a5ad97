"""Ratios of known curves are found, with intervals that cover, and bounds are called bounds."""

import math
from typing import Any

import numpy as np
import pytest

from loopwm.errors import DataError
from loopwm.study.compare.curve import Reading
from loopwm.study.compare.gap import (
    Curve,
    Drawn,
    Gap,
    Level,
    draw,
    levels_of,
    ratio,
)
from loopwm.study.compare.tables import inverse


def size_ratio(first: Curve, second: Curve, error: float, **options: Any) -> Gap:
    drawn, level = draw([first, second], **options), Level.fixed(error)
    return ratio(drawn[0].size_at(level), drawn[1].size_at(level))


SIZES = np.array([1e3, 3e3, 9e3, 2.7e4, 8.1e4])


def curve(
    rng: np.random.Generator,
    factor: float = 1.0,
    *,
    sizes: np.ndarray = SIZES,
    seeds: int = 5,
    noise: float = 0.0,
    difficulty: np.ndarray | None = None,
) -> Curve:
    """Errors fall as size to the power of -.5; `factor` times the size is needed for the same."""
    episodes = 40
    hard = np.ones(episodes) if difficulty is None else difficulty
    windows = np.full(episodes, 10.0)
    squares = []
    for size in sizes:
        square = (size / factor) ** -1.0
        runs = np.exp(noise * rng.normal(size=(seeds, 1))) * hard * windows
        squares.append(square * runs)
    return Curve(sizes, tuple(squares), windows)


def test_the_ratio_of_two_power_laws_is_the_one_they_were_made_with():
    rng = np.random.default_rng(0)
    gap = size_ratio(curve(rng, 3.7), curve(rng), 1e4**-0.5)
    assert (gap.value, gap.low, gap.high) == pytest.approx((3.7, 3.7, 3.7))
    assert gap.bound == ""
    # At equal size the error of the first is sqrt(3.7) times that of the second.
    drawn = draw([curve(rng, 3.7), curve(rng)])
    error = ratio(drawn[0].error_at(5e3), drawn[1].error_at(5e3))
    assert error.value == pytest.approx(math.sqrt(3.7))
    assert error.verdict == "worse"


def test_what_episodes_share_cancels_and_what_seeds_add_does_not():
    rng = np.random.default_rng(1)
    hard = rng.lognormal(sigma=1.5, size=40)
    level = (hard.mean() / 8e3) ** 0.5
    still = size_ratio(curve(rng, 2, difficulty=hard), curve(rng, difficulty=hard), level)
    # Episodes move both curves alike, here without leading either beyond its sizes.
    assert (still.low, still.high) == pytest.approx((2, 2))
    noisy = size_ratio(
        curve(rng, 2, noise=0.3, difficulty=hard), curve(rng, noise=0.3, difficulty=hard), level
    )
    assert noisy.low < 2 < noisy.high


def test_an_arm_that_never_gets_there_gives_a_lower_bound():
    rng = np.random.default_rng(2)
    short = curve(rng, 50)
    gap = size_ratio(short, curve(rng), 5e3**-0.5)
    assert gap.bound == ">="
    assert gap.value == pytest.approx(8.1e4 / 5e3)
    assert gap.high == math.inf
    assert str(gap).startswith("≥ 16.2")


def test_an_arm_that_is_there_from_the_start_gives_an_upper_bound():
    rng = np.random.default_rng(3)
    gap = size_ratio(curve(rng, 1 / 50), curve(rng), 5e3**-0.5)
    assert (gap.bound, gap.low) == ("<=", 0.0)
    assert gap.value == pytest.approx(1e3 / 5e3)


def test_where_both_are_beyond_their_sizes_nothing_is_claimed():
    rng = np.random.default_rng(4)
    gap = size_ratio(curve(rng), curve(rng), 1e-9)
    assert gap.bound == "?"
    assert str(gap) == "-"


def test_a_diverged_seed_makes_the_error_of_its_size_infinite_and_no_nan():
    rng = np.random.default_rng(5)
    made = curve(rng)
    squares = [each.copy() for each in made.squares]
    squares[0][0, 0] = math.inf
    broken = Curve(made.sizes, tuple(squares), made.windows)
    drawn = draw([broken], resamples=50)[0].draws
    # In every draw that has the seed and the episode, and in no other.
    assert not np.isnan(drawn).any()
    assert 0 < np.isinf(drawn[:, 0]).mean() < 1
    assert drawn[np.isfinite(drawn)].max() < 1
    assert math.isinf(broken.errors[0, 0])
    assert size_ratio(broken, made, 1e4**-0.5).value == pytest.approx(1.0)


def test_of_two_infinite_errors_no_ratio_is_claimed_and_levels_stay_inside_the_curve():
    rng = np.random.default_rng(5)
    made = curve(rng)
    # One of one seed: infinite in every draw that has its episode, for both arms at once.
    squares = [each[:1].copy() for each in made.squares]
    for each in squares:
        each[0, 0] = math.inf
    broken = Curve(made.sizes, tuple(squares), made.windows)
    drawn = draw([broken, broken])
    gap = ratio(drawn[0].error_at(2e3), drawn[1].error_at(2e3))
    assert (gap.low, gap.high, gap.bound) == (0.0, math.inf, "?")
    squares[2][0, 0] = 10.0 / 9e3
    (drawn,) = draw([Curve(made.sizes, tuple(squares), made.windows)])
    for level in levels_of(drawn):
        assert np.max(level.draws) < 1


def test_an_infinite_error_over_a_finite_one_is_known_and_worse():
    def reading(*errors: float) -> tuple[Reading, Reading]:
        logs = np.log(np.array(errors))
        return Reading(logs[:1], logs[:1]), Reading(logs, logs)

    failed, fine = reading(math.inf, math.inf, math.inf, 2.0), reading(1.0, 1.0, 1.0, 1.0)
    gap = ratio(failed, fine)
    assert (gap.value, gap.low, gap.high, gap.bound) == (math.inf, 2.0, math.inf, "")
    assert gap.verdict == "worse"
    assert str(gap) == "∞ [2, ∞]"
    other = ratio(fine, failed)
    assert (other.value, other.verdict) == (0.0, "better")
    assert inverse(gap) == other
    assert inverse(other) == gap
    assert ratio(failed, failed).verdict == "unknown"


def test_resampling_agrees_with_a_plain_loop():
    rng = np.random.default_rng(6)
    hard = rng.lognormal(sigma=0.8, size=40)
    made = curve(rng, noise=0.4, difficulty=hard, seeds=6)
    ours = np.log(draw([made], resamples=4000)[0].draws[:, 2])
    theirs = []
    for _ in range(2000):
        picked = made.squares[2][rng.integers(6, size=6)][:, rng.integers(40, size=40)]
        theirs.append(0.5 * math.log(picked.sum(axis=1).mean() / 400))
    # Two Monte Carlo estimates of one spread.
    assert ours.std() == pytest.approx(np.std(theirs), rel=0.08)
    assert ours.mean() == pytest.approx(np.mean(theirs), abs=0.02)


def test_models_of_one_arm_draw_their_seeds_independently():
    rng = np.random.default_rng(7)
    drawn = np.log(draw([curve(rng, noise=0.5)], resamples=4000)[0].draws)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.1


def test_along_another_measure_the_models_keep_their_errors():
    rng = np.random.default_rng(10)
    made = draw([curve(rng, 2.0), curve(rng)])
    flops = np.array([9.0, 1.0, 4.0, 2.0, 8.0])
    turned = made[0].along(flops)
    assert turned.sizes.tolist() == [1.0, 2.0, 4.0, 8.0, 9.0]
    np.testing.assert_array_equal(turned.errors[0], made[0].errors[0][[1, 3, 2, 4, 0]])
    np.testing.assert_array_equal(turned.draws[:, 0], made[0].draws[:, 1])


def test_other_episodes_are_not_compared():
    rng = np.random.default_rng(8)
    made = curve(rng)
    other = Curve(made.sizes, made.squares, made.windows + 1)
    with pytest.raises(DataError, match="same windows"):
        size_ratio(made, other, 0.01)


def test_curves_that_cannot_be_read_are_refused():
    rng = np.random.default_rng(11)
    made = curve(rng)
    with pytest.raises(DataError, match="distinct and ascend"):
        Curve(made.sizes[::-1].copy(), made.squares, made.windows)
    with pytest.raises(DataError, match="at least one seed"):
        Curve(made.sizes, (made.squares[0][:0], *made.squares[1:]), made.windows)


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        (Gap(0.9, 0.85, 0.95), "better"),
        (Gap(1.0, 0.99, 1.019), "as good"),
        (Gap(1.0, 0.99, 1.03), "open"),
        (Gap(1.2, 1.1, 1.3), "worse"),
        (Gap(0.9, 0.85, math.inf, ">="), "open"),
        (Gap(0.9, 0.0, 0.97, "<="), "better"),
        (Gap(math.nan, 0.0, math.inf, "?"), "unknown"),
    ],
)
def test_as_good_means_that_the_upper_end_is_at_most_two_percent(gap: Gap, verdict: str):
    assert gap.verdict == verdict


def test_levels_lie_inside_the_looped_curve_by_a_rule():
    rng = np.random.default_rng(9)
    (made,) = draw([curve(rng, noise=0.3)], resamples=20)
    levels = levels_of(made)
    for row, read in ((made.errors[0], [each.error for each in levels]), *enumerated(made)):
        low, high = np.log(row.min()), np.log(row.max())
        np.testing.assert_allclose(
            np.log(read), [high + s * (low - high) for s in (0.25, 0.5, 0.75)]
        )


def enumerated(made: Drawn) -> list[tuple[np.ndarray, list[float]]]:
    """Each draw with the levels of that draw."""
    draws = [np.asarray(each.draws) for each in levels_of(made)]
    return [(row, [each[i] for each in draws]) for i, row in enumerate(made.draws)]


def test_where_episodes_differ_a_lot_levels_of_each_draw_still_tell_the_ratio():
    rng = np.random.default_rng(4)
    hard = np.exp(2.5 * rng.normal(size=40))
    sizes = np.geomspace(1e3, 8e3, 5)
    drawn = draw([curve(rng, f, sizes=sizes, difficulty=hard) for f in (2.0, 1.0)])
    middle = levels_of(drawn[1])[1]
    moved, fixed = (
        ratio(drawn[0].size_at(level), drawn[1].size_at(level))
        for level in (middle, Level.fixed(middle.error))
    )
    assert (moved.value, moved.low, moved.high) == pytest.approx((2.0, 2.0, 2.0))
    # At one error for all, some draws never reach it and others begin below it.
    assert fixed.low < 1.5
    assert fixed.high == math.inf


def test_a_draw_without_a_finite_error_has_a_level_that_nothing_reaches():
    errors = np.array([[2.0, 1.0]])
    draws = np.array([[2.0, 1.0], [np.inf, np.nan], [np.inf, 4.0]])
    middle = levels_of(Drawn(np.array([1e3, 1e4]), errors, draws))[1]
    np.testing.assert_allclose(middle.draws, [2**0.5, np.finfo(float).tiny, 4.0])
    assert levels_of(Drawn(np.array([1e3]), np.array([[np.inf]]), np.array([[np.inf]]))) == ()


@pytest.mark.slow
def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        first, second = (curve(rng, f, noise=0.3, seeds=8) for f in (2.0, 1.0))
        gap = size_ratio(first, second, 1e4**-0.5, resamples=400, seed=trial)
        hits += gap.low <= 2.0 <= gap.high
    # With eight seeds a percentile bootstrap is somewhat too sure; it must not be much so.
    assert 165 <= hits <= 199
