"""Partial rank correlations equal those of residuals, and their intervals resample episodes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from loopwm.errors import DataError
from loopwm.study.correlation import rank_correlation

REPEATABLE = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def residuals(y: np.ndarray, controls: list[np.ndarray]) -> np.ndarray:
    ranked = [stats.rankdata(each) for each in controls]
    design = np.stack([np.ones(len(y)), *ranked], axis=1)
    ranks = stats.rankdata(y)
    return ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]


@REPEATABLE
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(8, 60),
    held=st.integers(0, 2),
    ties=st.booleans(),
)
def test_it_is_the_correlation_of_what_the_controls_leave(
    seed: int, rows: int, held: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, y, *controls = rng.normal(size=(2 + held, rows)) @ rng.normal(size=(rows, rows))
    if ties:
        x, y = np.round(x), np.round(y / 3)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    found = rank_correlation(x, y, np.arange(rows) // 4, controls)
    expected = np.corrcoef(residuals(x, controls), residuals(y, controls))[0, 1]
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9


def test_what_only_speed_relates_is_unrelated_at_matched_speed() -> None:
    rng = np.random.default_rng(0)
    speed = rng.exponential(size=4000)
    x, y = (speed + 0.3 * rng.normal(size=4000) for _ in range(2))
    episode = np.arange(4000) // 20
    raw = rank_correlation(x, y, episode)
    matched = rank_correlation(x, y, episode, [speed])
    assert raw.value > 0.8
    assert matched.low < 0.05
    assert abs(matched.value) < 0.1


def test_intervals_are_wider_where_episodes_are_alike_inside() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2, 40)).repeat(25, axis=1)
    x, y = shared + 0.1 * rng.normal(size=(2, 1000))
    episode = np.arange(40).repeat(25)
    by_episode = rank_correlation(x, y, episode)
    by_row = rank_correlation(x, y, np.arange(1000))
    assert by_episode.high - by_episode.low > 3 * (by_row.high - by_row.low)


def test_the_interval_covers_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        x = rng.normal(size=300)
        y = 0.5 * x + rng.normal(size=300)
        found = rank_correlation(x, y, np.arange(300) // 3)
        # Spearman's correlation of a bivariate normal.
        truth = 6 / np.pi * np.arcsin(0.5 / np.sqrt(1.25) / 2)
        covered += found.low <= truth <= found.high
    assert 0.9 <= covered / 200 <= 0.99


def test_a_constant_side_has_no_correlation_and_bad_input_is_refused() -> None:
    rows = np.arange(10.0)
    assert np.isnan(rank_correlation(np.ones(10), rows, np.arange(10)).value)
    assert np.isnan(rank_correlation(rows, rows, np.arange(10), [rows]).value)
    with pytest.raises(DataError, match="needs more rows, got 2"):
        rank_correlation(rows[:2], rows[:2], np.arange(2))
    with pytest.raises(DataError, match="finite"):
        rank_correlation(np.append(rows[:-1], np.nan), rows, np.arange(10))
