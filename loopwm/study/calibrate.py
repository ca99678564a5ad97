"""Choose how far to refine for a stated loss of accuracy: `lw.calibrate`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from loopwm.core.gate import Gate
from loopwm.core.halt import Certified, Fixed, OutputDelta, Residual
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.trace import squared_errors, with_loop
from loopwm.study.windows import Sampling, window_rows

if TYPE_CHECKING:
    from loopwm.world.ensemble import Ensemble
    from loopwm.world.model import WorldModel

Rule = OutputDelta | Residual | Certified | Gate
Rows = Mapping[int, Int[ndarray, " W"]]

LOOSEST, TIGHTEST = 2.0, 1e-6
# Tolerances tried between the first that will do and the one before it.
_BETWEEN = 2
SAMPLING = Sampling(max_windows=1000)


@dataclass(frozen=True)
class Tried:
    """Hold what one tolerance gave, or one number of iterations.

    Attributes:
        halt: The rule with it.
        iterations: Mean iterations per step, by horizon.
        ratio: RMSE over that of running all iterations, on the same windows, by horizon.
    """

    halt: Fixed | Rule
    iterations: dict[int, float]
    ratio: dict[int, float]

    @property
    def loss(self) -> float:
        """Loss of accuracy at the horizon that loses most."""
        # Not `max`, which passes over NaN.
        return float(np.max(list(self.ratio.values()))) - 1

    @property
    def setting(self) -> str:
        """Return what was tried of the rule: its tolerance, or the iterations of later steps."""
        halt = self.halt
        return f"then {halt.iterations}" if isinstance(halt, Fixed) else f"{halt.tol:.2g}"


@dataclass(frozen=True)
class Calibration:
    """Hold a calibrated stop rule: `model.imagine(obs, actions, **calibration.options)`.

    Attributes:
        halt: The rule with the chosen tolerance or numbers of iterations.
        max_iters: Most iterations.
        reference: Iterations that accuracy is compared with.
        regret: Loss of accuracy that was allowed.
        tried: What was tried, from loose to tight; the last one is chosen.
    """

    halt: Fixed | Rule
    max_iters: int
    reference: int
    regret: float
    tried: tuple[Tried, ...]

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of `predict`, `step` and `imagine` that apply the rule."""
        return {"halt": self.halt, "max_iters": self.max_iters}

    @property
    def saved(self) -> float:
        """Share of the reference's iterations that the rule saves, mean over the horizons."""
        return 1 - float(np.mean(list(self.tried[-1].iterations.values()))) / self.reference

    def __str__(self) -> str:
        """Return a table: iterations and loss of accuracy by what was tried."""
        horizons = list(self.tried[0].ratio)
        steps = isinstance(self.halt, Fixed)
        head = f"{f'first {self.max_iters}' if steps else 'tolerance':>9}" + "".join(
            f"  iterations, k={k}  loss, k={k}" for k in horizons
        )
        lines = [
            f"{each.setting:>9}"
            + "".join(
                f"{each.iterations[k]:{15 + len(str(k))}.2f}"
                f"{100 * (each.ratio[k] - 1):{9 + len(str(k))}.2f}%"
                for k in horizons
            )
            for each in self.tried
        ]
        chosen = (
            f"chosen: {self.halt!r} and at most {self.max_iters} of {self.reference} iterations"
        )
        return "\n".join([head, *lines, chosen])


