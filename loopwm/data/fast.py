"""Open-loop episodes of Gymnasium's MuJoCo tasks without stepping Gymnasium.

When all actions are known, `mujoco.rollout` runs a stretch of an episode in one call. The physics
is the same, bit for bit; observation, reward and termination are then computed for all steps at
once by the task's own formulas, in its own order of operations. Tasks whose formulas read fields
that the simulator leaves behind from within its last step (contact forces, body positions) cannot
be computed from the states, and are not here.
"""

from collections.abc import Iterator
from itertools import count as counter
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from mujoco.rollout import Rollout

from loopwm.data.engine import mujoco
from loopwm.data.episode import Episode, Task
from loopwm.data.excitation import OpenLoop
from loopwm.data.formulas import FORMULAS, Motion
from loopwm.data.guard import ACTION, DIVERGED, OBSERVATION, REWARD, SPEED_LIMIT
from loopwm.data.policy import Policy
from loopwm.data.unclipped import UnclippedState

FAST_TASKS = ("HalfCheetah-v5", "Hopper-v5", "InvertedPendulum-v5", "Swimmer-v5", "Walker2d-v5")

# Steps of the first stretch of an episode that may end at any time. Every further stretch is as
# long as all before it, so that at most about half of what is simulated is thrown away.
FIRST_STRETCH = 16

_LAYERS = (TimeLimit, OrderEnforcing, PassiveEnvChecker, UnclippedState)
_PHYSICS = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


def can_play_fast(task: Task, env: gym.Env[Any, Any]) -> bool:
    """Tell whether the episodes of a task can be played by `play_fast`.

    Args:
        task: What to play.
        env: The environment that `task.make` returns.
    """
    open_loop = isinstance(task.policy, OpenLoop) and not isinstance(task.policy, Policy)
    layer = env
    while isinstance(layer, gym.Wrapper):
        if type(layer) not in _LAYERS:
            return False
        layer = layer.env
    return open_loop and not task.info_keys and type(layer) in FORMULAS


def play_fast(task: Task, first: int, count: int | None, steps: int) -> Iterator[Episode]:
    """Play episodes of a task in order, equal to `play_stepping` bit for bit.

    Args:
        task: What to play; `can_play_fast` must hold.
        first: Number of the first episode.
        count: Number of episodes, or None for no limit.
        steps: Total steps wanted; the episode in which they are reached is the last one.

    Yields:
        Episodes `first`, `first + 1`, ...; the last one may be cut short at `steps`.
    """
    env = task.make()
    try:
        player = _Player(task, env)
        for number in counter(first) if count is None else range(first, first + count):
            episode = player.play(number, min(steps, task.limit))
            yield episode
            steps -= len(episode)
            if steps <= 0:
                return
    finally:
        env.close()


