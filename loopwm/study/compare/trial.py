"""Train one model of a comparison, and measure all that is asked of it."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from loopwm.core import count
from loopwm.data.normalise import Statistics
from loopwm.errors import NumericalError
from loopwm.study.accuracy import PredictionReport
from loopwm.study.cells import version
from loopwm.study.compare import audit
from loopwm.study.compare.own import fit_own
from loopwm.study.compare.sizing import latency, make, training_flops, weight_bytes
from loopwm.study.compare.strata import measure_strata
from loopwm.study.compare.terms import Family, Shape, Terms, is_own, loss_of_own
from loopwm.study.datasets import Split
from loopwm.study.efficiency import flops_per_step
from loopwm.study.plateau import histories, largest_gain, left_out, training_seconds
from loopwm.study.prediction import evaluate
from loopwm.study.windows import Sampling
from loopwm.train.config import FitConfig
from loopwm.world.build import encode
from loopwm.world.config import ModelConfig
from loopwm.world.fit import fit, fit_each

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """Name one model to train.

    Attributes:
        place: Name of what it is trained and tested on, or "".
        arm: Name of the arm.
        shape: Index of the shape in the arm.
        size: Parameters aimed at.
        width: Width that comes nearest.
        lr: Peak learning rate.
        seed: Seed of weights and batches; trained at once with other seeds, of the weights alone.
        updates: Gradient updates.
        identity: Checksum of all else that the result depends on.
    """

    place: str
    arm: str
    shape: int
    size: int
    width: int
    lr: float
    seed: int
    updates: int
    identity: str

    @property
    def name(self) -> str:
        """Name the trial by all that it depends on, but what is trained at once with it."""
        words = [f"{self.arm}-{self.shape}", f"w{self.width}", f"lr{self.lr:g}", f"seed{self.seed}"]
        words += [f"u{self.updates}", self.identity]
        return "_".join([self.place, *words] if self.place else words).replace("/", "-")


@dataclass(frozen=True, eq=False)
class Scene:
    """Hold what the trials of a comparison share.

    Attributes:
        families: The arms by name.
        data: What is trained and tested on.
        terms: What every arm gets.
        place: Name of the data.
    """

    families: Mapping[str, Family]
    data: Split
    terms: Terms
    place: str = ""

    def shape(self, trial: Trial) -> Shape:
        """Return the shape of a trial."""
        return self.families[trial.arm].shapes[trial.shape]


def identity_of(scene: Scene, shape: Shape, members: int) -> str:
    """Return the checksum of what a trial's result depends on beside the fields of its name."""
    data = scene.data
    parts = [each for each in (data.train, data.valid, data.test, data.shifted) if each is not None]
    fit = {**scene.terms.fit.fingerprint(), "lr": None, "seed": None}
    terms = {**asdict(scene.terms), "fit": fit, "sizes": None, "rates": None, "seeds": None}
    known = [encode(shape), members, {**terms, "levels": None}]
    if is_own(shape):
        known.append(asdict(loss_of_own(scene.families, scene.terms)))
    return version(*known, [audit.digest(each) for each in parts])


