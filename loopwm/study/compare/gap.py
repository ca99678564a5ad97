"""How far apart two arms are, with intervals: seeds are resampled, then episodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from loopwm.errors import DataError
from loopwm.seed import numpy_rng
from loopwm.study.compare.curve import Reading, error_at, size_at

RESAMPLES = 2_000
# "As good as": the upper end of the 95% interval of the error ratio is at most this.
EQUAL = 1.02
# Stands in for an infinite error while sums are resampled: infinity times zero is NaN.
_HUGE = 1e200


@dataclass(frozen=True, eq=False)
class Curve:
    """Hold one arm at N sizes: squared errors of each seed in each of E test episodes.

    Attributes:
        sizes: Sizes, ascending and distinct.
        squares: For each size, the sum of squared errors of each seed and episode; the number of
            seeds may differ.
        windows: Windows of each episode, the same for all arms.
    """

    sizes: Float[ndarray, " N"]
    squares: tuple[Float[ndarray, "_ E"], ...]
    windows: Float[ndarray, " E"]

    def __post_init__(self) -> None:
        """Check that the sizes ascend and that there is something to resample.

        Raises:
            DataError: If they do not, or there is not.
        """
        if len(self.sizes) == 0 or np.any(np.diff(self.sizes) <= 0):
            raise DataError(f"sizes must be distinct and ascend, got {self.sizes.tolist()}")
        if not self.windows.sum() > 0 or any(len(each) == 0 for each in self.squares):
            raise DataError("every size needs at least one seed, and the test set a window")

    @property
    def errors(self) -> Float[ndarray, "1 N"]:
        """Root mean square error at each size, seeds and episodes taken together."""
        means = [each.sum(axis=1).mean() / self.windows.sum() for each in self.squares]
        return np.sqrt(np.array(means))[None]


@dataclass(frozen=True)
class Gap:
    """State a ratio, or the bound that is known of it.

    Attributes:
        value: The ratio, or the bound; infinite where the arm's error is, 0 where the other's is,
            NaN where nothing is known.
        low: Lower end of its 95% interval; 0 where nothing is known below.
        high: Upper end; infinite where nothing is known above.
        bound: "" for a ratio, ">=" and "<=" for a bound, "?" where nothing is known.
    """

    value: float
    low: float
    high: float
    bound: str = ""

    def __str__(self) -> str:
        """Return the ratio with its interval, a bound with its sign."""
        if self.bound == "?":
            return "-"
        sign = {">=": "≥ ", "<=": "≤ "}.get(self.bound, "")
        value, low, high = (
            "∞" if math.isinf(each) else f"{each:.3g}" for each in (self.value, self.low, self.high)
        )
        return f"{sign}{value} [{low}, {high}]"

    @property
    def verdict(self) -> str:
        """Say of a ratio of errors whether the first arm is better than, as good as, or worse."""
        if self.bound == "?":
            return "unknown"
        if self.high < 1:
            return "better"
        if self.high <= EQUAL:
            return "as good"
        return "worse" if self.low > 1 else "open"


@dataclass(frozen=True, eq=False)
class Level:
    """State an error at which sizes are read.

    Attributes:
        error: On the curves as measured.
        draws: In each of R draws, or in all of them.
    """

    error: float
    draws: float | Float[ndarray, " R"]

    @classmethod
    def fixed(cls, error: float) -> "Level":
        """Return a level that is the same in every draw."""
        return cls(error, error)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Hold a curve with its bootstrap draws, all along one measure of size.

    Attributes:
        sizes: Sizes, ascending.
        errors: Error at each size.
        draws: The same in R draws.
    """

    sizes: Float[ndarray, " N"]
    errors: Float[ndarray, "1 N"]
    draws: Float[ndarray, "R N"]

    def along(self, sizes: Float[ndarray, " N"]) -> "Drawn":
        """Return the same models along another measure of size, given in their present order."""
        order = np.argsort(sizes, kind="stable")
        return Drawn(sizes[order], self.errors[:, order], self.draws[:, order])

    def size_at(self, level: Level) -> tuple[Reading, Reading]:
        """Read the size at which an error is reached: of the curve, and of its draws."""
        of_draws = size_at(self.sizes, self.draws, level.draws)
        return size_at(self.sizes, self.errors, level.error), of_draws

    def error_at(self, size: float) -> tuple[Reading, Reading]:
        """Read the error at a size: of the curve, and of its draws."""
        return error_at(self.sizes, self.errors, size), error_at(self.sizes, self.draws, size)


