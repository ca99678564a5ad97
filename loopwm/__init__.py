"""Looped world models: one core refines a latent state until it can predict what happens next."""

import functools
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopwm.agent.cem import CEM
    from loopwm.agent.config import MPC, Dyna
    from loopwm.agent.evaluate import evaluate_agent
    from loopwm.agent.icem import ICEM
    from loopwm.agent.imagination import Caution, ImaginationVectorEnv
    from loopwm.agent.mppi import MPPI
    from loopwm.agent.single import ImaginationEnv
    from loopwm.agent.train import load_agent, train_agent
    from loopwm.core import depth, grad
    from loopwm.core.certificate import Certificate
    from loopwm.core.config import Bounded, Contractive
    from loopwm.core.halt import Certified, Fixed, OutputDelta, Residual
    from loopwm.data.collect import collect
    from loopwm.data.standard import collect_standard
    from loopwm.data.store import RolloutDataset
    from loopwm.reason.convert import export_trm, import_trm
    from loopwm.reason.model import Reasoner
    from loopwm.study.accuracy import PredictionReport
    from loopwm.study.calibrate import Calibration, calibrate
    from loopwm.study.compare.run import compare
    from loopwm.study.planning import evaluate_planning
    from loopwm.study.prediction import evaluate
    from loopwm.train.config import AdamW, FitConfig, Muon
    from loopwm.world.build import load
    from loopwm.world.config import (
        GRU,
        MLP,
        RSSM,
        Gaussian,
        Mean,
        Untied,
        WorldConfig,
    )
    from loopwm.world.ensemble import Ensemble
    from loopwm.world.fit import fit
    from loopwm.world.model import WorldModel
    from loopwm.world.prediction import Prediction, Trajectory
    from loopwm.world.protocol import WorldModelLike
    from loopwm.world.terms import Objective

__version__ = "0.1.0"

__all__ = [
    "CEM",
    "GRU",
    "ICEM",
    "MLP",
    "MPC",
    "MPPI",
    "RSSM",
    "AdamW",
    "Bounded",
    "Calibration",
    "Caution",
    "Certificate",
    "Certified",
    "Contractive",
    "Dyna",
    "Ensemble",
    "FitConfig",
    "Fixed",
    "Gaussian",
    "ImaginationEnv",
    "ImaginationVectorEnv",
    "Mean",
    "Muon",
    "Objective",
    "OutputDelta",
    "Prediction",
    "PredictionReport",
    "Reasoner",
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
    "compare",
    "depth",
    "evaluate",
    "evaluate_agent",
    "evaluate_planning",
    "export_trm",
    "fit",
    "grad",
    "import_trm",
    "load",
    "load_agent",
    "train_agent",
]

# Where each name lives; a name is imported when it is first used, so that neither `import loopwm`
# nor `loopwm --help` waits for torch.
_HOMES = {
    "agent.cem": ("CEM",),
    "agent.icem": ("ICEM",),
    "agent.imagination": ("Caution", "ImaginationVectorEnv"),
    "agent.mppi": ("MPPI",),
    "agent.config": ("MPC", "Dyna"),
    "agent.evaluate": ("evaluate_agent",),
    "agent.single": ("ImaginationEnv",),
    "agent.train": ("load_agent", "train_agent"),
    "core.certificate": ("Certificate",),
    "core.config": ("Bounded", "Contractive"),
    "core.halt": ("Certified", "Fixed", "OutputDelta", "Residual"),
    "data.collect": ("collect",),
    "data.standard": ("collect_standard",),
    "data.store": ("RolloutDataset",),
    "reason.convert": ("export_trm", "import_trm"),
    "reason.model": ("Reasoner",),
    "study.accuracy": ("PredictionReport",),
    "study.calibrate": ("Calibration", "calibrate"),
    "study.planning": ("evaluate_planning",),
    "study.compare.run": ("compare",),
    "study.prediction": ("evaluate",),
    "train.config": ("AdamW", "FitConfig", "Muon"),
    "world.build": ("load",),
    "world.config": (*("GRU", "MLP", "RSSM", "Gaussian", "Mean", "Untied", "WorldConfig"),),
    "world.ensemble": ("Ensemble",),
    "world.fit": ("fit",),
    "world.model": ("WorldModel",),
    "world.protocol": ("WorldModelLike",),
    "world.terms": ("Objective",),
    "world.prediction": ("Prediction", "Trajectory"),
}
_MODULES = {
    "depth": "loopwm.core.depth",
    "grad": "loopwm.core.grad",
    "errors": "loopwm.errors",
}
_HOME = {name: f"loopwm.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    _register()
    if name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'loopwm' has no attribute {name!r}")
    globals()[name] = value
    return value


@functools.cache
def _register() -> None:
    """Register our environments with Gymnasium, once something of this package is used."""
    importlib.import_module("loopwm.data.registration").register()


# So that `gym.make("loopwm:loopwm/Imagination-v0", ...)`, which imports this package, finds it.
# Where this package came before Gymnasium, the first use of a name of it registers.
if "gymnasium" in sys.modules:
    _register()


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
