"""The terms of a comparison, the same for every arm; free of torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Union, cast

from loopwm.core.config import Contractive
from loopwm.core.depth import Fixed
from loopwm.errors import ConfigError, remedy
from loopwm.train.config import FitConfig
from loopwm.world.config import GRU, MLP, RSSM, ModelConfig, Untied, WorldConfig
from loopwm.world.terms import Objective

if TYPE_CHECKING:
    from torch import nn

    from loopwm.data.store import RolloutDataset

# Called with the training data and a width, returns an untrained module with the three verbs.
Factory = Callable[["RolloutDataset", int], "nn.Module"]
Shape = Union[ModelConfig, Factory]  # noqa: UP007 - the alias of a callable has no "|"
REFERENCE = "looped"


def is_own(shape: Shape) -> bool:
    """Say whether a shape makes modules of the user's own."""
    return not isinstance(shape, ModelConfig)


@dataclass(frozen=True)
class Family:
    """Name an arm: one kind of model, at every size.

    Attributes:
        label: What tables call it.
        shapes: Configurations whose width is set, or factories of one's own modules; at each size
            the shape with the least validation error stands for the arm.
        members: Number of models; more than one make an ensemble.
        times: How many times the parameters aimed at the arm has.
    """

    label: str
    shapes: tuple[Shape, ...]
    members: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        """Check that there is a shape, and that modules of one's own stand alone.

        Raises:
            ConfigError: If not.
        """
        if not self.shapes:
            raise ConfigError(f"the arm {self.label!r} has no shape; give it a configuration")
        if self.members < 1 or (self.members > 1 and any(map(is_own, self.shapes))):
            raise ConfigError(
                f"the arm {self.label!r} has members={self.members}: it must be at least 1, and 1 "
                "for modules of your own"
            )
        if self.times < 1:
            raise ConfigError(f"the arm {self.label!r} has times={self.times}: at least 1")


FAMILIES = {
    REFERENCE: Family("looped", (WorldConfig(),)),
    "contractive": Family("looped, contractive", (WorldConfig(cell=Contractive()),)),
    "once": Family("same cell, not looped (T=1)", (WorldConfig(depth=Fixed(1)),)),
    # Its width spends what the loop spends on iterations, as the untied cells' weights do.
    "eightfold": Family(
        "same cell, T=1, 8 times the parameters", (WorldConfig(depth=Fixed(1)),), times=8
    ),
    "untied": Family("8 untied cells", (Untied(blocks=8),)),
    "mlp": Family("MLP, 2 to 4 layers", (MLP(depth=2), MLP(depth=3), MLP(depth=4))),
    "wide": Family("MLP, 1 wide layer", (MLP(depth=1),)),
    "thin": Family("MLP, 8 thin layers", (MLP(depth=8),)),
    "gru": Family("GRU", (GRU(),)),
    "rssm": Family("RSSM", (RSSM(),)),
    "injected-once": Family("looped, no re-injection", (WorldConfig(reinject=False),)),
    "looped-ensemble": Family("ensemble of 5, looped", (WorldConfig(),), members=5),
    "mlp-ensemble": Family("ensemble of 5 MLP (4 layers)", (MLP(depth=4),), members=5),
}
# The same loop with as many iterations as the name says, for the law of what one is worth.
FAMILIES |= {
    f"loops-{count}": Family(f"{count} iterations", (WorldConfig(depth=Fixed(count)),))
    for count in (1, 2, 4, 8, 16)
}
USUAL = (REFERENCE, "once", "untied", "mlp", "gru")


