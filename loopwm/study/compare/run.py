"""Compare looped with unlooped models on a dataset: `lw.compare`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.study.compare.assemble import assemble
from loopwm.study.compare.parts import split_of
from loopwm.study.compare.report import ComparisonReport
from loopwm.study.compare.rounds import run_rounds
from loopwm.study.compare.terms import USUAL, Terms, families_of
from loopwm.study.compare.trial import Scene
from loopwm.train.config import FitConfig


def compare(  # noqa: PLR0913 - what, on what, at which sizes, and how it is trained and measured
    train: RolloutDataset,
    test: RolloutDataset,
    arms: Mapping[str, object] | Sequence[str] = USUAL,
    *,
    sizes: Sequence[int] = Terms.sizes,
    fit: FitConfig = Terms.fit,
    rates: Sequence[float] = Terms.rates,
    seeds: Sequence[int] = Terms.seeds,
    horizons: Sequence[int] = Terms.horizons,
    levels: Mapping[int, Sequence[float]] | None = None,
    context: int = 1,
    margin: float | None = None,
    valid: RolloutDataset | None = None,
    shifted: RolloutDataset | None = None,
    run_dir: str | Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> ComparisonReport:
    """Compare looped with unlooped models on real experience, each at several sizes.

    Every arm is trained on the same data by as many updates of the same loss; its learning rate and
    shape are chosen at every size from equally many trials by the validation set; all are measured
    on the same test windows, where nothing is clamped. Sizes are then compared at equal error, and
    errors at equal parameters, training FLOPs and FLOPs per step, with intervals.

    Args:
        train: Training data.
        test: Experience held out from training, better of at least ten episodes.
        arms: Names of `loopwm.study.compare.terms.FAMILIES`; or by name a configuration, whose
            width is varied, or a function of training data and width that returns an untrained
            module of your own with the three verbs; or several of these, the best of which stands
            for the arm. "looped" is what all are compared with.
        sizes: Numbers of parameters aimed at, at least two, better five.
        fit: How every model is trained, but for learning rate and seed.
        rates: Learning rates tried.
        seeds: Seeds; the trials have the first.
        horizons: Open-loop steps at which models are compared.
        levels: Errors, by horizon, at which sizes are compared; by default three inside the looped
            model's curve, at a quarter, half and three quarters of its range of log error.
        context: Real observations taken in before imagining, in training and evaluation.
        margin: Range that imagination is held to, as `WorldConfig.margin`; None clamps nothing.
        valid: What rates and shapes are chosen by; by default a fifth of the training episodes,
            which then are not trained on.
        shifted: Experience unlike the training data, on which models are also measured: how much
            more they err there, at equal error on `test`, is `report.beyond`.
        run_dir: Directory of results and checkpoints, from which a stopped comparison goes on and
            which several processes may share; None writes nothing. Modules of your own are told
            apart by their function's name: after changing one, give another directory.
        report: Receives a line for each model begun.

    Returns:
        The report: print it, or see `ratio`, `quality`, `matched`, `to_json()` and `save()`.

    Raises:
        ConfigError: If an argument is out of range, or an arm is none.
        DataError: If the data has too few or too short episodes, or parts of it share some.
    """
    families = families_of(arms)
    terms = Terms(
        sizes=_several("sizes", sizes, ascending=True),
        rates=_several("rates", rates, ascending=True),
        seeds=_several("seeds", seeds),
        horizons=_several("horizons", horizons),
        fit=replace(fit, progress=False),
        context=context,
        margin=margin,
        levels=_levels({} if levels is None else levels),
    )
    scene = Scene(families, split_of(train, test, valid, shifted, terms), terms)
    folder = None if run_dir is None else Path(run_dir)
    first, second, found = run_rounds(scene, folder, report)
    return assemble(families, terms, first, second, found)


def _several(name: str, given: Any, *, ascending: bool = False) -> tuple[Any, ...]:
    try:
        return tuple(sorted(given) if ascending else given)
    except TypeError as error:
        raise ConfigError(f"{name} must be several numbers, got {given!r}") from error


def _levels(given: Any) -> dict[int, tuple[float, ...]]:
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"levels must hold errors by horizon, such as {{1: (0.2, 0.1)}}, got {given!r}"
        )
    return {k: _several(f"levels[{k!r}]", errors) for k, errors in given.items()}
