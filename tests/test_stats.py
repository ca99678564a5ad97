import numpy as np
import pytest
from scipy import stats as scipy_stats

from loopwm.errors import ConfigError, DataError
from loopwm.stats import bootstrap, iqm


def test_the_interval_of_a_mean_agrees_with_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).exponential(size=40)
    ours = bootstrap(values, resamples=20_000)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    # Two Monte Carlo estimates of the same percentiles: their spread is about 0.004 here.
    assert float(ours.low) == pytest.approx(theirs.low, abs=0.02)
    assert float(ours.high) == pytest.approx(theirs.high, abs=0.02)


def test_weights_are_the_number_of_terms_in_each_sum():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 50, size=30)
    episodes = [
        rng.normal(size=n) ** 2 + shift for n, shift in zip(lengths, rng.random(30), strict=True)
    ]
    interval = bootstrap(np.array([e.sum() for e in episodes]), lengths.astype(float))
    draws = [
        np.concatenate([episodes[i] for i in rng.integers(0, 30, 30)]).mean() for _ in range(4_000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    # The slow oracle concatenates the drawn episodes; both are Monte Carlo.
    assert float(interval.low) == pytest.approx(low, rel=0.03)
    assert float(interval.high) == pytest.approx(high, rel=0.03)


def test_many_quantities_share_their_samples_with_one_alone():
    sums = np.random.default_rng(0).random((25, 3, 2))
    together = bootstrap(sums)
    alone = bootstrap(sums[:, 1, 0])
    assert together.low.shape == (3, 2)
    np.testing.assert_allclose(together.low[1, 0], alone.low, rtol=1e-12)
    np.testing.assert_allclose(together.high[1, 0], alone.high, rtol=1e-12)


def test_the_same_seed_gives_the_same_interval_and_another_seed_does_not():
    values = np.random.default_rng(0).random(20)
    assert bootstrap(values, seed=1).low == bootstrap(values, seed=1).low
    assert bootstrap(values, seed=1).low != bootstrap(values, seed=2).low


def test_a_single_episode_gives_an_interval_without_width():
    interval = bootstrap(np.array([6.0]), np.array([3.0]))
    assert (float(interval.low), float(interval.high)) == (2.0, 2.0)


def test_episodes_without_weight_do_not_make_nan():
    interval = bootstrap(np.array([4.0, 0.0, 0.0]), np.array([2.0, 0.0, 0.0]))
    assert (float(interval.low), float(interval.high)) == (2.0, 2.0)


def test_resamples_that_all_miss_what_has_a_weight_are_refused():
    weights = np.zeros(50)
    weights[0] = 2.0
    # One in e misses it.
    with pytest.raises(DataError, match="none of 1 resamples drew an episode with a weight"):
        [bootstrap(weights, weights, resamples=1, seed=seed) for seed in range(20)]


@pytest.mark.parametrize("weights", [np.zeros(3), np.array([-1.0, 1.0, 1.0])])
def test_episodes_that_cannot_be_weighed_are_refused(weights: np.ndarray):
    with pytest.raises(DataError, match="3 episodes of total weight"):
        bootstrap(np.ones(3), weights)


def test_no_episodes_are_refused():
    with pytest.raises(DataError, match="got 0 episodes"):
        bootstrap(np.zeros(0))


def test_a_chunk_smaller_than_one_sample_is_one_sample(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(0).random(50)
    whole = bootstrap(values)
    monkeypatch.setattr("loopwm.stats._CHUNK", 10)
    assert float(bootstrap(values).low) == pytest.approx(float(whole.low), rel=1e-12)


@pytest.mark.parametrize("count", [1, 3, 4, 7, 20])
def test_iqm_agrees_with_scipys_trimmed_mean(count: int):
    scores = np.random.default_rng(count).normal(size=count)
    assert iqm(scores) == pytest.approx(scipy_stats.trim_mean(scores, 0.25))


@pytest.mark.usefixtures("without_shape_checks")
def test_what_would_make_an_interval_of_nan_is_refused():
    ones, spoilt = np.ones(4), np.array([1.0, np.nan, np.inf, 1.0])
    with pytest.raises(DataError, match="sums holds 2 numbers that are not finite"):
        bootstrap(spoilt)
    with pytest.raises(DataError, match="weights holds 2 numbers that are not finite"):
        bootstrap(ones, spoilt)
    with pytest.raises(DataError, match="sums has 4 episodes, weights 3"):
        bootstrap(ones, ones[:3])
    for level in (95, 0, 1, -0.5, float("nan")):
        with pytest.raises(ConfigError, match=r"level must be a share in \(0, 1\)"):
            bootstrap(ones, level=level)
    with pytest.raises(ConfigError, match="resamples must be at least 1, got 0"):
        bootstrap(ones, resamples=0)


def test_iqm_of_nothing_is_refused():
    with pytest.raises(DataError, match="iqm got NaN for 1 scores"):
        iqm(np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="at least one score"):
        iqm(np.zeros(0))


@pytest.mark.slow
def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(1_000):
        interval = bootstrap(rng.exponential(size=80), resamples=500, seed=trial)
        hits += bool(interval.low <= 1 <= interval.high)
    # The percentile bootstrap of a skewed mean covers a little less than its level.
    assert 910 <= hits <= 970
