"""The world model: its verbs, on the user's arrays."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import EllipsisType
from typing import Any, Literal

import torch
from torch import Tensor

from loopwm.core.certificate import Certificate
from loopwm.errors import ConfigError, DataError
from loopwm.world import rollout
from loopwm.world.arrays import Edge, enter
from loopwm.world.config import Feedback
from loopwm.world.latent import Halt, LatentModel, TransitionFn
from loopwm.world.prediction import Prediction, Trajectory
from loopwm.world.proof import certificate
from loopwm.world.protocol import State


class WorldModel(LatentModel):
    """Predict what an environment does next, in environment units.

    Numpy in gives numpy out, torch in gives torch out, in the same floating type and on the same
    device. Build one with `lw.fit`, or read one with `lw.load`.
    """

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
        entered = enter(obs, "obs", 1, self.normaliser.obs_mean)
        return self.first_state(self.normaliser.obs(entered))

    def observe(
        self,
        state: State,
        action: Any,
        obs: Any,
        *,
        halt: Halt | None = None,
        max_iters: int | None = None,
    ) -> State:
        """Take in a real action and the real observation that followed it.

        Args:
            state: State of the rows before the action.
            action: Actions [B, A] in environment units, or indices [B].
            obs: The observations [B, O] that followed.
            halt: Stop rule; by default the typical depth of training.
            max_iters: Most iterations; by default twice the typical depth under a stop rule.

        Returns:
            The state after the step, in which the model sees `obs`.
        """
        act, _ = self._action(action, state)
        out = self.advance(state, act, self.plan(halt, max_iters))
        fresh = self.start(obs)
        check_rows("obs", len(fresh[0]), len(state[0]))
        return (fresh[0], fresh[1], self.next_history(state), *out.carry)

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
            The state after the step, and the prediction in the kind and type of the action; in
            the model's own type if actions are indices.
        """
        act, edge = self._action(action, state)
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
        edge.check_lead("action", Edge.of(action, "action", self.action_axes))
        tensor = self._enter(action, "action", len(self.action_axes))
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
            policy: Maps imagined observations, of the leading shape of obs, to actions.
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
        rollout.check_request(obs, actions, state, policy, horizon, decode)
        feedback = self.check_feedback(feedback)
        if policy is not None:
            options = {"halt": halt, "max_iters": max_iters, "feedback": feedback}
            return rollout.with_policy(self, obs, policy, horizon or 0, options)
        edge = self._edge(Edge.of_actions(actions, self.action_axes))
        if obs is not None:
            given, edge = edge, Edge.of(obs, "obs", (self.obs_dim,))
            edge.check_lead("actions", given)
        first = self.start(obs) if state is None else state
        tensor = self._enter(actions, "actions", 1 + len(self.action_axes))
        check_rows("actions", len(tensor), len(first[0]))
        scaled = self.normaliser.action(tensor)
        trajectory, _ = rollout.unroll(
            self, first, scaled, self.plan(halt, max_iters), feedback, decode
        )
        return trajectory.leave(edge)

    def certificate(self, obs: Any = None, action: Any = None) -> Certificate:
        """Say what is proven of the loop, and measure it beside the proof.

        Args:
            obs: Observations [B, O] in environment units at which the loop is measured, with
                `action`; by default standard normal ones.
            action: Actions [B, A] or indices [B].

        Returns:
            Rate and bound, or None for each that is not proven, with the assumptions.

        Raises:
            ConfigError: If only one of `obs` and `action` is given.
            DataError: If a shape does not fit or a value is not finite.
        """
        if (obs is None) != (action is None):
            raise ConfigError("certificate needs obs and action, or neither")
        if obs is None:
            return certificate(self)
        state = self.start(obs)
        return certificate(self, state[0], self._action(action, state)[0])

    def use(
        self,
        *,
        reward_fn: TransitionFn | EllipsisType | None = ...,
        termination_fn: TransitionFn | EllipsisType | None = ...,
    ) -> "WorldModel":
        """Replace learned heads by the user's own functions; called with neither, go back to them.

        Args:
            reward_fn: Maps torch obs, action and next_obs in environment units, each with the same
                leading axes, to rewards; None for the learned head. What only the other names is
                kept.
            termination_fn: The same for the probability of termination, or a bool.

        Returns:
            The model itself.
        """
        if isinstance(reward_fn, EllipsisType) and isinstance(termination_fn, EllipsisType):
            reward_fn = termination_fn = None
        if not isinstance(reward_fn, EllipsisType):
            self.reward_fn = reward_fn
        if not isinstance(termination_fn, EllipsisType):
            self.termination_fn = termination_fn
        return self

    def save(self, path: str | Path) -> None:
        """Write the model to a directory, atomically and with checksums; `lw.load` reads it."""
        from loopwm.world.build import save

        save(self, Path(path))

    def _action(self, action: Any, state: State) -> tuple[Tensor, Edge]:
        """Check and scale one action per row of a state."""
        edge = self._edge(Edge.of(action, "action", self.action_axes))
        tensor = self._enter(action, "action", len(self.action_axes))
        check_rows("action", len(tensor), len(state[0]))
        return self.normaliser.action(tensor), edge

    def _edge(self, edge: Edge) -> Edge:
        """Give the edge of actions a floating type where indices have none."""
        if not self.discrete:
            return edge
        dtype = self.normaliser.obs_mean.dtype
        # numpy has no bfloat16.
        wide = edge.numpy and dtype == torch.bfloat16
        return replace(edge, dtype=torch.float32 if wide else dtype)

    def _enter(self, action: Any, name: str, axes: int) -> Tensor:
        choices = self.normaliser.action_dim if self.discrete else None
        return enter(action, name, axes, self.normaliser.obs_mean, choices)


def check_rows(name: str, rows: int, expected: int) -> None:
    """Raise DataError if an argument has another number of rows than the state."""
    if rows != expected:
        raise DataError(
            f"{name} has {rows} rows but the state has {expected}; "
            "one row of the state belongs to each"
        )