def run_bundle(
    trials: Sequence[Trial], scene: Scene, folder: Path | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train models that differ in rate and seed alone, and measure each.

    Args:
        trials: Which; several are trained at once, or one by one if an update of one of them is
            not finite, which all would have to leave out.
        scene: What they share with the others.
        folder: Where checkpoints go, from which a stopped training goes on; None writes none.

    Yields:
        Name and numbers of each as JSON values; a rate that destroys training is one of them.
    """
    run_dir = None if folder is None else folder / "running" / bundle_name(trials)
    try:
        trained = _trained(trials, scene, run_dir)
        if len(trials) > 1 and any(left_out(records) for _, records, _ in trained):
            raise NumericalError("an update was not finite")
    except NumericalError as error:
        if len(trials) == 1:
            yield (
                trials[0].name,
                _head(trials[0], scene) | {"validation": None, "failed": str(error)},
            )
            return
        _remove(run_dir)
        for trial in trials:
            yield from run_bundle([trial], scene, folder)
        return
    # None is handed over, nor a checkpoint removed, before all are measured: whoever is stopped in
    # between has the whole bundle's training to go on from.
    measured = [
        (
            trial.name,
            {
                **_head(trial, scene),
                "at_once": len(trials),
                "seconds": sum(training_seconds(each) for each in records),
                "plateau": largest_gain(records),
                "audit": had,
                **_measured(model, trial, scene),
            },
        )
        for trial, (model, records, had) in zip(trials, trained, strict=True)
    ]
    yield from measured
    _remove(run_dir)


def _head(trial: Trial, scene: Scene) -> dict[str, Any]:
    family = scene.families[trial.arm]
    return {"trial": asdict(trial), "label": family.label, "members": family.members}


def _remove(run_dir: Path | None) -> None:
    if run_dir is not None:
        shutil.rmtree(run_dir, ignore_errors=True)


def bundle_name(trials: Sequence[Trial]) -> str:
    """Name trials that differ in rate and seed alone by all that they depend on."""
    name, *others = [trial.name for trial in trials]
    return f"{name}_and_{len(others)}_{version(others)}" if others else name


# A trained model, the metrics of its members, and what the training had.
_Trained = tuple[Any, list[Sequence[dict[str, Any]]], dict[str, Any]]


def _trained(trials: Sequence[Trial], scene: Scene, run_dir: Path | None) -> list[_Trained]:
    shape, data, terms = scene.shape(trials[0]), scene.data, scene.terms
    tested = audit.evaluation(data.test, data.valid, terms)
    if data.shifted is not None:
        tested |= {"shifted": audit.digest(data.shifted)}
    if isinstance(shape, ModelConfig):
        config = configured(shape, trials[0].width, terms)
        models = _fitted(trials, scene, config, run_dir)
        metrics = [histories(model) for model in models]
        given = data.train, terms, config.objective, config.margin
        had = [
            audit.record(*given, each, stats) | tested
            for each, stats in zip(metrics, map(_stats, models), strict=True)
        ]
        return list(zip(models, metrics, had, strict=True))
    (trial,) = trials
    settings = fit_of(terms, trial)
    module = make(shape, trial.width, data.train, trial.seed, trial.arm)
    knew = _before(module, scene)
    loss = loss_of_own(scene.families, terms)
    records = fit_own(module, data.train, settings, loss, valid=data.held, run_dir=run_dir)
    # Such modules feed back what they predict, held to no range.
    had = audit.record(data.train, terms, loss, None, [records])
    return [(module, [records], had | tested | knew)]


def _stats(model: Any) -> Statistics:
    return getattr(model, "members", [model])[0].stats


def _fitted(
    trials: Sequence[Trial], scene: Scene, config: ModelConfig, run_dir: Path | None
) -> Sequence[Any]:
    data, members = scene.data, scene.families[trials[0].arm].members
    settings = [fit_of(scene.terms, trial) for trial in trials]
    if members == 1:
        return fit_each(data.train, config, settings, run_dir=run_dir, valid=data.held)
    (alone,) = settings
    return [fit(data.train, config, alone, run_dir=run_dir, members=members, valid=data.held)]


def configured(shape: ModelConfig, width: int, terms: Terms) -> ModelConfig:
    """Return a shape at a width under the terms that all arms share."""
    objective = replace(shape.objective, context=terms.context)
    return replace(shape, width=width, margin=terms.margin, objective=objective)


def _measured(model: Any, trial: Trial, scene: Scene) -> dict[str, Any]:
    data, terms = scene.data, scene.terms
    report, chosen_by = _report(model, data, terms, "test"), _report(model, data, terms, "valid")
    members = [nn.Module.cpu(each) for each in getattr(model, "members", [model])]
    settings = replace(terms, fit=replace(terms.fit, updates=trial.updates))
    own = loss_of_own(scene.families, terms)
    one = training_flops(members[0], data.train, settings, own)
    parameters = sum(count.parameters(each) for each in members)
    return {
        "validation": choosing_error(chosen_by),
        "parameters": parameters,
        "repeated_parameters": _repeated(members[0]),
        "core_parameters": getattr(model, "core_parameters", parameters),
        "bytes": sum(weight_bytes(each) for each in members),
        "flops": flops_per_step(model, data.test.obs[:64], data.test.action[:64]),
        "training_flops": one * len(members),
        "latency": latency(model, data.test),
        "report": report.to_dict(),
        "strata": measure_strata(model, data.test, data.train, terms),
        **(
            {}
            if data.shifted is None
            else {"shifted": _report(model, data, terms, "shifted").to_dict()}
        ),
    }


def _repeated(model: Any) -> int:
    """Return the parameters of the cell that is applied again and again, 0 without a loop."""
    core = getattr(getattr(model, "dynamics", None), "core", None)
    return 0 if core is None else count.parameters(core)


def _report(model: Any, data: Split, terms: Terms, part: str) -> PredictionReport:
    context, sampling = terms.context, Sampling(max_windows=terms.windows, ceiling_windows=0)
    report = evaluate(
        model,
        getattr(data, part),
        terms.horizons,
        context=context,
        train=data.train,
        sampling=sampling,
    )
    return replace(report, references={}, parts={})


def choosing_error(report: PredictionReport) -> float | None:
    """Return what rates and shapes are chosen by: the geometric mean of errors over horizons.

    Returns:
        None where no horizon has a window, or an error is not finite.
    """
    errors = [report.rmse[k] for k in report.horizons if report.windows[k] > 0]
    if not errors or not all(math.isfinite(each) and each > 0 for each in errors):
        return None
    return math.exp(sum(map(math.log, errors)) / len(errors))


def _before(module: nn.Module, scene: Scene) -> dict[str, float]:
    """Measure what a module of the user's own predicts before it is trained."""
    data, terms = scene.data, scene.terms
    sampling = Sampling(max_windows=terms.windows, ceiling_windows=0)
    module.eval()
    first = evaluate(
        cast(Any, module),
        data.valid,
        (1,),
        context=terms.context,
        train=data.train,
        sampling=sampling,
    )
    module.train()
    return {"before": first.rmse[1], "copy": first.references["copy last"].rmse[1]}


def fit_of(terms: Terms, trial: Trial) -> FitConfig:
    """Return how a trial is trained."""
    often = max(1, trial.updates // 20)
    return replace(
        terms.fit, lr=trial.lr, seed=trial.seed, updates=trial.updates, validate_every=often
    )
