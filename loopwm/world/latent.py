"""The parts of a world model, and one step of its state in standardised units."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopwm.core import count
from loopwm.core.contractive import ContractiveCell
from loopwm.core.depth import Depth
from loopwm.core.depth import Fixed as FixedDepth
from loopwm.core.halt import Certified, Fixed, StopRule
from loopwm.core.loop import LoopedCore
from loopwm.core.settings import whole
from loopwm.data.meta import DatasetMeta
from loopwm.data.normalise import Statistics
from loopwm.errors import ConfigError, DataError
from loopwm.world.config import Feedback, ModelConfig, WorldConfig
from loopwm.world.dynamics import Advance, Dynamics, Run
from loopwm.world.head import Heads
from loopwm.world.normaliser import Normaliser
from loopwm.world.protocol import State

Halt = Fixed | StopRule
TransitionFn = Callable[[Tensor, Tensor, Tensor], Tensor]


class LatentModel(nn.Module):
    """Hold the parts of a world model, and advance its latent state by one environment step.

    A state is `(obs, seen, history, *carry)`: the latest observation standardised, whether the
    model may look at it, the frames before it, and what the dynamics carries.

    Args:
        config: The configuration that the model was built from.
        meta: Description of the training data: environment, spaces, time step.
        statistics: Statistics of the training data.
        dynamics: Turns inputs and the carried state into features.
    """

    def __init__(
        self, config: ModelConfig, meta: DatasetMeta, statistics: Statistics, dynamics: nn.Module
    ) -> None:
        super().__init__()
        self.config = config
        self.meta = meta
        self.stats = statistics
        self.obs_dim = len(statistics.obs_mean)
        self.shown_dim = self.obs_dim + len(meta.angles)
        self.discrete = meta.num_actions is not None
        self.frames: int = getattr(config, "frames", 1)
        # Apart from the configuration, so that a study can measure a model held and free.
        self.margin: float | None = config.margin
        self.normaliser = Normaliser(statistics, action_width(meta), self.discrete, meta.angles)
        factory = getattr(config, "encoder", None)
        self.encoder = None if factory is None else factory(self.shown_dim, config.width)
        self.dynamics: Dynamics = dynamics  # type: ignore[assignment]
        custom = dict(getattr(config, "heads", {}))
        self.heads = Heads(config.width, self.obs_dim, self.shown_dim, config.head, custom)
        self.reward_fn: TransitionFn | None = None
        self.termination_fn: TransitionFn | None = None
        self.history: list[dict[str, Any]] = []

    @property
    def core(self) -> LoopedCore:
        """Return the looped core.

        Raises:
            ConfigError: If the model is a baseline, which has none.
        """
        core = getattr(self.dynamics, "core", None)
        if core is None:
            raise ConfigError(
                f"a {type(self.config).__name__} model has no looped core; "
                "train one with lw.fit(data, lw.WorldConfig(...))"
            )
        return core

    @property
    def depth(self) -> Depth:
        """Return the training depth; its `typical` value is what inference runs by default."""
        return self.config.depth if isinstance(self.config, WorldConfig) else FixedDepth(1)

    @property
    def feedback(self) -> Feedback:
        """Return what is fed back in imagination by default."""
        return getattr(self.config, "feedback", "observation")

    @property
    def action_axes(self) -> tuple[int, ...]:
        """Return the trailing axes of an action: (A,), or () for indices."""
        return () if self.discrete else (self.normaliser.action_dim,)

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters, heads included."""
        return count.parameters(self)

    @property
    def core_parameters(self) -> int:
        """Return the number of parameters of the dynamics alone."""
        return count.parameters(self.dynamics)  # type: ignore[arg-type]

    def first_state(self, obs: Float[Tensor, "B O"]) -> State:
        """Return the state of rows whose first standardised observation is `obs`."""
        rows = obs.shape[0]
        # Before the first step there is nothing older to see: the first frame stands in.
        history = obs[:, None].expand(rows, self.frames - 1, self.obs_dim)
        return (obs, obs.new_ones(rows, 1), history, *self.dynamics.initial(rows))

    def moved(self, obs: Float[Tensor, "*B O"], feature: Tensor) -> Float[Tensor, "*B O"]:
        """Add the change that a feature decodes to, to standardised observations."""
        change = self.heads.change(feature)
        return obs + change * self.normaliser.change_scale + self.normaliser.change_shift

    def ending(self, obs: Float[Tensor, "*B O"]) -> Float[Tensor, "*B"]:
        """Return the logit of termination of steps that lead to standardised observations."""
        return self.heads.termination(self.normaliser.shown(obs, self.config.clip)).squeeze(-1)

    def held(
        self, obs: Float[Tensor, "*B O"], before: Float[Tensor, "*B O"]
    ) -> Float[Tensor, "*B O"]:
        """Return what is fed back of the standardised observation that a step leads to."""
        return obs if self.margin is None else self.normaliser.within(obs, before, self.margin)

    def plan(self, halt: Halt | None = None, max_iters: int | None = None) -> Run:
        """Return how far inference refines under a stop rule."""
        if max_iters is not None:
            max_iters = whole("max_iters", max_iters)
            if max_iters < 1:
                raise ConfigError(f"max_iters must be at least 1, got {max_iters}")
        # A class has the attributes that the protocol asks for, too.
        if isinstance(halt, type) or not isinstance(halt, Fixed | StopRule | None):
            raise ConfigError(
                f"halt must be a stop rule such as lw.OutputDelta() or lw.Fixed(8), got {halt!r}"
            )
        if isinstance(halt, Certified):
            halt = self._certified(halt)
        return Run.of(self.depth, halt, max_iters, lambda h: self.heads.change(h.flatten(1)))

    def _certified(self, rule: Certified) -> Certified:
        """Give the rule what is proven of this model's loop and of the head that decodes it."""
        cell, head = getattr(getattr(self.dynamics, "core", None), "cell", None), self.heads.change
        if not isinstance(cell, ContractiveCell) or not isinstance(head, nn.Linear):
            raise ConfigError(
                "halt=Certified needs a proven rate: train with cell=lw.Contractive() and the "
                "model's own head for the change, or stop by lw.OutputDelta()"
            )
        dtype = head.weight.dtype
        if torch.finfo(dtype).bits < 32:
            raise ConfigError(
                f"halt=Certified proves nothing in {str(dtype).removeprefix('torch.')}, whose "
                "rounding is larger than most tolerances: compute in float32, or stop by "
                "lw.OutputDelta()"
            )
        self.core.check_solver(rule)
        gain = float(torch.linalg.matrix_norm(head.weight.detach().double(), 2))
        return rule.proven(cell.proven_rate(), gain, self.obs_dim)

    def advance(self, state: State, action: Float[Tensor, "B A"], run: Run) -> Advance:
        """Run the dynamics for one step on a state and a scaled action."""
        return self.dynamics(tuple(state[3:]), self.shown(state, action), run)

    def shown(self, state: State, action: Float[Tensor, "B A"]) -> Float[Tensor, "B X"]:
        """Return what the dynamics sees of a state, and the action."""
        obs, seen, history = state[:3]
        visible = self.normaliser.shown(obs, self.config.clip) * seen
        if self.encoder is not None:
            visible = self.encoder(visible) * seen
        parts = [visible, action, 1 - seen]
        if self.frames > 1:
            parts.insert(0, self.normaliser.shown(history, self.config.clip).flatten(1))
        return torch.cat(parts, dim=1)

    def next_state(self, state: State, obs: Tensor, seen: Tensor, carry: State) -> State:
        """Return the state after a step that led to the standardised observation `obs`."""
        return (obs, seen, self.next_history(state), *carry)

    def check_feedback(self, feedback: Feedback | None) -> Feedback:
        """Return the feedback to use, or raise ConfigError if the model cannot do it."""
        if feedback is None:
            return self.feedback
        if feedback not in ("observation", "latent"):
            raise ConfigError(f'feedback must be "observation" or "latent", got {feedback!r}')
        if feedback == "latent" and not self.dynamics.carries:
            raise ConfigError(
                'feedback="latent" needs a model that carries a latent state; '
                'this one does not, use feedback="observation"'
            )
        return feedback

    def next_history(self, state: State) -> Tensor:
        """Return the older frames after a step: hidden observations count as zero."""
        if self.frames == 1:
            return state[2]
        return torch.cat([state[2][:, 1:], (state[0] * state[1])[:, None]], dim=1)


def action_width(meta: DatasetMeta) -> int:
    """Return the width of an encoded action: A, or the number of discrete actions.

    Raises:
        DataError: If the data does not say what its actions are.
    """
    if meta.num_actions is not None:
        return meta.num_actions
    if meta.action_low is None:
        raise DataError(
            "the data does not say its action bounds: give from_arrays meta=DatasetMeta("
            "action_low=(...), action_high=(...)) of loopwm.data.meta"
        )
    return len(meta.action_low)
