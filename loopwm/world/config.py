"""Configurations of world models: the looped one, its baselines, and their choices. Torch-free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from loopwm.core import depth as depths
from loopwm.core.config import Bounded, CellConfig, Contractive, MixTokens, PostNorm
from loopwm.core.grad import FixedPointMode, Full, GradientMode, LastK
from loopwm.core.settings import settle
from loopwm.errors import ConfigError
from loopwm.world.terms import Objective

if TYPE_CHECKING:
    from torch import nn

Feedback = Literal["observation", "latent"]
ModuleFactory = Callable[[int, int], "nn.Module"]


@dataclass(frozen=True)
class Mean:
    """Predict the mean change of the observation."""


@dataclass(frozen=True)
class Gaussian:
    """Predict the change's mean and a standard deviation per dimension.

    The mean is trained as `Mean` trains it; the spread's own head by the likelihood of the mean's
    error, which reaches nothing else (arXiv 2212.09184); it is scaled on held-out data to match it.

    Args:
        floor: Smallest standard deviation, in those of the one-step change, above 0.
    """

    floor: float = 1e-3

    def __post_init__(self) -> None:
        settle(self)
        if not self.floor > 0:
            raise ConfigError(f"Gaussian.floor must be above 0, got {self.floor}")


Head = Mean | Gaussian


@dataclass(frozen=True)
class WorldConfig:
    """Configure the looped world model.

    Args:
        width: Width D of the latent state, at least 1.
        cell: The refinement that the loop repeats.
        depth: Iterations in training, or a flow in their place; `depth.typical` is what inference
            runs by default.
        head: What is predicted of the observation's change.
        feedback: What `imagine` feeds back by default: each decoded observation, or only the
            latent state.
        carry: Whether the latent state is carried from one environment step to the next; without
            it, every step starts from the learned initial state.
        warm: Whether the loop of a step starts from the carried state; without it, from the learned
            one, and what is carried enters the injection alone.
        reinject: Whether every iteration sees the injection; without it, one refinement before the
            loop takes it in, and the iterations go on from its state alone.
        frames: Number of latest observations that the model is shown, at least 1.
        clip: Inputs are clipped at this many standard deviations, which bounds the injection.
        margin: Imagined observations that are fed back stay within the range of the training data
            and this share of its width beyond, per dimension; None lets them go anywhere.
        objective: Weights of the training loss.
        grad: How gradients flow through the iterations.
        encoder: Replaces the identity on standardised observations: called with (O, D), it
            returns a module from [..., O] to [..., D]; an angle without limit comes as its sine
            and cosine and counts twice.
        heads: Replaces heads by name ("change", "reward", "termination"): called with (D, out), it
            returns a module from [..., D] to [..., out]. That of termination is given the
            next observation, as the encoder is given the last one, in place of the feature.
    """

    width: int = 64
    cell: CellConfig = Bounded()
    depth: depths.Fixed | depths.Uniform | depths.Poisson | depths.Flow = depths.Poisson(6)
    head: Head = Mean()
    feedback: Feedback = "observation"
    carry: bool = True
    warm: bool = True
    reinject: bool = True
    frames: int = 1
    clip: float = 10.0
    margin: float | None = 0.1
    objective: Objective = Objective()
    grad: GradientMode = Full()
    encoder: ModuleFactory | None = None
    heads: Mapping[str, ModuleFactory] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        settle(self)
        _check_factories("WorldConfig", self.encoder, self.heads)
        # A copy: a mapping that changes later would change a configuration that was checked.
        object.__setattr__(self, "heads", dict(self.heads))
        _check_positive("WorldConfig", self, ("width", "frames", "clip"))
        _check_cell("WorldConfig", self.cell, self.width)
        _check_margin("WorldConfig", self.margin)
        _check_feedback(self.feedback)
        unknown = sorted(set(self.heads) - {"change", "reward", "termination"})
        if unknown:
            known = "the heads are change, reward, termination"
            raise ConfigError(f"WorldConfig.heads has no head named {unknown}; {known}")
        cut = isinstance(self.grad, FixedPointMode | LastK)
        if not self.reinject and (cut or isinstance(self.cell, Contractive)):
            raise ConfigError(
                "WorldConfig.reinject=False lets the input in by the start alone, which Phantom, "
                "Implicit and LastK give no gradient and lw.Contractive() forgets: use "
                "lw.grad.Full() or lw.grad.Checkpointed(), and lw.Bounded()"
            )
        if self.feedback == "latent" and not self.carry:
            raise ConfigError('WorldConfig.feedback="latent" needs carry=True, got carry=False')


@dataclass(frozen=True)
class MLP:
    """Configure the unlooped perceptron; the defaults are mbrl-lib's.

    Args:
        width: Width of the hidden layers.
        depth: Number of hidden layers, at least 1.
        frames: Number of latest observations that the model is shown, at least 1.
        head: What is predicted of the observation's change.
        clip: Inputs are clipped at this many standard deviations.
        margin: How far imagination may go beyond the training data; see `WorldConfig`.
        objective: Weights of the training loss.
    """

    width: int = 200
    depth: int = 4
    frames: int = 1
    head: Head = Mean()
    clip: float = 10.0
    margin: float | None = 0.1
    objective: Objective = Objective()

    def __post_init__(self) -> None:
        settle(self)
        _check_positive("MLP", self, ("width", "depth", "frames", "clip"))
        _check_margin("MLP", self.margin)


@dataclass(frozen=True)
class Untied:
    """Configure the unlooped counterpart: a stack of cells, each with weights of its own.

    Args:
        blocks: Number of cells, each applied once.
        width: Width D of the latent state.
        cell: The refinement; every block has its own weights.
        carry: Whether the latent state is carried from one environment step to the next.
        head: What is predicted of the observation's change.
        clip: Inputs are clipped at this many standard deviations.
        margin: How far imagination may go beyond the training data; see `WorldConfig`.
        objective: Weights of the training loss.
    """

    blocks: int = 8
    width: int = 64
    cell: CellConfig = Bounded()
    carry: bool = True
    head: Head = Mean()
    clip: float = 10.0
    margin: float | None = 0.1
    objective: Objective = Objective()

    def __post_init__(self) -> None:
        settle(self)
        _check_positive("Untied", self, ("blocks", "width", "clip"))
        _check_cell("Untied", self.cell, self.width)
        _check_margin("Untied", self.margin)


@dataclass(frozen=True)
class GRU:
    """Configure the gated recurrent baseline: one GRU cell over environment steps.

    Args:
        width: Width D of the recurrent state.
        feedback: What `imagine` feeds back by default.
        head: What is predicted of the observation's change.
        clip: Inputs are clipped at this many standard deviations.
        margin: How far imagination may go beyond the training data; see `WorldConfig`.
        objective: Weights of the training loss.
    """

    width: int = 128
    feedback: Feedback = "observation"
    head: Head = Mean()
    clip: float = 10.0
    margin: float | None = 0.1
    objective: Objective = Objective()

    def __post_init__(self) -> None:
        settle(self)
        _check_positive("GRU", self, ("width", "clip"))
        _check_margin("GRU", self.margin)
        _check_feedback(self.feedback)


@dataclass(frozen=True)
class RSSM:
    """Configure the recurrent state-space model (arXiv 1811.04551, eq. 4; 2010.02193).

    A deterministic path remembers; a stochastic latent is inferred from what is observed and, where
    nothing is, drawn from what the path expects. It is trained as all models are, by the error of
    imagined observations, and by the divergence of both distributions. Training draws the latent;
    inference takes its mean, or its likeliest classes, so that predictions do not vary.

    Args:
        width: Width D of the deterministic state.
        latent: Number of stochastic variables, at least 1.
        classes: Classes of each variable, at least 2; None makes them Gaussian.
        kl: Weight of the divergence of the inferred from the expected latent, in nats.
        free: Divergence that costs nothing, in nats.
        balance: Share of the divergence's gradient that moves the expectation; the rest moves what
            is inferred.
        feedback: What `imagine` feeds back by default.
        head: What is predicted of the observation's change.
        clip: Inputs are clipped at this many standard deviations.
        margin: How far imagination may go beyond the training data; see `WorldConfig`.
        objective: Weights of the training loss.
    """

    width: int = 128
    latent: int = 32
    classes: int | None = None
    kl: float = 0.01
    free: float = 1.0
    balance: float = 0.8
    feedback: Feedback = "observation"
    head: Head = Mean()
    clip: float = 10.0
    margin: float | None = 0.1
    objective: Objective = Objective()

    def __post_init__(self) -> None:
        settle(self)
        _check_positive("RSSM", self, ("width", "latent", "clip"))
        _check_margin("RSSM", self.margin)
        _check_feedback(self.feedback)
        if self.classes is not None and self.classes < 2:
            raise ConfigError(f"RSSM.classes must be at least 2, or None, got {self.classes}")
        for name in ("kl", "free"):
            if getattr(self, name) < 0:
                raise ConfigError(f"RSSM.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"RSSM.balance must be a share in [0, 1], got {self.balance}")


ModelConfig = WorldConfig | MLP | Untied | GRU | RSSM


def _check_positive(owner: str, config: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f"{owner}.{name} must be above 0, got {getattr(config, name)}")


def _check_cell(owner: str, cell: CellConfig, width: int) -> None:
    if not isinstance(cell, PostNorm):
        return
    if isinstance(cell.mixer, MixTokens):
        # Normalised over a single token, a channel keeps nothing but its sign.
        raise ConfigError(
            f"{owner}.cell mixes tokens by MixTokens(), and a world model's state has one token: "
            "use PostNorm(Attend()), or PostNorm(None), which mixes none"
        )
    cell.check_width(width)


def _check_factories(owner: str, encoder: Any, heads: Any) -> None:
    if not isinstance(heads, Mapping):
        raise ConfigError(f"{owner}.heads must map names to functions, got {heads!r}")
    factories = {f"heads[{name!r}]": each for name, each in heads.items()}
    if encoder is not None:
        factories["encoder"] = encoder
    for name, each in factories.items():
        # A module is callable too, but each model, such as a member of an ensemble, makes its own.
        made = hasattr(each, "state_dict") and not isinstance(each, type)
        if made or not callable(each):
            raise ConfigError(
                f"{owner}.{name} must be a function that returns a module, such as lambda d_in, "
                f"d_out: nn.Linear(d_in, d_out), got {each!r}"
            )


def _check_margin(owner: str, margin: float | None) -> None:
    if margin is not None and not 0 <= margin < float("inf"):
        raise ConfigError(f"{owner}.margin must be at least 0, or None, got {margin}")


def _check_feedback(feedback: str) -> None:
    if feedback not in ("observation", "latent"):
        raise ConfigError(f'feedback must be "observation" or "latent", got {feedback!r}')
