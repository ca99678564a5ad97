"""Training depths follow their distributions, row by row and reproducibly."""

import math

import pytest
import torch
from scipy import stats

from loopwm.core.depth import Depth, Fixed, Poisson, Uniform
from loopwm.errors import ConfigError

ROWS = 40_000


def draw(depth: Depth, seed: int = 0, rows: int = ROWS) -> torch.Tensor:
    return depth.sample(rows, torch.Generator().manual_seed(seed))


def shares_of_poisson(depth: Poisson) -> list[float]:
    """max(1, Poisson(mean)) clipped at the limit: zero counts as one, the tail as the limit."""
    law = [float(p) for p in stats.poisson.pmf(range(depth.limit), depth.mean)]
    return [law[0] + law[1], *law[2:], 1 - sum(law)]


@pytest.mark.parametrize("depth", [Poisson(6), Poisson(1.5), Poisson(4, max=5)], ids=str)
def test_poisson_depths_follow_the_clipped_distribution(depth):
    counts = draw(depth)
    expected = shares_of_poisson(depth)
    observed = torch.bincount(counts, minlength=depth.limit + 1)[1:].tolist()
    assert sum(observed) == ROWS
    assert len(observed) == depth.limit
    frequent = [(o, ROWS * p) for o, p in zip(observed, expected, strict=True) if ROWS * p > 5]
    chi_square = sum((o - p) ** 2 / p for o, p in frequent)
    # A true null exceeds this once in ten thousand seeds; the seed is fixed.
    assert chi_square < stats.chi2(len(frequent)).ppf(0.9999)


def test_poisson_depths_have_the_mean_and_variance_of_their_law():
    counts = draw(Poisson(6)).double()
    assert float(counts.mean()) == pytest.approx(6, abs=5 * math.sqrt(6 / ROWS))
    assert float(counts.var()) == pytest.approx(6, rel=0.05)


def test_depths_differ_between_the_sequences_of_one_batch():
    assert len(set(draw(Poisson(6), rows=64).tolist())) > 4
    assert len(set(draw(Uniform(3, 12), rows=64).tolist())) > 4


def test_uniform_depths_take_every_value_alike():
    observed = torch.bincount(draw(Uniform(3, 7))).tolist()
    assert observed[:3] == [0, 0, 0]
    assert len(observed) == 8
    assert stats.chisquare(observed[3:]).pvalue > 1e-4


def test_fixed_depth_is_that_depth():
    assert draw(Fixed(5), rows=3).tolist() == [5, 5, 5]
    assert draw(Fixed(5), rows=3).dtype == torch.int64


@pytest.mark.parametrize("depth", [Fixed(4), Uniform(2, 9), Poisson(6)], ids=str)
def test_depths_repeat_with_the_generators_seed_and_do_not_touch_the_global_one(depth):
    before = torch.get_rng_state()
    assert draw(depth, seed=3, rows=50).tolist() == draw(depth, seed=3, rows=50).tolist()
    assert torch.equal(torch.get_rng_state(), before)
    assert draw(depth, rows=50).dtype == torch.int64


@pytest.mark.parametrize("depth", [Uniform(2, 9), Poisson(6)], ids=str)
def test_depths_change_with_the_generators_seed(depth):
    assert draw(depth, seed=3, rows=50).tolist() != draw(depth, seed=4, rows=50).tolist()


@pytest.mark.parametrize("depth", [Poisson(0.3), Poisson(1), Poisson(6), Poisson(30)], ids=str)
def test_the_depth_of_inference_was_trained(depth):
    assert 1 <= depth.typical <= depth.limit
    assert Uniform(3, 12).typical == 8
    assert Fixed(5).typical == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(0), r"Fixed\.iterations must be at least 1, got 0"),
        (lambda: Uniform(0, 3), r"Uniform\.low must be at least 1, got 0"),
        (lambda: Uniform(4, 3), "low=4, high=3"),
        (lambda: Poisson(0), r"Poisson\.mean must be above 0, got 0"),
        (lambda: Poisson(3, max=0), r"Poisson\.max must be at least 1, got 0"),
    ],
)
def test_impossible_depths_are_refused_with_argument_and_value(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
