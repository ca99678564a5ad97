"""Replaying steps of a MuJoCo task in data of its own, the task itself left alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

from loopwm.data.engine import mujoco

_INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)


@dataclass(frozen=True, eq=False)
class Moment:
    """Hold what the simulator says of one state between two of its steps.

    Attributes:
        qvel: Velocities [V].
        pairs: The pairs of geoms in contact.
        contacts: Number of contact points.
        constraint: Norm of the generalised constraint force, in N and N m.
        actuation: Generalised actuator force [V], in N and N m.
        energy: Kinetic and potential energy in J.
        iterations: Iterations of the constraint solver, over all islands.
    """

    qvel: np.ndarray
    pairs: frozenset[tuple[int, ...]]
    contacts: int
    constraint: float
    actuation: np.ndarray
    energy: float
    iterations: int


class Shadow:
    """Replay steps of a task, as they were or otherwise.

    A step is replayed from what the simulator needs to repeat it bit for bit: the state with
    controls, applied forces and the solver's warm start (mjSTATE_INTEGRATION).

    Args:
        task: The task; it is only read, but for the switches that `replay` turns off and on again.
    """

    def __init__(self, task: MujocoEnv) -> None:
        self._task = task
        self._data = mujoco.MjData(task.model)

    def save(self) -> np.ndarray:
        """Return where the task is now [S]."""
        return self._state(self._task.data)

    def warned(self) -> bool:
        """Tell whether the simulator has warned since the reset.

        It does so when a state explodes or a control is not finite, and then goes on from a state
        or with a control of its own making.
        """
        return bool(self._task.data.warning.number.any())

    def matches(self) -> bool:
        """Tell whether the latest replay has ended exactly where the task is now."""
        return np.array_equal(self._state(self._data), self.save(), equal_nan=True)

    def moments(self, start: np.ndarray) -> Iterator[Moment]:
        """Replay the latest step of the task, and look at every state on the way.

        Args:
            start: Where the task was before the step.

        Yields:
            The state before each of the `frame_skip` simulator steps, and that after the last.
        """
        self._restore(start)
        yield self._look()
        for _ in range(self._task.frame_skip):
            mujoco.mj_step(self._task.model, self._data)
            yield self._look()

    def replay(
        self, start: np.ndarray, nudge: np.ndarray | None = None, without: int = 0
    ) -> np.ndarray:
        """Replay the latest step of the task under other circumstances.

        Args:
            start: Where the task was before the step.
            nudge: Displacement of positions and velocities at the start [2V], or None.
            without: Bits of mjtDisableBit that switch mechanisms off for this replay.

        Returns:
            How far from the task's present state it ends, in positions and velocities [2V].
        """
        options, model = self._task.model.opt, self._task.model
        self._restore(start)
        if nudge is not None:
            mujoco.mj_integratePos(model, self._data.qpos, nudge[: model.nv], 1.0)
            self._data.qvel += nudge[model.nv :]
        flags = options.disableflags
        options.disableflags = flags | without
        try:
            mujoco.mj_step(model, self._data, nstep=self._task.frame_skip)
        finally:
            options.disableflags = flags
        moved = np.empty(model.nv)
        mujoco.mj_differentiatePos(model, moved, 1.0, self._task.data.qpos, self._data.qpos)
        return np.concatenate([moved, self._data.qvel - self._task.data.qvel])

    def _restore(self, start: np.ndarray) -> None:
        mujoco.mj_setState(self._task.model, self._data, start, _INTEGRATION)
        # What the step was made with, whatever wrappers and the task made of the action.
        self._data.ctrl[:] = self._task.data.ctrl

    def _state(self, data: Any) -> np.ndarray:
        state = np.empty(mujoco.mj_stateSize(self._task.model, _INTEGRATION))
        mujoco.mj_getState(self._task.model, data, state, _INTEGRATION)
        return state

    def _look(self) -> Moment:
        """Look at the present state, which this does not change."""
        model, data = self._task.model, self._data
        # A step leaves the derived quantities of its last stage behind, not those of its end.
        mujoco.mj_forward(model, data)
        mujoco.mj_energyPos(model, data)
        mujoco.mj_energyVel(model, data)
        return Moment(
            qvel=data.qvel.copy(),
            pairs=frozenset(map(tuple, data.contact.geom.tolist())),
            contacts=data.ncon,
            constraint=float(np.linalg.norm(data.qfrc_constraint)),
            actuation=data.qfrc_actuator.copy(),
            energy=float(data.energy.sum()),
            iterations=int(data.solver_niter.sum()),
        )
