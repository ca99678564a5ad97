"""Looped world models: one core refines a latent state until it can predict what happens next."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopwm.core import depth, grad
    from loopwm.core.certificate import Certificate
    from loopwm.core.config import Bounded, Contractive
    from loopwm.core.halt import Certified, Fixed, OutputDelta, Residual
    from loopwm.data.collect import collect
    from loopwm.data.standard import collect_standard
    from loopwm.data.store import RolloutDataset
    from loopwm.study.accuracy import PredictionReport
    from loopwm.study.calibrate import Calibration, calibrate
    from loopwm.study.prediction import evaluate
    from loopwm.train.config import AdamW, FitConfig, Muon
    from loopwm.world.build import load
    from loopwm.world.config import GRU, MLP, Gaussian, Mean, Objective, Untied, WorldConfig
    from loopwm.world.ensemble import Ensemble
    from loopwm.world.fit import fit
    from loopwm.world.model import WorldModel
    from loopwm.world.prediction import Prediction, Trajectory
    from loopwm.world.protocol import WorldModelLike

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "MLP",
    "AdamW",
    "Bounded",
    "Calibration",
    "Certificate",
    "Certified",
    "Contractive",
    "Ensemble",
    "FitConfig",
    "Fixed",
    "Gaussian",
    "Mean",
    "Muon",
    "Objective",
    "OutputDelta",
    "Prediction",
    "PredictionReport",
    "Residual",
    "RolloutDataset",
    "Trajectory",
    "Untied",
    "WorldConfig",
    "WorldModel",
    "WorldModelLike",
    "calibrate",
    "collect",
    "collect_standard",
    "depth",
    "evaluate",
    "fit",
    "grad",
    "load",
]

# Where each name lives; a name is imported when it is first used, so that neither `import loopwm`
# nor `loopwm --help` waits for torch.
_HOMES = {
    "core.certificate": ("Certificate",),
    "core.config": ("Bounded", "Contractive"),
    "core.halt": ("Certified", "Fixed", "OutputDelta", "Residual"),
    "data.collect": ("collect",),
    "data.standard": ("collect_standard",),
    "data.store": ("RolloutDataset",),
    "study.accuracy": ("PredictionReport",),
    "study.calibrate": ("Calibration", "calibrate"),
    "study.prediction": ("evaluate",),
    "train.config": ("AdamW", "FitConfig", "Muon"),
    "world.build": ("load",),
    "world.config": ("GRU", "MLP", "Gaussian", "Mean", "Objective", "Untied", "WorldConfig"),
    "world.ensemble": ("Ensemble",),
    "world.fit": ("fit",),
    "world.model": ("WorldModel",),
    "world.protocol": ("WorldModelLike",),
    "world.prediction": ("Prediction", "Trajectory"),
}
_MODULES = {"depth": "loopwm.core.depth", "grad": "loopwm.core.grad"}
_HOME = {name: f"loopwm.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'loopwm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