@dataclass(frozen=True)
class Terms:
    """Say what every arm gets: data apart, all that could favour one of them.

    Attributes:
        sizes: Parameters aimed at, those of one member; widths are chosen to come nearest.
        rates: Learning rates tried at every size, as many for every arm.
        seeds: Seeds of weights and batches; the trials have the first.
        horizons: Open-loop steps at which arms are compared.
        fit: How every model is trained, but for learning rate and seed.
        context: Real observations taken in before imagining, in training and evaluation.
        margin: Range that imagination is held to, as `WorldConfig.margin`; None clamps nothing.
        windows: Most test windows for each horizon.
        levels: Errors, by horizon, at which sizes are compared; where none are given, three errors
            inside the reference's curve (`loopwm.study.compare.gap.levels_of`).
    """

    sizes: tuple[int, ...] = (8_000, 16_000, 32_000, 64_000, 128_000)
    rates: tuple[float, ...] = (2.5e-3, 5e-3, 1e-2)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    horizons: tuple[int, ...] = (1, 15, 50)
    fit: FitConfig = FitConfig(updates=8_000, progress=False)
    context: int = 1
    margin: float | None = None
    windows: int = 2_000
    levels: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that nothing is empty, doubled, of the wrong kind or out of range.

        Raises:
            ConfigError: If something is.
        """
        for name in ("sizes", "rates", "seeds", "horizons"):
            _check_numbers(name, getattr(self, name))
        for name in ("context", "windows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.margin is not None and not 0 <= self.margin < math.inf:
            raise ConfigError(f"margin must be at least 0 and finite, or None, got {self.margin}")
        unknown = set(self.levels) - set(self.horizons)
        levels = [level for each in self.levels.values() for level in each]
        if unknown or not all(is_number(each) and each > 0 for each in levels):
            raise ConfigError(f"levels must be positive errors by horizon, got {self.levels}")


def is_number(value: object, kind: type = Real) -> bool:
    """Say whether a value is a finite number of a kind; a truth value is none."""
    return (
        isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(cast(Any, value))
    )


def _check_numbers(name: str, values: Sequence[Any]) -> None:
    kind, least = Real if name == "rates" else Integral, 0 if name == "seeds" else 1e-12
    good = bool(values) and all(is_number(each, kind) and each >= least for each in values)
    # Rates are told apart as they are written in the names of trials.
    told = [f"{each:g}" if name == "rates" else each for each in values] if good else []
    if not good or len(set(told)) < len(told):
        whole = "" if name == "rates" else "whole "
        raise ConfigError(
            f"{name} must be one or more different {whole}numbers above 0 (seeds from 0 on; rates "
            f"differ in six digits), got {values}"
        )


def families_of(arms: Mapping[str, object] | Sequence[str]) -> dict[str, Family]:
    """Return the arms of a comparison.

    Args:
        arms: Names of `FAMILIES`; or by name a family, a configuration, a factory, or several of
            those, which are then shapes of one arm.

    Raises:
        ConfigError: If a name or a value is none of these, or there is no arm to compare with.
    """
    if not isinstance(arms, Mapping) and len(set(arms)) < len(arms):
        raise ConfigError(f"arms must be different ones, got {list(arms)}")
    named = arms if isinstance(arms, Mapping) else {name: name for name in arms}
    found = {str(name): _family(str(name), value) for name, value in named.items()}
    if REFERENCE not in found:
        found = {REFERENCE: FAMILIES[REFERENCE]} | found
    if len(found) < 2:
        raise ConfigError(f"arms must hold something to compare {REFERENCE!r} with, got {named}")
    looped = {found[name].members for name in (REFERENCE, f"{REFERENCE}-ensemble") if name in found}
    for name, family in found.items():
        if family.members not in looped:
            raise ConfigError(
                f"the arm {name!r} has {family.members} members and nothing to be compared with: "
                f"add {REFERENCE}-ensemble, ensembles are compared with that one"
            )
    return found


def _family(name: str, value: object) -> Family:
    if isinstance(value, Family):
        return value
    if isinstance(value, str):
        if value not in FAMILIES:
            raise ConfigError(f"there is no arm {value!r}; {remedy(value, FAMILIES, 'arms')}")
        return FAMILIES[value]
    shapes = tuple(value) if isinstance(value, list | tuple) else (value,)
    for shape in shapes:
        # A module is callable too, but has one width and weights of its own.
        made = hasattr(shape, "state_dict") and not isinstance(shape, type)
        if made or not (isinstance(shape, ModelConfig) or callable(shape)):
            raise ConfigError(
                f"the arm {name!r} must be a configuration such as lw.MLP(), or a function of data "
                f"and width that returns a module, got {shape!r}"
            )
    label = FAMILIES[name].label if name == REFERENCE else name
    return Family(label, cast(tuple[Shape, ...], shapes))


def shared(objective: Objective) -> dict[str, object]:
    """Return the weights of the training loss that all arms must share."""
    own = {"intermediate", "settle"}  # they concern the iterations, which others do not have
    return {
        each.name: getattr(objective, each.name)
        for each in fields(objective)
        if each.name not in own
    }


def loss_of_own(families: Mapping[str, Family], terms: Terms) -> Objective:
    """Return what modules of the user's own are trained on: the loss of the reference.

    It is never hidden from them what they observe, which the verbs have no word for.
    """
    reference = families[REFERENCE].shapes[0] if REFERENCE in families else None
    objective = reference.objective if isinstance(reference, ModelConfig) else Objective()
    return replace(objective, context=terms.context, mask=0.0)
