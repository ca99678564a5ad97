"""Labels of a task simple enough for pen and paper: one ball, one way up, one floor, one limit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.spaces import Box

from loopwm_envs import TransitionDifficulty
from loopwm_envs.difficulty import MECHANISMS

MASS, GRAVITY, SKIP = 2.0, 10.0, 5
FLOOR, CEILING = -0.9, 3.0

XML = """
<mujoco>
  <option timestep="{timestep}" integrator="Euler" gravity="0 0 -10"/>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body pos="0 0 1">
      <joint name="height" type="slide" axis="0 0 1" limited="true" range="-9 3"/>
      <geom type="sphere" size=".1" mass="2"/>
    </body>
  </worldbody>
  <actuator><motor joint="height" ctrlrange="-100 100"/></actuator>
</mujoco>
"""


class Lift(MujocoEnv):
    """Lift a ball."""

    def __init__(self, path: str) -> None:
        super().__init__(path, SKIP, Box(-np.inf, np.inf, (2,), np.float64))

    def step(self, action: Any) -> Any:
        self.do_simulation(action, self.frame_skip)
        return self.state_vector(), 0.0, False, False, {}

    def reset_model(self) -> np.ndarray:
        self.set_state(self.init_qpos, self.init_qvel)
        return self.state_vector()


def stepped(
    folder: Path, height: float, speed: float, force: float, timestep: float = 0.002, **options: Any
) -> tuple[dict[str, float], np.ndarray]:
    """Return the labels of a step, and the change of height and speed in it."""
    path = folder / "lift.xml"
    path.write_text(XML.format(timestep=timestep))
    task = Lift(str(path))
    env = TransitionDifficulty(task, without=tuple(MECHANISMS), **options)
    env.reset(seed=0)
    task.set_state(np.array([height]), np.array([speed]))
    obs, *_, info = env.step(np.array([force], np.float32))
    labels = {name.removeprefix("difficulty/"): value for name, value in info.items()}
    return labels, obs - [height, speed]


def rms(acceleration: float, timestep: float = 0.002) -> float:
    """Return the RMS of the change of height and speed by an acceleration from rest."""
    # Euler's method moves on with the new velocity.
    way = acceleration * timestep**2 * SKIP * (SKIP + 1) / 2
    return float(np.hypot(way, acceleration * timestep * SKIP) / np.sqrt(2))


def test_free_flight_has_no_constraints_and_loses_only_what_the_integrator_loses(
    tmp_path: Path,
) -> None:
    labels, _ = stepped(tmp_path, 1.0, 3.0, force=30.0)
    acceleration = 30 / MASS - GRAVITY
    for name in ("contacts", "impulse", "switches", "solver", "without_contact", "without_limit"):
        assert labels[name] == 0
    # Euler's method raises the ball by the new velocity, and its weight does work at the mean one.
    lost = -MASS * GRAVITY * acceleration * 0.002**2 / 2 * SKIP
    assert labels["dissipation"] == pytest.approx(lost, rel=1e-6)
    assert labels["without_gravity"] == pytest.approx(rms(GRAVITY), rel=1e-6)
    assert labels["without_actuation"] == pytest.approx(rms(30 / MASS), rel=1e-6)


@pytest.mark.parametrize(
    ("height", "speed", "mechanism"),
    [(FLOOR + 0.004, -2.0, "contact"), (CEILING - 0.004, 2.0, "limit")],
)
def test_the_impulse_is_what_stops_the_ball_and_takes_its_energy(
    tmp_path: Path, height: float, speed: float, mechanism: str
) -> None:
    labels, (way, change) = stepped(tmp_path, height, speed, force=0.0)
    weight = MASS * GRAVITY * 0.002 * SKIP
    assert labels["impulse"] == pytest.approx(abs(MASS * change + weight), rel=1e-6)
    assert labels["impulse"] > 1
    energy = MASS * ((speed + change) ** 2 - speed**2) / 2 + MASS * GRAVITY * way
    assert labels["dissipation"] == pytest.approx(-energy, rel=1e-6)
    assert labels["dissipation"] > 0
    assert labels["solver"] > 0
    landed = mechanism == "contact"
    assert labels["switches"] == landed
    assert (0 < labels["contacts"] < 1) == landed
    # With the mechanism off, the ball flies on.
    free = -GRAVITY * 0.01, speed * 0.01 - GRAVITY * 0.002**2 * SKIP * (SKIP + 1) / 2
    gap = np.hypot(free[1] - way, free[0] - change) / np.sqrt(2)
    assert labels[f"without_{mechanism}"] == pytest.approx(gap, rel=1e-6)
    assert labels["without_limit" if landed else "without_contact"] == 0
    assert labels["without_actuation"] == 0


def test_the_gain_of_free_flight_is_that_of_its_matrix(tmp_path: Path) -> None:
    # In a step of duration T, [height, speed] -> [height + T speed, speed]: the squares of a
    # random unit vector's image are half the squares of the matrix on average.
    labels, _ = stepped(tmp_path, -0.5, 1.0, force=30.0, timestep=0.1, directions=2000)
    duration = 0.1 * SKIP
    assert labels["gain"] == pytest.approx(np.sqrt((2 + duration**2) / 2), rel=0.02)
    single, _ = stepped(tmp_path, -0.5, 1.0, force=30.0, timestep=0.1, directions=1)
    largest, smallest = np.linalg.svd([[1, duration], [0, 1]])[1]
    assert smallest < single["gain"] < largest
