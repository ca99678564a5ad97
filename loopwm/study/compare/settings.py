"""What a comparison over tasks runs: one file of settings, TOML or JSON; free of torch."""

import json
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from loopwm.errors import ConfigError, StoreError, remedy
from loopwm.study.compare.shifts import SHIFTS
from loopwm.study.compare.terms import FAMILIES, REFERENCE, Terms, families_of, is_number
from loopwm.train.config import OPTIMIZERS, FitConfig


@dataclass(frozen=True)
class Settings:
    """Say what a comparison runs; every combination of task, skip and updates is one of its own.

    Attributes:
        tasks: Gymnasium ids.
        skips: Control intervals, in multiples of the task's own.
        arms: Names of `loopwm.study.compare.terms.FAMILIES`.
        sizes: Parameters aimed at.
        rates: Learning rates tried for every arm at every size.
        seeds: Seeds; the trials have the first.
        horizons: Open-loop steps at which models are compared.
        updates: Training budgets.
        rows: Transitions trained on.
        valid_rows: Transitions that rates and shapes are chosen by.
        test_rows: Transitions that are reported.
        mixture: "standard" (`lw.collect_standard`) where its policies ship for the task and its own
            control interval, or "excitation" for all.
        batch: Windows in each update.
        steps: Steps that the training loss looks ahead.
        optimizer: "adamw" or "muon", for every arm.
        margin: Range that imagination is held to, as `WorldConfig.margin`; none clamps nothing.
        windows: Most test windows for each horizon.
        levels: Errors at which sizes are compared, by horizon, for all tasks; where none are given,
            three inside the looped curve.
        shifts: Names of `loopwm.study.compare.shifts.SHIFTS`: what is kept from training and tested
            instead, at the largest training budget, where the task has what it needs.
        shift_arms: The arms that this is asked of.
        loops: Numbers of iterations from which the law of their worth is fitted, two or more; empty
            for none.
        loop_sizes: Sizes for the law, at least four.
        loop_rows: Transitions trained on for the law, three budgets.
    """

    tasks: tuple[str, ...] = ("Hopper-v5", "HalfCheetah-v5", "loopwm/BallChain-v0")
    skips: tuple[int, ...] = (1,)
    arms: tuple[str, ...] = (
        *(REFERENCE, "contractive", "once", "untied", "mlp", "wide", "thin", "gru", "rssm"),
        *("injected-once", "looped-ensemble", "mlp-ensemble"),
    )
    sizes: tuple[int, ...] = Terms.sizes
    rates: tuple[float, ...] = Terms.rates
    seeds: tuple[int, ...] = Terms.seeds
    horizons: tuple[int, ...] = Terms.horizons
    updates: tuple[int, ...] = (4_000, 8_000, 16_000)
    rows: int = 100_000
    valid_rows: int = 20_000
    test_rows: int = 40_000
    mixture: str = "standard"
    batch: int = 256
    steps: int = 4
    optimizer: str = "muon"
    margin: float | None = None
    windows: int = 2_000
    levels: tuple[tuple[int, tuple[float, ...]], ...] = ()
    shifts: tuple[str, ...] = tuple(SHIFTS)
    shift_arms: tuple[str, ...] = (REFERENCE, "untied", "mlp", "eightfold")
    loops: tuple[int, ...] = (1, 2, 4, 8)
    loop_sizes: tuple[int, ...] = (8_000, 16_000, 32_000, 64_000)
    loop_rows: tuple[int, ...] = (10_000, 30_000, 100_000)

    def __post_init__(self) -> None:
        """Check what the comparisons themselves do not check.

        Raises:
            ConfigError: If a setting is unknown, empty or out of range.
        """
        for name in ("tasks", "skips", "updates"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{name} must be one or more different values, got {values}")
        for name in ("skips", "updates"):
            if min(getattr(self, name)) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("rows", "valid_rows", "test_rows", "batch", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.mixture not in ("standard", "excitation"):
            raise ConfigError(f'mixture must be "standard" or "excitation", got {self.mixture!r}')
        if self.optimizer not in OPTIMIZERS:
            named = ", ".join(OPTIMIZERS)
            raise ConfigError(f"optimizer must be among {named}, got {self.optimizer!r}")
        families_of(self.arms)
        self._check_shifts()
        for budget in self.updates:
            self.terms(budget)
        self._check_law()

    def _check_shifts(self) -> None:
        unknown = [name for name in self.shifts if name not in SHIFTS]
        if unknown:
            raise ConfigError(f"shifts must be among {', '.join(SHIFTS)}, got {unknown}")
        if len(set(self.shifts)) < len(self.shifts):
            raise ConfigError(f"shifts must be different ones, got {self.shifts}")
        try:
            families_of(self.shift_arms)
        except ConfigError as error:
            raise ConfigError(f"shift_arms: {error}") from error

    def _check_law(self) -> None:
        """Check that the law can be fitted to what is trained for it, before that is trained."""
        if not self.loops:
            return
        unknown = [count for count in self.loops if f"loops-{count}" not in FAMILIES]
        if unknown:
            raise ConfigError(f"loops must be among 1, 2, 4, 8, 16, got {unknown}")
        for name, least in (("loops", 2), ("loop_sizes", 4), ("loop_rows", 1)):
            values = getattr(self, name)
            if len(set(values)) < max(least, len(values)) or min(values, default=0) < 1:
                raise ConfigError(
                    f"{name} must be at least {least} different numbers from 1 on, got {values}; "
                    "without a law, loops is empty"
                )

    def terms(self, updates: int) -> Terms:
        """Return what every arm gets at a training budget."""
        fit = FitConfig(
            updates=updates,
            batch_size=self.batch,
            horizon=self.steps,
            optimizer=OPTIMIZERS[self.optimizer],
            threads=1,
            progress=False,
        )
        return Terms(
            sizes=self.sizes,
            rates=self.rates,
            seeds=self.seeds,
            horizons=self.horizons,
            fit=fit,
            margin=self.margin,
            windows=self.windows,
            levels=dict(self.levels),
        )

    def law_terms(self) -> Terms:
        """Return what every arm of the law gets: the middle training budget."""
        middle = sorted(self.updates)[len(self.updates) // 2]
        return replace(self.terms(middle), sizes=self.loop_sizes)


# Ten minutes on two idle cores: to see the instrument work, too small to settle anything.
QUICK = Settings(
    tasks=("Hopper-v5",),
    arms=(REFERENCE, "once", "untied", "mlp", "gru"),
    sizes=(2_000, 4_000, 8_000, 16_000, 32_000),
    rates=(5e-3, 1e-2),
    seeds=(0, 1),
    updates=(500,),
    rows=16_000,
    valid_rows=4_000,
    test_rows=8_000,
    mixture="excitation",
    batch=128,
    windows=500,
    shifts=(),
    loops=(),
)


def read_settings(path: Path) -> Settings:
    """Read settings from a file; what it does not name has its default.

    Args:
        path: A `.toml` or `.json` file.

    Raises:
        StoreError: If it cannot be read.
        ConfigError: If it names a setting that does not exist, or a value is of the wrong kind.
    """
    try:
        text = path.read_text(encoding="utf-8")
        given = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError as error:
        raise StoreError(f"there is no file {path}; loopwm compare --help shows one") from error
    except (ValueError, OSError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must hold settings by name, got {type(given).__name__}")
    usual = {each.name: each.default for each in fields(Settings)}
    for name in given:
        if name not in usual:
            raise ConfigError(f"{path} names the unknown setting {name!r}; {remedy(name, usual)}")
    values = {name: _value(name, value, usual[name]) for name, value in given.items()}
    return Settings(**values)


def _value(name: str, given: Any, usual: Any) -> Any:
    """Return a value as its setting wants it."""
    if name == "levels":
        return _levels(given)
    if name == "margin":
        usual = 0.0
    if isinstance(usual, tuple):
        if not isinstance(given, list):
            raise ConfigError(f"{name} must be a list, got {given!r}")
        kind = type(usual[0])
        return tuple(_scalar(name, each, kind) for each in given)
    return _scalar(name, given, type(usual))


def _scalar(name: str, given: Any, kind: type) -> Any:
    if kind is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    if isinstance(given, bool) or not isinstance(given, kind):
        raise ConfigError(f"{name} must hold {kind.__name__}, got {given!r}")
    return given


def _levels(given: Any) -> tuple[tuple[int, tuple[float, ...]], ...]:
    # In TOML, 1.15 = [0.3] is the table {1: {15: [0.3]}}: only a list is one of errors.
    if not isinstance(given, dict) or not all(
        name.isdecimal() and isinstance(errors, list) and all(map(is_number, errors))
        for name, errors in given.items()
    ):
        raise ConfigError(
            f"levels must hold a list of errors for each horizon, such as [levels] 15 = [0.3], "
            f"got {given!r}"
        )
    return tuple((int(k), tuple(float(e) for e in errors)) for k, errors in given.items())
