"""How an evaluation measured, in words, beside its numbers."""

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from loopwm.study.accuracy import PredictionReport
from loopwm.study.openloop import Imagination
from loopwm.study.summary import DIVERGED, Scale
from loopwm.study.trace import has_loop
from loopwm.study.windows import Sampling

UNIT = "unit"


def notes_of(
    model: object,
    how: Imagination,
    scale: Scale,
    history: int,
    sampling: Sampling,
    trained_on: bool,
) -> dict[str, str]:
    """Say how a model was evaluated.

    Args:
        model: What was evaluated.
        how: How it imagined.
        scale: The units of its errors.
        history: Steps before each window.
        sampling: Which windows were looked at.
        trained_on: Whether a training set was given.
    """
    source = "training set" if trained_on else "test set"
    return {
        "context": f"{how.context} real observations, {history} steps before each window",
        "feedback": how.feedback or "the model's default",
        "halt": _refining(model, how.halt),
        "max_iters": _refining(model, how.max_iters),
        UNIT: _unit(model, scale, trained_on),
        "change": f"standard deviations of the k-step change come from the {source}",
        "linear": f"fitted on the {source if trained_on else 'other half of the test set'}",
        "diverged": f"not finite, or off by more than {DIVERGED:g} standard deviations; "
        "counted in RMSE, which one window that is not finite makes infinite",
        "windows": f"at most {sampling.max_windows} for each horizon, seed {sampling.seed}",
        "interval": "95%, bootstrap over episodes",
        "dt": "unknown" if scale.dt is None else f"{scale.dt:g} s per step",
        "margin": _margin(model, how),
    }


def one_unit(reports: Iterable[PredictionReport]) -> bool:
    """Say whether errors are in the same unit, as far as the reports tell."""
    return len({report.notes[UNIT] for report in reports if UNIT in report.notes}) < 2


def _unit(model: object, scale: Scale, trained_on: bool) -> str:
    own = "the model's own training" if hasattr(model, "stats") else "the test set"
    source = "the training set that was given" if trained_on else own
    # Tells whether two reports are in the same unit.
    mark = zlib.crc32(np.asarray(scale.obs_std, np.float32).tobytes())
    return f"standard deviations of the observations of {source} ({mark:08x})"


def _refining(model: object, asked: Any) -> str:
    if asked is None:
        return "the model's default"
    return str(asked) if has_loop(model) else "not applied: the model has no loop"


def _margin(model: object, how: Imagination) -> str:
    from loopwm.world.ensemble import Ensemble

    one = model.members[0] if isinstance(model, Ensemble) else model
    margin = getattr(one, "margin", None)
    feedback = how.feedback or getattr(getattr(one, "config", None), "feedback", None)
    if margin is None or feedback == "latent":
        return "what the model feeds back is held to no range"
    return f"what the model feeds back is held to the training range and {margin:g} of it beyond"
