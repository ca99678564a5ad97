"""Which model to train and how far to refine, as options of a command line."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from loopwm.core.config import Bounded, Contractive, PostNorm
from loopwm.core.depth import Fixed, Poisson
from loopwm.core.halt import Fixed as FixedHalt
from loopwm.core.halt import OutputDelta
from loopwm.errors import ConfigError
from loopwm.world.config import GRU, MLP, RSSM, Gaussian, Mean, Untied, WorldConfig
from loopwm.world.terms import Objective

if TYPE_CHECKING:
    from loopwm.world.config import ModelConfig

_OWN = "(default: the model's own)"
Integer = Annotated[int | None, arg(metavar="INT", help_behavior_hint=_OWN)]
Number = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint=_OWN)]
ModelName = Literal["looped", "once", "mlp", "untied", "gru", "rssm"]
CellName = Literal["bounded", "contractive", "post-norm"]

# One token has nothing to mix.
_CELLS = {
    "bounded": Bounded(),
    "contractive": Contractive(),
    "post-norm": PostNorm(mixer=None, multiple=8),
}
_CONFIGS: dict[str, type[Any]] = {
    "looped": WorldConfig,
    "once": WorldConfig,
    "mlp": MLP,
    "untied": Untied,
    "gru": GRU,
    "rssm": RSSM,
}
# What --depth sets for each model; a model that is not listed has no depth to set.
_DEPTHS = {"looped": "depth", "mlp": "depth", "untied": "blocks"}


@dataclass(frozen=True)
class ModelChoice:
    """Choose the model and its size; what is left out is the model's own default.

    Args:
        model: The looped model; the same cell applied "once"; a plain "mlp"; an "untied" stack of
            cells; a "gru"; or an "rssm".
        width: Width of the latent state, or of the MLP's layers.
        cell: What the loop repeats: "bounded", the default; "contractive", which proves a rate; or
            "post-norm", the blocks of reasoners.
        depth: Mean iterations in training (looped), hidden layers (mlp) or cells (untied).
        fixed_depth: Train the looped model at exactly --depth iterations, not at random ones.
        head: Predict the mean, or a Gaussian with a spread that is calibrated on held-out data.
        feedback: What imagination feeds back: each decoded observation, or the latent state alone.
        no_carry: Start every environment step afresh, without the latent state of the last.
        frames: Latest observations that the model is shown.
        mask: Probability that a step of training hides the observation, for latent feedback.
    """

    model: ModelName = "looped"
    width: Integer = None
    cell: Annotated[
        CellName | None, arg(metavar="{bounded,contractive,post-norm}", help_behavior_hint=_OWN)
    ] = None
    depth: Integer = None
    fixed_depth: bool = False
    head: Literal["mean", "gaussian"] = "mean"
    feedback: Annotated[
        Literal["observation", "latent"] | None,
        arg(metavar="{observation,latent}", help_behavior_hint=_OWN),
    ] = None
    no_carry: bool = False
    frames: Integer = None
    mask: Number = None

    def config(self) -> "ModelConfig":
        """Return the configuration of the model.

        Raises:
            ConfigError: If an option does not apply to the model, or is out of range.
        """
        kind = _CONFIGS[self.model]
        known = {each.name for each in fields(kind)}
        values = {"head": Gaussian() if self.head == "gaussian" else Mean()} | self._depth()
        given = {"width": self.width, "feedback": self.feedback, "frames": self.frames}
        given["cell"] = None if self.cell is None else _CELLS[self.cell]
        for name, value in (given | {"carry": False if self.no_carry else None}).items():
            if value is not None:
                self._refuse("no-carry" if name == "carry" else name, name in known)
                values[name] = value
        if self.mask is not None:
            values["objective"] = Objective(mask=self.mask)
        return kind(**values)

    def _depth(self) -> dict[str, Any]:
        self._refuse("fixed-depth", self.model == "looped" or not self.fixed_depth)
        if self.model == "once":
            self._refuse("depth", self.depth is None)
            return {"depth": Fixed(1)}
        if self.depth is None:
            return {"depth": Fixed()} if self.fixed_depth else {}
        self._refuse("depth", self.model in _DEPTHS)
        if self.model == "looped":
            return {"depth": Fixed(self.depth) if self.fixed_depth else Poisson(self.depth)}
        return {_DEPTHS[self.model]: self.depth}

    def _refuse(self, option: str, applies: bool) -> None:
        if not applies:
            raise ConfigError(f"--{option} does not apply to --model {self.model}: leave it out")


@dataclass(frozen=True)
class Refinement:
    """Choose how far the loop refines; by default to the typical depth of its training.

    Args:
        iterations: Run exactly this many iterations.
        tol: Stop when the decoded prediction changes by less than this many standard deviations.
    """

    iterations: Integer = None
    tol: Number = None

    def rule(self) -> FixedHalt | OutputDelta | None:
        """Return the stop rule, or None for the model's default.

        Raises:
            ConfigError: If both are given, or one is out of range.
        """
        if self.iterations is not None and self.tol is not None:
            raise ConfigError("--iterations and --tol exclude each other: give one of them")
        if self.tol is not None:
            return OutputDelta(self.tol)
        return None if self.iterations is None else FixedHalt(self.iterations)