def calibrate(
    model: "WorldModel | Ensemble",
    data: RolloutDataset,
    regret: float = 0.01,
    *,
    rule: Fixed | Rule = OutputDelta(),
    horizons: Sequence[int] = (1, 15),
    max_iters: int | None = None,
    context: int = 1,
    sampling: Sampling = SAMPLING,
) -> Calibration:
    """Find the loosest tolerance that loses no more accuracy than stated, at every horizon.

    First the fewest iterations are found that, run by every row, lose at most half of the regret:
    no row needs more. Then tolerances are tried from loose to tight by a factor of the square root
    of 2, and two between the first that will do and the one before. With `rule=lw.Fixed()` there is
    no tolerance: rows that begin run those iterations, and fewer are found for the steps that
    follow, which start from what the step before left. Errors made by stopping early cross
    environment steps, which no certificate covers; so they are measured, on the same windows with
    and without the rule.

    Args:
        model: A looped model.
        data: Real experience that the model was not trained on.
        regret: Largest relative increase of RMSE allowed, above 0.
        rule: The rule whose tolerance, or whose numbers of iterations, are chosen.
        horizons: Open-loop steps at which the loss is measured.
        max_iters: Iterations that accuracy is compared with; by default the model's typical depth.
        context: Real observations taken in before imagining.
        sampling: Which windows are looked at.

    Returns:
        The rule, and what was tried.

    Raises:
        ConfigError: If the model has no loop of its own, an argument is out of range, or no
            tolerance loses so little.
        DataError: If a horizon has no windows, or an error that is zero or not finite.
    """
    if not regret > 0:
        raise ConfigError(f"regret must be above 0, got {regret}")
    model = with_loop(model)
    reference = model.depth.typical if max_iters is None else max_iters
    rows = _windows(data, horizons, context, sampling)
    if isinstance(rule, Fixed) and max(rows) + context < 3:
        raise ConfigError(
            f"rule=Fixed() needs a step that follows the first: a horizon beyond {horizons}, or "
            f"context={context} above 1"
        )

    def measure(halt: Fixed | Rule, most: int) -> dict[int, tuple[float, float]]:
        how = Imagination(context, halt=halt, max_iters=most, batch_size=sampling.batch_size)
        return {k: _error(model, data, each, k, how) for k, each in rows.items()}

    full = measure(Fixed(reference), reference)
    _refuse_spoilt({k: error for k, (error, _) in full.items()})

    def loss(now: dict[int, tuple[float, float]]) -> dict[int, float]:
        return {k: now[k][0] / full[k][0] for k in now}

    most = 1
    while most < reference and not _within(loss(measure(Fixed(most), most)), regret / 2):
        most += 1

    def attempt(halt: Fixed | Rule) -> Tried:
        now = measure(halt, most)
        return Tried(halt, {k: each[1] for k, each in now.items()}, loss(now))

    tried: list[Tried] = []
    for halt in _from_loose_to_tight(rule, most):
        tried.append(attempt(halt))
        if tried[-1].loss <= regret:
            tried = _loosened(tried, attempt, regret)
            return Calibration(tried[-1].halt, most, reference, regret, tuple(tried))
    raise ConfigError(
        f"no tolerance down to {TIGHTEST:g} of {type(rule).__name__} keeps regret={regret}; "
        f"allow more, or raise max_iters={reference}"
    )


def _windows(
    data: RolloutDataset, horizons: Sequence[int], context: int, sampling: Sampling
) -> dict[int, Int[ndarray, " W"]]:
    rows = {k: window_rows(data, k, context - 1, sampling) for k in sorted(set(horizons))}
    empty = [k for k, each in rows.items() if len(each) == 0]
    if empty or not rows:
        raise DataError(f"no window of {empty or horizons} steps fits into an episode of the data")
    return rows


def _refuse_spoilt(errors: Mapping[int, float]) -> None:
    spoilt = {k: each for k, each in errors.items() if not (np.isfinite(each) and each > 0)}
    if spoilt:
        raise DataError(
            f"of the model's error no share can be lost at {list(spoilt)} steps, where it is "
            f"{list(spoilt.values())}: calibrate at other horizons, or a model that stays finite"
        )


def _within(ratio: Mapping[int, float], regret: float) -> bool:
    return all(each <= 1 + regret for each in ratio.values())  # False for NaN.


def _from_loose_to_tight(rule: Fixed | Rule, most: int) -> Iterator[Fixed | Rule]:
    """List what is tried of a rule, if no row needs more than `most` iterations."""
    if isinstance(rule, Fixed):
        yield from (replace(rule, iterations=count, first=most) for count in range(1, most + 1))
        return
    tol = LOOSEST
    while tol >= TIGHTEST:
        yield replace(rule, tol=tol)
        tol = float(f"{tol / math.sqrt(2):.3g}")


def _loosened(
    tried: list[Tried], attempt: Callable[[Fixed | Rule], Tried], regret: float
) -> list[Tried]:
    """Try tolerances between the last, which will do, and the one before; end with the loosest."""
    if isinstance(tried[-1].halt, Fixed) or len(tried) < 2:
        return tried
    *loose, tight = tried
    for _ in range(_BETWEEN):
        low, high = tight.halt, loose[-1].halt
        assert not isinstance(low, Fixed)
        assert not isinstance(high, Fixed)
        now = attempt(replace(low, tol=float(f"{math.sqrt(low.tol * high.tol):.3g}")))
        if now.loss <= regret:
            tight = now
        else:
            loose.append(now)
    return [*loose, tight]


def _error(
    model: "WorldModel",
    data: RolloutDataset,
    rows: Int[ndarray, " W"],
    horizon: int,
    how: Imagination,
) -> tuple[float, float]:
    """Return RMSE in standard deviations of the observation, and mean iterations per step."""
    seen = imagine_windows(model, data, rows, horizon, how)
    squares = squared_errors(model, data, rows, seen.obs[:, -1], horizon)
    return float(np.sqrt(squares.mean())), float(seen.n_iters.mean())
