"""What an evaluation found: the numbers of one model on one test set."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from loopwm.errors import StoreError
from loopwm.study.score import TerminationScore, UncertaintyScore

if TYPE_CHECKING:
    from rich.table import Table

_BY_HORIZON = (
    *("rmse", "interval", "rmse_change", "interval_change", "median", "quartiles", "dimensions"),
    *("windows", "episodes", "diverged", "reward", "iterations", "settled", "uncertainty"),
    "by_episode",
)


@dataclass(frozen=True)
class PredictionReport:
    """Hold the open-loop errors of one model; every `dict` is keyed by the horizon in steps.

    The error of a window is the root mean square over observation dimensions of its last step's
    error, each dimension divided by its standard deviation in the training set (`rmse`, `interval`,
    `median`, `quartiles`, `dimensions`), or by that of its change over the same number of steps
    (`rmse_change`, `interval_change`). RMSE covers every window, diverged ones too: a single window
    that is not finite makes it infinite. Median and quartiles stay meaningful then.

    Attributes:
        name: What was evaluated.
        horizons: Open-loop steps, ascending.
        dt: Seconds per step, or None where the environment has no clock.
        rmse: Root mean square error over windows and dimensions.
        interval: 95% bootstrap interval of `rmse` over episodes, (low, high).
        rmse_change: The same in units of the change.
        interval_change: 95% bootstrap interval of `rmse_change`.
        median: Median of the windows' errors.
        quartiles: Their lower and upper quartile.
        dimensions: RMSE of each observation dimension.
        windows: Number of windows.
        episodes: Number of episodes that they come from.
        diverged: Share of windows that are not finite or off by more than the stated number of
            standard deviations.
        reward: RMSE of the last step's reward over the standard deviation of rewards.
        iterations: Mean iterations of the loop per imagined step.
        settled: Share of imagined steps whose loop settled.
        uncertainty: Scores of the stated spread; empty for models that state none.
        by_episode: For each episode with windows its number, its windows and the sum of their
            squared errors, for paired comparisons; kept for the model and its parts.
        termination: Score of the predicted terminal steps, one step ahead, or None without any.
        parts: The same for each part of a mixture.
        references: The same for copy-last, a linear model and the ceiling, where available.
        notes: How it was measured, in words.
    """

    name: str
    horizons: tuple[int, ...]
    dt: float | None
    rmse: dict[int, float]
    interval: dict[int, tuple[float, float]]
    rmse_change: dict[int, float]
    interval_change: dict[int, tuple[float, float]]
    median: dict[int, float]
    quartiles: dict[int, tuple[float, float]]
    dimensions: dict[int, tuple[float, ...]]
    windows: dict[int, int]
    episodes: dict[int, int]
    diverged: dict[int, float]
    reward: dict[int, float]
    iterations: dict[int, float]
    settled: dict[int, float]
    uncertainty: dict[int, UncertaintyScore] = field(default_factory=dict)
    by_episode: dict[int, tuple[tuple[int, int, float], ...]] = field(default_factory=dict)
    termination: TerminationScore | None = None
    parts: "dict[str, PredictionReport]" = field(default_factory=dict)
    references: "dict[str, PredictionReport]" = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> dict[int, float] | None:
        """Simulated time of each horizon, or None where the environment has no clock."""
        return None if self.dt is None else {k: k * self.dt for k in self.horizons}

    def to_json(self) -> str:
        """Return the report as strict JSON; numbers that are not finite become strings."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return _encode(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "PredictionReport":
        """Read what `to_json` wrote.

        Raises:
            StoreError: If it is not a report.
        """
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"this is not the JSON of a prediction report: {error}") from error

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "PredictionReport":
        """Read what `to_dict` returned."""
        known = {each.name for each in fields(cls)}
        values = {name: document[name] for name in known}
        for name in _BY_HORIZON:
            values[name] = {int(k): _number(value) for k, value in document[name].items()}
        values["uncertainty"] = {
            int(k): UncertaintyScore(**_numbers(value))
            for k, value in document["uncertainty"].items()
        }
        values["horizons"] = tuple(document["horizons"])
        ends = document["termination"]
        values["termination"] = None if ends is None else TerminationScore(**_numbers(ends))
        for name in ("parts", "references"):
            values[name] = {key: cls.from_dict(each) for key, each in document[name].items()}
        return cls(**values)

    def table(self, unit: str = "obs") -> "Table":
        """Lay the report out as a rich table (see `loopwm.study.table.report_table`)."""
        from loopwm.study.table import report_table

        return report_table(self, unit)

    def __str__(self) -> str:
        """Return the tables as plain text."""
        from loopwm.study.table import report_text

        return report_text(self)


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _encode(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_number(each) for each in value)
    if isinstance(value, str):
        return float(value)
    return value


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    convert: Callable[[Any], Any] = _number
    return {name: convert(value) for name, value in values.items()}
