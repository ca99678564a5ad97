"""The models that are compared, by name; free of torch."""

from dataclasses import dataclass

from loopwm.core.config import Bounded, CellConfig, Contractive
from loopwm.core.depth import Fixed, Flow
from loopwm.core.grad import Full, GradientMode, Implicit, LastK, Phantom
from loopwm.errors import ConfigError, remedy
from loopwm.world.config import GRU, MLP, Gaussian, ModelConfig, Untied, WorldConfig
from loopwm.world.terms import Objective


@dataclass(frozen=True)
class Arm:
    """Name one way to build a model.

    Attributes:
        label: What tables call it.
        config: The configuration that is trained.
        members: Number of models; more than one make an ensemble.
        family: Arms of one family are shapes of the same model; the best one stands for it.
    """

    label: str
    config: ModelConfig
    members: int = 1
    family: str = ""


def _with(cell: CellConfig) -> WorldConfig:
    return WorldConfig(cell=cell)


def _settled(grad: GradientMode = Full(), warm: bool = True) -> WorldConfig:
    """Return a loop that comes to rest in training, where all gradient modes make sense."""
    return WorldConfig(cell=Contractive(0.8), depth=Fixed(12), grad=grad, warm=warm)


# Every shape of the family "mlp" has at least four times the parameters of the looped default;
# mbrl-lib's own 4x200 has 3.98 times as many.
ARMS = {
    "looped": Arm("looped (default)", WorldConfig()),
    "once": Arm("same cell, not looped (T=1)", WorldConfig(depth=Fixed(1))),
    "untied": Arm("8 untied cells", Untied(blocks=8)),
    "mlp-4x200": Arm("MLP 4x200", MLP(width=200, depth=4)),
    "mlp-4x208": Arm("MLP 4x208", MLP(width=208, depth=4), family="mlp"),
    "mlp-3x256": Arm("MLP 3x256", MLP(width=256, depth=3), family="mlp"),
    "mlp-2x384": Arm("MLP 2x384", MLP(width=384, depth=2), family="mlp"),
    "gru": Arm("GRU", GRU()),
    "no-carry": Arm("looped, no carry", WorldConfig(carry=False)),
    "stack": Arm("looped, no carry, 4 frames", WorldConfig(carry=False, frames=4)),
    "masked": Arm("looped, half of the steps masked", WorldConfig(objective=Objective(mask=0.5))),
    "latent": Arm("looped, trained in latent carry", WorldConfig(feedback="latent")),
    "expanded": Arm("looped, 4 times the hidden width", _with(Bounded(expand=4.0))),
    "bounded-gain": Arm("bounded, second form (gain 1)", _with(Bounded(gain=1.0))),
    "contractive-0.99": Arm("contractive, rate 0.99", _with(Contractive(0.99))),
    "contractive-0.95": Arm("contractive, rate 0.95", _with(Contractive(0.95))),
    "contractive-0.8": Arm("contractive, rate 0.8", _with(Contractive(0.8))),
    "contractive-gated": Arm("contractive, rate 0.99, gated", _with(Contractive(0.99, gated=True))),
    "contractive-wide": Arm("contractive, rate 0.99, 3 layers", _with(Contractive(0.99, layers=3))),
    "settling": Arm(
        "looped, trained to settle (0.05)", WorldConfig(objective=Objective(settle=0.05))
    ),
    "cold": Arm("looped, from the learned start at every step", WorldConfig(warm=False)),
    "settled": Arm("Full", _settled()),
    "settled-last": Arm("LastK(4)", _settled(LastK(4))),
    "settled-phantom": Arm("Phantom(4)", _settled(Phantom(4))),
    "settled-implicit": Arm("Implicit()", _settled(Implicit())),
    "settled-cold": Arm("contractive, from the learned start", _settled(warm=False)),
    "flow": Arm("flow, dopri5, tolerance 1e-3", WorldConfig(depth=Flow())),
    "flow-midpoint": Arm(
        "flow, midpoint, step 1", WorldConfig(depth=Flow(method="midpoint", step=1.0))
    ),
    "gaussian": Arm("looped, Gaussian head", WorldConfig(head=Gaussian())),
    "ensemble": Arm("ensemble of 5, Gaussian heads", WorldConfig(head=Gaussian()), members=5),
    "mlp-ensemble": Arm("ensemble of 5 MLP 4x200, Gaussian heads", MLP(head=Gaussian()), members=5),
}


def arm_of(name: str) -> Arm:
    """Return the arm of that name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in ARMS:
        raise ConfigError(f"there is no arm {name!r}; {remedy(name, ARMS)}")
    return ARMS[name]