class Simulation:
    """Run stretches of open-loop physics, from any state.

    Args:
        model: The model; it is only read.
        frame_skip: Simulator steps for each action.
    """

    def __init__(self, model: Any, frame_skip: int) -> None:
        self.model, self.frame_skip = model, frame_skip
        self._data = mujoco.MjData(model)
        self._rollout = Rollout(nthread=0)
        self.warmstart = np.zeros(model.nv)

    def run(
        self, state: np.ndarray, warmstart: np.ndarray, action: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Simulate a sequence of actions.

        Args:
            state: Full physics state to start from (`full_state`).
            warmstart: `qacc_warmstart` in that state, without which the solver starts elsewhere
                and the motion drifts apart within some hundred steps.
            action: Actions [T,A].

        Returns:
            The full physics state after each action [T,S], and the number of actions before the
            first one in which the simulation went wrong (T if none did). The warm start after the
            last action is left in `self.warmstart`.
        """
        control = np.repeat(action.astype(np.float64), self.frame_skip, axis=0)
        states = np.empty((1, len(control), len(state)))
        self._rollout.rollout(
            self.model,
            self._data,
            state[None],
            control[None],
            initial_warmstart=warmstart[None],
            state=states,
        )
        self.warmstart = self._data.qacc_warmstart.copy()
        clock = np.concatenate([state[:1], states[0, :, 0]])
        return states[0, self.frame_skip - 1 :: self.frame_skip], self._sound(clock)

    def _sound(self, clock: np.ndarray) -> int:
        stuck = np.flatnonzero(~(np.diff(clock) > 0))
        if len(stuck) == 0:
            return (len(clock) - 1) // self.frame_skip
        # After a warning the rollout repeats the last state: the step before was the bad one. A
        # clock that runs back is a reset within this very step.
        index = stuck[0] - 1 if clock[stuck[0] + 1] == clock[stuck[0]] else stuck[0]
        return max(0, int(index)) // self.frame_skip


def full_state(model: Any, data: Any) -> np.ndarray:
    """Return time, positions, velocities and activations as one vector [S]."""
    state = np.empty(mujoco.mj_stateSize(model, _PHYSICS))
    mujoco.mj_getState(model, data, state, _PHYSICS)
    return state


class _Player:
    def __init__(self, task: Task, env: gym.Env[Any, Any]) -> None:
        self.task, self.env = task, env
        self.inner: Any = env.unwrapped
        self.formula = FORMULAS[type(self.inner)]
        self.simulation = Simulation(self.inner.model, self.inner.frame_skip)
        self.stretch = FIRST_STRETCH if self.formula.terminates(self.inner) else task.limit

    def play(self, number: int, horizon: int) -> Episode:
        """Play an episode up to its end, or up to `horizon` steps."""
        self.env.reset(seed=self.task.reset_seed(number))
        state = full_state(self.inner.model, self.inner.data)
        warmstart = self.inner.data.qacc_warmstart.copy()
        states, done = [state[None]], 0
        while True:
            upto = min(horizon, max(self.stretch, 2 * done))
            action = self._actions(number, upto)
            stretch, sound = self.simulation.run(states[-1][-1], warmstart, action[done:])
            warmstart = self.simulation.warmstart
            states.append(stretch)
            motion = self._motion(np.concatenate(states), action)
            length, fault = _first_fault(motion, action, done + sound)
            ends = np.flatnonzero(motion.terminated[:length])
            if len(ends):
                return _episode(motion, action, int(ends[0]) + 1, True, None)
            if fault or upto == horizon:
                return _episode(motion, action, length, False, fault)
            done = upto

    def _actions(self, number: int, horizon: int) -> np.ndarray:
        """Draw the actions anew from the start, of which the earlier ones are the beginning."""
        policy = self.task.policy
        assert isinstance(policy, OpenLoop)
        rng = self.task.policy_rng(number)
        action = policy.actions(rng, self.env.action_space, horizon)
        return action.astype(self.env.action_space.dtype, copy=False)

    def _motion(self, states: np.ndarray, action: np.ndarray) -> Motion:
        nq, nv = self.inner.model.nq, self.inner.model.nv
        qpos, qvel = states[:, 1 : 1 + nq], states[:, 1 + nq : 1 + nq + nv]
        return self.formula.motion(self.inner, qpos, qvel, action, self.task.unclipped)


def _first_fault(motion: Motion, action: np.ndarray, sound: int) -> tuple[int, str | None]:
    """Return the number of steps before the first that must not be stored, and why not."""
    total = len(action)
    faults = {
        ACTION: ~np.isfinite(action).all(axis=1),
        DIVERGED: ~((motion.qvel[1:] ** 2).sum(axis=1) <= SPEED_LIMIT**2),
        OBSERVATION: ~np.isfinite(motion.obs[1:]).all(axis=1),
        REWARD: ~np.isfinite(motion.reward),
    }
    faults[DIVERGED] |= np.arange(total) >= sound
    first = {why: int(bad.argmax()) if bad.any() else total for why, bad in faults.items()}
    why = min(first, key=lambda each: first[each])
    return first[why], why if first[why] < total else None


def _episode(
    motion: Motion, action: np.ndarray, length: int, terminated: bool, fault: str | None
) -> Episode:
    return Episode(
        obs=motion.obs[: length + 1],
        action=action[:length],
        reward=motion.reward[:length],
        terminated=terminated,
        truncated=not terminated,
        fault=fault,
    )
