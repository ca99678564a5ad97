"""The verbs of a world model, and the module that speaks them around any dynamics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopwm.core import count
from loopwm.core.depth import Depth
from loopwm.core.depth import Fixed as FixedDepth
from loopwm.core.halt import Fixed, StopRule
from loopwm.core.loop import LoopedCore
from loopwm.data.meta import DatasetMeta
from loopwm.data.normalise import Statistics
from loopwm.errors import ConfigError, DataError
from loopwm.world import rollout
from loopwm.world.arrays import Edge, enter
from loopwm.world.config import Feedback, ModelConfig, WorldConfig
from loopwm.world.dynamics import Advance, Dynamics, Run
from loopwm.world.head import Heads
from loopwm.world.normaliser import Normaliser
from loopwm.world.prediction import Prediction, Trajectory

State = tuple[Tensor, ...]
Halt = Fixed | StopRule
TransitionFn = Callable[[Tensor, Tensor, Tensor], Tensor]


@runtime_checkable
class WorldModelLike(Protocol):
    """Say what planners, imagination, evaluation and comparison need of a model.

    The state is a tuple of tensors with leading axis B that can be indexed by rows.
    """

    def start(self, obs: Any) -> State:
        """Return the state of rows whose first observation is obs [B, O]."""
        ...

    def observe(self, state: State, action: Any, obs: Any) -> State:
        """Take in the action [B, A] and the real observation [B, O] that followed it."""
        ...

    def step(self, state: State, action: Any) -> tuple[State, Prediction]:
        """Imagine one step under the action [B, A]."""
        ...


class WorldModel(nn.Module):
    """Predict what an environment does next, in environment units.

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
        self.discrete = meta.num_actions is not None
        self.frames: int = getattr(config, "frames", 1)
        self.normaliser = Normaliser(statistics, action_width(meta), self.discrete)
        factory = getattr(config, "encoder", None)
        self.encoder = None if factory is None else factory(self.obs_dim, config.width)
        self.dynamics: Dynamics = dynamics  # type: ignore[assignment]
        custom = dict(getattr(config, "heads", {}))
        self.heads = Heads(config.width, self.obs_dim, config.head, custom)
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
    def num_parameters(self) -> int:
        """Return the number of parameters, heads included."""
        return count.parameters(self)

    @property
    def core_parameters(self) -> int:
        """Return the number of parameters of the dynamics alone."""
        return count.parameters(self.dynamics)  # type: ignore[arg-type]

    def start(self, obs: Any) -> State:
        """Return the state of rows whose first observation is `obs`.

        Args:
            obs: Observations [B, O] in environment units; any leading shape is flattened to B.

        Returns:
            A tuple of tensors with leading axis B.

        Raises:
            DataError: If the shape does not fit or a value is not finite.
        """
        Edge.of(obs, "obs", (self.obs_dim,))
        standard = self.normaliser.obs(enter(obs, "obs", 1, self.normaliser.obs_mean))
        rows = standard.shape[0]
        seen = torch.ones(rows, 1, dtype=standard.dtype, device=standard.device)
        # Before the first step there is nothing older to see: the first frame stands in.
        history = standard[:, None].expand(rows, self.frames - 1, self.obs_dim)
        return (standard, seen, history, *self.dynamics.initial(rows))

    def observe(self, state: State, action: Any, obs: Any, *, halt: Halt | None = None) -> State:
        """Take in a real action and the real observation that followed it.

        Args:
            state: State of the rows before the action.
            action: Actions [B, A] in environment units, or indices [B].
            obs: The observations [B, O] that followed.
            halt: Stop rule; by default the typical depth of training.

        Returns:
            The state after the step, in which the model sees `obs`.
        """
        act = self._action(action, state)
        out = self.advance(state, act, self.plan(halt))
        fresh = self.start(obs)
        if fresh[0].shape[0] != state[0].shape[0]:
            raise DataError(
                f"obs has {fresh[0].shape[0]} rows but the state has {state[0].shape[0]}"
            )
        return (fresh[0], fresh[1], self._next_history(state), *out.carry)

    def step(
        self,
        state: State,
        action: Any,
        *,
        halt: Halt | None = None,
        max_iters: int | None = None,
        feedback: Feedback | None = None,
    ) -> tuple[State, Prediction]:
        """Imagine one environment step.

        Args:
            state: State of the rows before the action.
            action: Actions [B, A] in environment units, or indices [B].
            halt: Stop rule; by default the typical depth of training.
            max_iters: Most iterations; by default twice the typical depth under a stop rule.
            feedback: Whether the next step sees the predicted observation or only the latent.

        Returns:
            The state after the step, and the prediction as numpy if the action is numpy.
        """
        edge = Edge.of(action, "action", self._action_axes())
        act = self._action(action, state)
        feedback = self.check_feedback(feedback)
        advance, trajectory, state = rollout.single(
            self, state, act, self.plan(halt, max_iters), feedback
        )
        prediction = Prediction(
            next_obs=trajectory.obs[:, 0],
            reward=trajectory.reward[:, 0],
            terminated=trajectory.terminated[:, 0],
            n_iters=advance.n_iters,
            residual=advance.residual,
            settled=advance.settled,
            std=None if trajectory.std is None else trajectory.std[:, 0],
        )
        return state, prediction.leave(edge)

    def predict(
        self, obs: Any, action: Any, *, halt: Halt | None = None, max_iters: int | None = None
    ) -> Prediction:
        """Predict one step from an observation alone: `start`, then `step`.

        Args:
            obs: Observations [..., O] in environment units, numpy or torch.
            action: Actions [..., A] in environment units, or indices [...].
            halt: Stop rule, for instance `OutputDelta(tol=0.02)`; by default the typical depth.
            max_iters: Most iterations; by default twice the typical depth under a stop rule.

        Returns:
            The prediction, in the kind of array and leading shape of `obs`.

        Raises:
            DataError: If a shape does not fit or a value is not finite.
        """
        edge = Edge.of(obs, "obs", (self.obs_dim,))
        Edge.of(action, "action", self._action_axes())
        like = self.normaliser.obs_mean
        tensor = enter(action, "action", len(self._action_axes()), like)
        _, prediction = self.step(self.start(obs), tensor, halt=halt, max_iters=max_iters)
        return prediction.leave(edge)

    def imagine(  # noqa: PLR0913 - the contract: where from, under what, fed back and decoded how
        self,
        obs: Any = None,
        actions: Any = None,
        *,
        state: State | None = None,
        policy: Callable[[Any], Any] | None = None,
        horizon: int | None = None,
        feedback: Feedback | None = None,
        decode: Literal["all", "last", "reward"] = "all",
        halt: Halt | None = None,
        max_iters: int | None = None,
    ) -> Trajectory:
        """Imagine a trajectory: `start`, then a `step` for every action.

        Args:
            obs: First observations [..., O]; or give `state`.
            actions: Actions [..., H, A], or indices [..., H]; or give `policy` and `horizon`.
            state: A state, for instance one warmed up by `observe`, instead of `obs`.
            policy: Maps imagined observations [B, O] to actions.
            horizon: Number of steps to imagine with `policy`.
            feedback: "observation" feeds each decoded observation back; "latent" goes on from
                the latent state alone and decodes all steps in one batch.
            decode: "all" steps, the "last" only, or "reward" and termination without observations.
            halt: Stop rule; by default the typical depth of training.
            max_iters: Most iterations; by default twice the typical depth under a stop rule.

        Returns:
            The trajectory, in the kind of array and leading shape that came in.

        Raises:
            ConfigError: If the arguments contradict each other.
            DataError: If a shape does not fit or a value is not finite.
        """
        if (obs is None) == (state is None):
            raise ConfigError("imagine needs obs or state, exactly one of them")
        feedback = self.check_feedback(feedback)
        if decode not in ("all", "last", "reward"):
            raise ConfigError(f'decode must be "all", "last" or "reward", got {decode!r}')
        run = self.plan(halt, max_iters)
        if policy is not None:
            if horizon is None or actions is not None:
                raise ConfigError("imagine with policy= needs horizon= and no actions")
            return rollout.with_policy(self, obs, state, policy, horizon, feedback, run)
        tensor, edge = self._actions(obs, actions)
        first = self.start(obs) if state is None else state
        if first[0].shape[0] != tensor.shape[0]:
            raise DataError(
                f"actions have {tensor.shape[0]} rows, the start has {first[0].shape[0]}"
            )
        trajectory, _ = rollout.unroll(self, first, tensor, run, feedback, decode)
        return trajectory.leave(edge)

    def use(
        self, *, reward_fn: TransitionFn | None = None, termination_fn: TransitionFn | None = None
    ) -> "WorldModel":
        """Replace learned heads by the user's own functions.

        Args:
            reward_fn: Maps torch obs, action and next_obs in environment units, each with the same
                leading axes, to rewards.
            termination_fn: The same for the probability of termination, or a bool.

        Returns:
            The model itself.
        """
        self.reward_fn = reward_fn
        self.termination_fn = termination_fn
        return self

    def save(self, path: str | Path) -> None:
        """Write the model to a directory, atomically and with checksums; `lw.load` reads it."""
        from loopwm.world.build import save

        save(self, Path(path))

    def plan(self, halt: Halt | None = None, max_iters: int | None = None) -> Run:
        """Return how far inference refines under a stop rule."""
        if max_iters is not None and max_iters < 1:
            raise ConfigError(f"max_iters must be at least 1, got {max_iters}")
        return Run.of(self.depth, halt, max_iters, lambda h: self.heads.change(h.flatten(1)))

    def advance(self, state: State, action: Float[Tensor, "B A"], run: Run) -> Advance:
        """Run the dynamics for one step on a state and a scaled action."""
        obs, seen, history, *carry = state
        visible = obs.clamp(-self.config.clip, self.config.clip) * seen
        if self.encoder is not None:
            visible = self.encoder(visible) * seen
        parts = [visible, action, 1 - seen]
        if self.frames > 1:
            parts.insert(0, history.clamp(-self.config.clip, self.config.clip).flatten(1))
        return self.dynamics(tuple(carry), torch.cat(parts, dim=1), run)

    def next_state(self, state: State, obs: Tensor, seen: Tensor, carry: State) -> State:
        """Return the state after a step that led to the standardised observation `obs`."""
        return (obs, seen, self._next_history(state), *carry)

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

    def _next_history(self, state: State) -> Tensor:
        if self.frames == 1:
            return state[2]
        return torch.cat([state[2][:, 1:], (state[0] * state[1])[:, None]], dim=1)

    def _action_axes(self) -> tuple[int, ...]:
        return () if self.discrete else (self.normaliser.action_dim,)

    def _action(self, action: Any, state: State) -> Tensor:
        like = self.normaliser.obs_mean
        tensor = enter(action, "action", len(self._action_axes()), like)
        if tensor.shape[0] != state[0].shape[0]:
            raise DataError(
                f"action has {tensor.shape[0]} rows but the state has {state[0].shape[0]}"
            )
        return self.normaliser.action(tensor)

    def _actions(self, obs: Any, actions: Any) -> tuple[Tensor, Edge]:
        """Scale actions [..., H, A] to [B, H, A'] and describe the caller's arrays."""
        if actions is None:
            raise ConfigError("imagine needs actions, or policy= and horizon=")
        axes = self._action_axes()
        shape = tuple(torch.as_tensor(actions).shape)
        if len(shape) < 1 + len(axes) or shape[len(shape) - len(axes) :] != axes:
            raise DataError(f"actions must end in the axes (H, *{axes}), got shape {shape}")
        tensor = enter(actions, "actions", 1 + len(axes), self.normaliser.obs_mean)
        horizon = shape[len(shape) - 1 - len(axes)]
        edge = (
            Edge.of(actions, "actions", (horizon, *axes))
            if obs is None
            else Edge.of(obs, "obs", (self.obs_dim,))
        )
        return self.normaliser.action(tensor), edge


def action_width(meta: DatasetMeta) -> int:
    """Return the width of an encoded action: A, or the number of discrete actions.

    Raises:
        DataError: If the data does not say what its actions are.
    """
    if meta.num_actions is not None:
        return meta.num_actions
    if meta.action_low is None:
        raise DataError("the data does not say its action bounds: set action_low and action_high")
    return len(meta.action_low)