def draw(
    curves: Sequence[Curve], *, resamples: int = RESAMPLES, seed: int = 0, paired: bool = False
) -> list[Drawn]:
    """Draw the errors of several arms again and again.

    Each draw takes the seeds of every model anew, as if all trainings were independent (those
    trained at once share the depths that they draw), and
    then the test episodes, the same for all arms, so that what they share cancels.

    Args:
        curves: The arms, tested on the same episodes.
        resamples: Number of draws R.
        seed: Seed of the draws.
        paired: Take in one draw the same seeds of all models that have as many of them: what a seed
            does to all of them then cancels too. Seeds must stand in the same order everywhere.

    Raises:
        DataError: If the arms were not tested on the same episodes.
    """
    windows = curves[0].windows
    if any(not np.array_equal(each.windows, windows) for each in curves):
        raise DataError("arms can only be compared on the same windows of the same episodes")
    episodes = len(windows)
    shares = np.full(episodes, 1 / episodes)
    drawn = numpy_rng(seed, "episodes").multinomial(episodes, shares, size=resamples)
    total = np.maximum(drawn @ windows, 1e-12)
    rng = numpy_rng(seed, "seeds")
    found = []
    for curve in curves:
        columns = []
        for squares in curve.squares:
            kept = np.minimum(squares, _HUGE)
            count = len(kept)
            rng = numpy_rng(seed, "seeds") if paired else rng
            seeds = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
            means = ((seeds @ kept) * drawn).sum(axis=1) / total
            columns.append(np.where(means > math.sqrt(_HUGE), np.inf, np.sqrt(means)))
        found.append(Drawn(curve.sizes, curve.errors, np.stack(columns, axis=1)))
    return found


def ratio(
    first: tuple[Reading, Reading], second: tuple[Reading, Reading], level: float = 0.95
) -> Gap:
    """Divide two readings, of sizes or of errors, that were drawn together.

    A draw of which only a bound is known counts as the bound on one side and as unlimited on the
    other, so that the interval never claims more than is known.

    Args:
        first: What `Drawn.size_at` or `Drawn.error_at` read of the arm above the line.
        second: The same of the arm below it.
        level: Probability that the interval is meant to cover.
    """
    point, spread = (a.minus(b) for a, b in zip(first, second, strict=True))
    tail = (1 - level) / 2
    low = np.quantile(spread.low, tail, method="inverted_cdf")
    high = np.quantile(spread.high, 1 - tail, method="inverted_cdf")
    # An infinite error over a finite one is known: both ends of what is read are infinite.
    known = bool(point.low[0] > -np.inf), bool(point.high[0] < np.inf)
    if point.low[0] == point.high[0]:
        known = True, True
    if not any(known):
        return Gap(math.nan, 0.0, math.inf, "?")
    bound = {(True, True): "", (True, False): ">=", (False, True): "<="}[known]
    value = point.high[0] if bound == "<=" else point.low[0]
    with np.errstate(over="ignore"):
        return Gap(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)), bound)


def levels_of(curve: Drawn, shares: Sequence[float] = (0.25, 0.5, 0.75)) -> tuple[Level, ...]:
    """Return the errors at which arms are compared, by a rule that is fixed before any result.

    The rule is applied to every draw anew: of harder episodes every arm errs more, and the level
    goes up with them. One level for all would lie outside the curves of many draws.

    Args:
        curve: The looped arm.
        shares: How far each level lies between the least and the largest error of the curve, as a
            share of the distance of their logarithms.
    """
    if not np.isfinite(curve.errors).any():
        return ()
    measured, drawn = (
        [_between(errors, share) for share in shares] for errors in (curve.errors, curve.draws)
    )
    return tuple(Level(float(e[0]), each) for e, each in zip(measured, drawn, strict=True))


def _between(errors: Float[ndarray, "R N"], share: float) -> Float[ndarray, " R"]:
    """Return the error at a share of the way from the largest to the least; tiny where none is."""
    finite = np.isfinite(errors)
    logs = np.log(np.where(finite, errors, 1.0))
    low, high = np.where(finite, logs, np.inf).min(1), np.where(finite, logs, -np.inf).max(1)
    some = finite.any(axis=1)
    low, high = np.where(some, low, 0.0), np.where(some, high, 0.0)
    return np.where(some, np.exp(high + share * (low - high)), np.finfo(float).tiny)
