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
from loopwm.data.policy import Policy, drawn
from loopwm.data.unclipped import UnclippedState
from loopwm.errors import ConfigError

FAST_TASKS = ("HalfCheetah-v5", "Hopper-v5", "InvertedPendulum-v5", "Swimmer-v5", "Walker2d-v5")

# An episode that may end at any time is simulated in stretches of at most so many steps, or this
# share of all before if that is more; what is simulated beyond the end is thrown away. After the
# first, a stretch goes a share of the way to where unchanged velocities would lead to the end.
STRETCH = 6
STRETCH_SHARE = 0.25
APPROACH = 0.8

_LAYERS = (TimeLimit, OrderEnforcing, PassiveEnvChecker, UnclippedState)
_PHYSICS = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


def can_play_fast(task: Task, env: gym.Env[Any, Any]) -> bool:
    """Tell whether the episodes of a task can be played by `play_fast`.

    Args:
        task: What to play.
        env: The environment that `task.make` returns.
    """
    open_loop = isinstance(task.policy, OpenLoop) and not isinstance(task.policy, Policy)
    return open_loop and not task.info_keys and is_plain(env) and type(env.unwrapped) in FORMULAS


def is_plain(env: gym.Env[Any, Any]) -> bool:
    """Tell whether no wrapper changes what the environment itself does with an action."""
    layer = env
    while isinstance(layer, gym.Wrapper):
        if type(layer) not in _LAYERS:
            return False
        layer = layer.env
    return True


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
        self.frame_skip = frame_skip
        self._data = mujoco.MjData(model)
        self._lists = [model], [self._data]
        self._sensors = model.nsensordata
        self._warnings = self._data.warning.number
        self._rollout = Rollout(nthread=0)

    @property
    def warmstart(self) -> np.ndarray:
        """`qacc_warmstart` after the last action of the latest run [V]; later runs change it."""
        return self._data.qacc_warmstart

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
            first one in which the simulation went wrong (T if none did).
        """
        control = action.astype(np.float64).repeat(self.frame_skip, axis=0)
        states = np.empty((len(control), len(state)))
        # The checks would take as long as a short stretch; all shapes are known to be right.
        self._rollout.rollout(
            *self._lists,
            state[None],
            control[None],
            skip_checks=True,
            nstep=len(control),
            initial_warmstart=warmstart[None],
            state=states[None],
            sensordata=np.empty((1, len(control), self._sensors)),
        )
        steps = self._first_unsound(states[:, 0]) if any(self._warnings.tolist()) else len(action)
        return states[self.frame_skip - 1 :: self.frame_skip], steps

    def _first_unsound(self, clock: np.ndarray) -> int:
        # The rollout stops at a warning and repeats the state after it.
        fresh = int((np.diff(clock) != 0).sum())
        return fresh // self.frame_skip


def full_state(model: Any, data: Any) -> np.ndarray:
    """Return time, positions, velocities and activations as one vector [S]."""
    state = np.empty(mujoco.mj_stateSize(model, _PHYSICS))
    mujoco.mj_getState(model, data, state, _PHYSICS)
    return state


class _Player:
    def __init__(self, task: Task, env: gym.Env[Any, Any]) -> None:
        assert isinstance(task.policy, OpenLoop)
        self.task, self.env, self.policy = task, env, task.policy
        self.inner: Any = env.unwrapped
        self.formula = FORMULAS[type(self.inner)]
        self.simulation = Simulation(self.inner.model, self.inner.frame_skip)
        self.ends = self.formula.terminates(self.inner)
        self.stretch = STRETCH if self.ends else task.limit

    def play(self, number: int, horizon: int) -> Episode:
        """Play an episode up to its end, or up to `horizon` steps."""
        self.inner.reset(seed=self.task.reset_seed(number))
        states = [full_state(self.inner.model, self.inner.data)[None]]
        warmstart = self.inner.data.qacc_warmstart.copy()
        action, done, sound = self._draw(number, horizon, 0), 0, 0
        while done < horizon and sound == done:
            upto = min(horizon, done + self._next_stretch(states[-1][-1:], done))
            if upto > len(action):
                action = self._redraw(number, horizon, upto, action)
            stretch, steps = self.simulation.run(states[-1][-1], warmstart, action[done:upto])
            warmstart = self.simulation.warmstart
            states.append(stretch)
            sound, done = done + steps, upto
            if self.formula.ended(self.inner, *self._coordinates(stretch)).any():
                break
        return self._episode(np.concatenate(states), action[:done], sound)

    def _next_stretch(self, state: np.ndarray, done: int) -> int:
        """Choose how many steps to simulate before looking whether the episode has ended."""
        most = max(self.stretch, int(STRETCH_SHARE * done))
        if not self.ends or not done:
            return most
        qpos, qvel = self._coordinates(state)
        ahead = qpos + self.inner.dt * np.arange(1, most + 1)[:, None] * qvel
        ended = self.formula.ended(self.inner, ahead, qvel.repeat(len(ahead), axis=0))
        return max(1, int(APPROACH * (ended.argmax() + 1))) if ended.any() else most

    def _redraw(self, number: int, horizon: int, steps: int, earlier: np.ndarray) -> np.ndarray:
        """Draw actions anew from the start, of which the earlier ones must be the beginning."""
        action = self._draw(number, horizon, steps)
        if not np.array_equal(action[: len(earlier)], earlier, equal_nan=True):
            raise ConfigError(
                f"{self.policy!r} draws other actions for {len(action)} steps than for "
                f"{len(earlier)}; a shorter horizon must give the beginning of a longer one"
            )
        return action

    def _draw(self, number: int, horizon: int, steps: int) -> np.ndarray:
        count = min(horizon, max(2 * steps, 4 * self.stretch))
        rng = self.task.policy_rng(number)
        action = drawn(self.policy, rng, self.env.action_space, count)
        return action.astype(self.env.action_space.dtype, copy=False)

    def _coordinates(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nq, nv = self.inner.model.nq, self.inner.model.nv
        return states[:, 1 : 1 + nq], states[:, 1 + nq : 1 + nq + nv]

    def _episode(self, states: np.ndarray, action: np.ndarray, sound: int) -> Episode:
        motion = self.formula.motion(
            self.inner, *self._coordinates(states), action, self.task.unclipped
        )
        length, fault = _first_fault(motion, action, sound)
        terminated = bool(motion.terminated[:length].any())
        if terminated:
            length, fault = int(motion.terminated.argmax()) + 1, None
        return Episode(
            obs=motion.obs[: length + 1],
            action=action[:length],
            reward=motion.reward[:length],
            terminated=terminated,
            truncated=not terminated or length == self.task.limit,
            fault=fault,
        )


def _first_fault(motion: Motion, action: np.ndarray, sound: int) -> tuple[int, str | None]:
    """Return the number of steps before the first that must not be stored, and why not."""
    total = len(action)
    if sound == total and _all_fine(motion, action):
        return total, None
    speed = np.einsum("tv,tv->t", motion.qvel, motion.qvel)
    fine = {
        ACTION: np.isfinite(action).all(axis=1),
        DIVERGED: (speed[1:] <= SPEED_LIMIT**2) & (np.arange(total) < sound),
        OBSERVATION: np.isfinite(motion.obs[1:]).all(axis=1),
        REWARD: np.isfinite(motion.reward),
    }
    bad = ~np.logical_and.reduce(list(fine.values()))
    if not bad.any():
        return total, None
    first = int(bad.argmax())
    return first, next(why for why, each in fine.items() if not each[first])


def _all_fine(motion: Motion, action: np.ndarray) -> bool:
    """Tell at little cost that nothing is wrong; False says only that a closer look is needed."""
    fastest = np.abs(motion.qvel).max()
    total = motion.obs.sum() + motion.reward.sum() + action.sum()
    return bool(fastest * motion.qvel.shape[1] <= SPEED_LIMIT and np.isfinite(total))
