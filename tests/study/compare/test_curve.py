"""Curves are read between their points and nowhere else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopwm.study.compare.curve import envelope, error_at, size_at

SIZES = np.array([1e3, 4e3, 1.6e4, 6.4e4])


def power(sizes: np.ndarray, exponent: float = 0.5) -> np.ndarray:
    """A power law is a straight line on a log-log plot, so reading it is exact."""
    return (3 * sizes**-exponent)[None]


@given(exponent=st.floats(0.1, 2), share=st.floats(0.001, 0.999))
def test_a_power_law_is_read_exactly_between_its_ends(exponent: float, share: float):
    size = math.exp(math.log(1e3) + share * math.log(64))
    level = 3 * size**-exponent
    read = size_at(SIZES, power(SIZES, exponent), level)
    assert read.low[0] == read.high[0] == pytest.approx(math.log(size), rel=1e-9)
    back = error_at(SIZES, power(SIZES, exponent), size)
    assert back.low[0] == back.high[0] == pytest.approx(math.log(level), abs=1e-9)


def test_the_first_size_that_reaches_the_level_counts_on_a_curve_that_turns_back():
    errors = np.array([[1.0, 0.2, 0.9, 0.1]])
    read = size_at(SIZES, errors, 0.5)
    part = math.log(1.0 / 0.5) / math.log(1.0 / 0.2)
    assert read.low[0] == pytest.approx(math.log(1e3) + part * math.log(4))
    # What a larger model does worse, the smaller one still does.
    assert error_at(SIZES, errors, 1.6e4).high[0] == pytest.approx(math.log(0.2))


def test_beyond_the_sizes_only_bounds_are_known():
    errors = power(SIZES)
    never = size_at(SIZES, errors, errors.min() / 2)
    assert (never.low[0], never.high[0]) == (math.log(6.4e4), math.inf)
    at_once = size_at(SIZES, errors, errors.max() * 2)
    assert (at_once.low[0], at_once.high[0]) == (-math.inf, math.log(1e3))
    small, large = error_at(SIZES, errors, 500.0), error_at(SIZES, errors, 1e6)
    assert (small.low[0], small.high[0]) == (-math.inf, math.inf)
    assert (large.low[0], large.high[0]) == (-math.inf, pytest.approx(math.log(errors.min())))


def test_the_ends_of_a_curve_are_read_as_what_they_are():
    errors = power(SIZES)
    for index in (0, 3):
        read = size_at(SIZES, errors, errors[0, index] * (1 + 1e-12))
        assert read.high[0] == pytest.approx(math.log(SIZES[index]))
        assert error_at(SIZES, errors, SIZES[index]).low[0] == pytest.approx(
            math.log(errors[0, index])
        )


def test_nothing_is_drawn_from_an_infinite_error():
    errors = np.array([[math.inf, 0.4, 0.2, math.nan]])
    assert size_at(SIZES, errors, 0.5).low[0] == pytest.approx(math.log(4e3))
    assert size_at(SIZES, errors, 0.1).high[0] == math.inf


def test_a_single_size_gives_bounds():
    one = np.array([1e3])
    assert size_at(one, np.array([[0.5]]), 0.4).low[0] == math.log(1e3)
    assert size_at(one, np.array([[0.5]]), 0.6).high[0] == math.log(1e3)


@given(st.integers(0, 10_000))
def test_many_curves_are_read_as_each_alone(seed: int):
    rng = np.random.default_rng(seed)
    errors = rng.lognormal(size=(6, 4))
    together = size_at(SIZES, errors, 0.8)
    for row in range(6):
        alone = size_at(SIZES, errors[row : row + 1], 0.8)
        assert (together.low[row], together.high[row]) == (alone.low[0], alone.high[0])


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_the_envelope_holds_exactly_what_no_smaller_model_does_better(seed: int, count: int):
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1.0, 2.0, 3.0, 5.0, 8.0], size=count)
    errors = rng.permutation(count) + 1.0
    expected = {
        i
        for i in range(count)
        if not any(sizes[j] <= sizes[i] and errors[j] < errors[i] for j in range(count))
    }
    chosen = envelope(sizes, errors)
    assert set(chosen.tolist()) == expected
    assert (np.diff(sizes[chosen]) > 0).all()
