"""The exponent of the law is found again in curves that were made with it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loopwm.errors import DataError
from loopwm.study.compare.figures import plot_law
from loopwm.study.compare.law import Runs, _model, fit_law
from loopwm.study.compare.study import runs_of
from loopwm.study.compare.summary import law_sheet
from tests.study.compare.small import result, trials


def runs(
    phi: float, *, noise: float = 0.0, rows: tuple[float, ...] = (1e4, 3e4, 1e5), seeds: int = 3
) -> Runs:
    rng = np.random.default_rng(0)
    cells = [(r, n, d) for r in (1, 2, 4, 8) for n in (4e3, 1.2e4, 4e4, 1.2e5) for d in rows]
    loops, sizes, data = (np.array(each, float) for each in zip(*cells, strict=True))
    once, repeated = 0.3 * sizes, 0.7 * sizes
    law = 0.05 + 20 * (once + loops**phi * repeated) ** -0.45
    law = law + (3 * data**-0.4 if len(rows) > 1 else 0)
    errors = law[:, None] * np.exp(noise * rng.normal(size=(len(law), seeds)))
    return Runs(loops, once, repeated, data, errors)


@pytest.mark.parametrize("phi", [0.0, 0.46, 0.65, 1.0])
def test_phi_is_found_again(phi: float):
    law = fit_law(runs(phi), resamples=20)
    assert law.phi == pytest.approx(phi, abs=0.01)
    assert law.alpha == pytest.approx(0.45, abs=0.05)
    assert law.r2 > 0.9999


@pytest.mark.parametrize("phi", [0.2, 0.8])
def test_the_interval_of_noisy_runs_holds_phi_and_is_not_wide(phi: float):
    law = fit_law(runs(phi, noise=0.03), resamples=200)
    assert law.low < phi < law.high
    assert law.high - law.low < 0.3


def test_one_seed_gives_phi_without_an_interval():
    given = runs(0.46, noise=0.01, seeds=1)
    law = fit_law(given)
    assert np.isnan([law.low, law.high]).all()
    (row,) = law_sheet({"task": law}).rows
    assert row["phi"] == law.phi
    assert "[" not in plot_law(given, law).axes[0].get_title(loc="left")
    several = fit_law(runs(0.46, noise=0.01), resamples=20)
    assert law_sheet({"task": several}).rows[0]["phi"] == [several.phi, several.low, several.high]


def test_without_several_budgets_of_data_their_term_is_left_out():
    law = fit_law(runs(0.46, rows=(1e4,)), resamples=20)
    assert law.phi == pytest.approx(0.46, abs=0.01)
    assert np.isnan(law.beta)


def test_eight_iterations_at_one_half_are_worth_the_root_of_eight():
    law = fit_law(runs(0.5), resamples=20)
    assert law.worth(8) == pytest.approx(8**0.5, rel=0.03)


def test_the_gradient_of_the_law_equals_finite_differences():
    given, theta = runs(0.46), np.array([[0.4, 0.2, -0.7, -2.0, -1.5, -0.6]])
    slope = _model(given, theta)[1][0]
    for index in range(6):
        step = np.zeros((1, 6))
        step[0, index] = 1e-6
        found = (_model(given, theta + step)[0] - _model(given, theta - step)[0])[0] / 2e-6
        np.testing.assert_allclose(slope[:, index], found, atol=1e-8)


def test_where_errors_do_not_depend_on_size_nothing_is_said_of_iterations():
    full = runs(0.4)
    flat = np.repeat((0.3 * full.loops**-0.2)[:, None], 3, axis=1)
    with pytest.raises(DataError, match="hardly depend on size"):
        fit_law(replace(full, errors=flat), resamples=20)


def test_models_without_a_seed_or_a_finite_error_are_left_out_and_counted():
    def trained(loops: int, width: int, seed: int, error: float) -> tuple[int, dict[str, Any]]:
        (trial,) = trials(f"loops-{loops}", (width,), (seed,))
        return 10_000, result(trial, error)

    sizes, pairs = (1_000, 2_000, 4_000, 8_000), []
    for loops in (1, 2):
        for width in sizes:
            error = (0.5 * width * (1 + loops**0.5)) ** -0.5
            pairs += [trained(loops, width, seed, error) for seed in (0, 1)]
    lacking = runs_of(pairs[:-1], 1)
    assert (lacking.errors.shape, lacking.left_out) == ((7, 2), 1)
    pairs[-1] = trained(2, sizes[-1], 1, np.inf)
    diverged = runs_of(pairs, 1)
    assert (diverged.errors.shape, diverged.left_out, diverged.horizon) == ((7, 2), 1, 1)
    law = fit_law(diverged, resamples=20)
    assert law.phi == pytest.approx(0.5, abs=0.02)
    (row,) = law_sheet({"task": law}).rows
    assert (row["cells"], row["left_out"], row["horizon"]) == (7, 1, 1)


def test_too_little_is_refused():
    full = runs(0.4)
    ones = Runs(np.ones(48), full.once, full.repeated, full.rows, full.errors)
    with pytest.raises(DataError, match="2 numbers of iterations"):
        fit_law(ones)
    bad = Runs(full.loops, full.once, full.repeated, full.rows, full.errors * np.nan)
    with pytest.raises(DataError, match="positive and finite"):
        fit_law(bad)
