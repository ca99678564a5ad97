"""Draw states of a MuJoCo task; run as a process of its own, so that a graphics crash stays there.

`python -m loopwm.study.frames FOLDER` reads `request.json` and `obs.npy` from the folder and writes
`frames.npy`, or `refusal.txt` saying why not. MUJOCO_GL must be set before MuJoCo is imported,
another reason for a process.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from loopwm.data.engine import mujoco, quiet_mujoco
from loopwm.data.environment import make_env
from loopwm.data.meta import DatasetMeta
from loopwm.data.simulator import state_from_obs
from loopwm.errors import LoopwmError


def positions_of(task: Any, obs: Float[ndarray, "T O"], dt: float) -> Float[ndarray, "T Q"]:
    """Recover generalised positions from observations of a MuJoCo task.

    Positions that the task leaves out of the observation, such as how far it has run, are summed up
    from their velocities, beginning at zero.

    Args:
        task: The unwrapped environment.
        obs: Observations of consecutive steps.
        dt: Seconds per step.

    Raises:
        EnvironmentUnsupported: If the observation does not begin with positions and velocities.
    """
    positions, velocities = state_from_obs(task, obs)
    skipped = task.observation_structure["skipped_qpos"]
    positions[1:, :skipped] = np.cumsum(velocities[1:, :skipped], axis=0) * dt
    return positions


def draw(
    meta: DatasetMeta, obs: Float[ndarray, "T O"], width: int, height: int
) -> UInt8[ndarray, "T Y X 3"]:
    """Draw one picture for each observation, the camera following the body.

    Args:
        meta: Description of the data that the observations come from.
        obs: Observations of consecutive steps.
        width: Pixels.
        height: Pixels.
    """
    with quiet_mujoco():
        task: Any = make_env(meta).unwrapped
        positions = positions_of(task, obs.astype(np.float64), meta.dt or task.dt)
        model, data = task.model, mujoco.MjData(task.model)
        # Without a GPU, smoothing and shadows take most of the time that a picture costs.
        model.vis.quality.offsamples = 0
        renderer = mujoco.Renderer(model, height, width)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = False
        camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
        pictures = []
        for position in positions:
            data.qpos[:] = np.nan_to_num(position, posinf=0.0, neginf=0.0)
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            pictures.append(renderer.render().copy())
        renderer.close()
    return np.stack(pictures)


def main(folder: Path) -> None:
    """Answer the request in a folder."""
    request = json.loads((folder / "request.json").read_text())
    meta = DatasetMeta.from_json(request["meta"])
    obs = np.load(folder / "obs.npy")
    try:
        pictures = [draw(meta, each, request["width"], request["height"]) for each in obs]
    except LoopwmError as error:
        (folder / "refusal.txt").write_text(str(error))
        return
    np.save(folder / "frames.npy", np.stack(pictures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
