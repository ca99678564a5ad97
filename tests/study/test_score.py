"""The scores equal their definitions computed another way."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from loopwm.study.score import auroc, ranks, score_termination, score_uncertainty, spearman


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_ranks_share_ties_as_scipy_does(rng: np.random.Generator) -> None:
    values = rng.integers(0, 7, 50)
    np.testing.assert_allclose(ranks(values), scipy_stats.rankdata(values))


def test_auroc_is_the_share_of_pairs_in_order(rng: np.random.Generator) -> None:
    score, event = np.round(rng.normal(size=80), 1), rng.random(80) < 0.3
    pairs = [float(a > b) + 0.5 * float(a == b) for a in score[event] for b in score[~event]]
    assert auroc(score, event) == pytest.approx(np.mean(pairs))


def test_auroc_needs_both_kinds() -> None:
    assert np.isnan(auroc(np.arange(3.0), np.zeros(3, bool)))


def test_spearman_equals_scipy(rng: np.random.Generator) -> None:
    a = rng.integers(0, 9, 60).astype(float)
    b = a + rng.normal(size=60) * 4
    assert spearman(a, b) == pytest.approx(scipy_stats.spearmanr(a, b)[0])


def test_a_constant_has_no_rank_correlation() -> None:
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_brier_of_the_base_rate_is_its_variance(rng: np.random.Generator) -> None:
    event = rng.random(200) < 0.25
    share = np.full(200, event.mean())
    score = score_termination(share, event)
    assert score.brier == pytest.approx(score.brier_base)
    assert (score.rows, score.events) == (200, event.sum())


def test_a_true_spread_covers_nine_tenths_and_has_the_normals_entropy(
    rng: np.random.Generator,
) -> None:
    std = np.exp(rng.normal(size=(20_000, 3)))
    score = score_uncertainty(std * rng.normal(size=std.shape), std, None)
    assert score is not None
    assert score.coverage == pytest.approx(0.9, abs=0.01)
    entropy = np.mean(np.log(std)) + 0.5 * np.log(2 * np.pi * np.e)
    assert score.nll == pytest.approx(entropy, abs=0.02)
    assert score.spearman > 0.5
    assert np.isnan(score.spearman_disagreement)


def test_disagreement_is_ranked_by_itself_and_stands_in_for_a_missing_spread(
    rng: np.random.Generator,
) -> None:
    error, std, members = rng.normal(size=(3, 50, 2)) ** 2 + 0.1
    both = score_uncertainty(error, std, members)
    stated = score_uncertainty(error, std, None)
    between = score_uncertainty(error, None, members)
    assert both is not None
    assert stated is not None
    assert between is not None
    assert (both.nll, both.coverage) == (stated.nll, stated.coverage)
    assert between.spearman == both.spearman_disagreement
    assert both.spearman_disagreement == pytest.approx(
        spearman(np.linalg.norm(error, axis=1), np.linalg.norm(members, axis=1))
    )


def test_no_spread_no_score(rng: np.random.Generator) -> None:
    assert score_uncertainty(rng.normal(size=(5, 2)), None, None) is None


def test_windows_that_are_not_finite_are_left_out_of_the_spread(rng: np.random.Generator) -> None:
    error = rng.normal(size=(6, 2))
    error[0, 0] = np.inf
    std = np.ones((6, 2))
    whole, rest = (score_uncertainty(error[k:], std[k:], None) for k in (0, 1))
    assert whole is not None
    assert rest is not None
    assert (whole.nll, whole.coverage) == (rest.nll, rest.coverage)
