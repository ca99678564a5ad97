"""Draw states of a MuJoCo task; run as a process of its own, so that a graphics crash stays there.

`python -m loopwm.study.frames FOLDER` reads `request.json` and `positions.npy` from the folder and
writes `frames.npy`. MUJOCO_GL must be set before MuJoCo is imported, another reason for a process.
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


def positions_of(meta: DatasetMeta, obs: Float[ndarray, "S T O"]) -> Float[ndarray, "S T Q"]:
    """Recover generalised positions from observations of a MuJoCo task.

    Positions that the task leaves out of the observation, such as how far it has run, are summed up
    from their velocities, beginning at zero.

    Args:
        meta: Description of the data that the observations come from.
        obs: Observations of several motions, each of consecutive steps.

    Raises:
        EnvironmentUnsupported: If the observation does not begin with positions and velocities.
    """
    with quiet_mujoco():
        task: Any = make_env(meta).unwrapped
        motions = []
        for each in obs.astype(np.float64):
            positions, velocities = state_from_obs(task, each)
            skipped = task.observation_structure.get("skipped_qpos", 0)
            travel = np.cumsum(velocities[1:, :skipped], axis=0)
            positions[1:, :skipped] = travel * (meta.dt or task.dt)
            motions.append(positions)
    return np.stack(motions)


def draw(
    meta: DatasetMeta, motions: Float[ndarray, "S T Q"], width: int, height: int
) -> UInt8[ndarray, "S T Y X 3"]:
    """Draw one picture for each position, the camera following the body.

    Args:
        meta: Description of the data that the motions come from.
        motions: Generalised positions of several motions.
        width: Pixels.
        height: Pixels.
    """
    with quiet_mujoco():
        task: Any = make_env(meta).unwrapped
        model, data = task.model, mujoco.MjData(task.model)
        # Without a GPU, smoothing and shadows take most of the time that a picture costs.
        model.vis.quality.offsamples = 0
        renderer = mujoco.Renderer(model, height, width)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = False
        camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
        pictures = []
        for position in motions.reshape(-1, motions.shape[2]):
            data.qpos[:] = np.nan_to_num(position, posinf=0.0, neginf=0.0)
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            pictures.append(renderer.render().copy())
        renderer.close()
    return np.stack(pictures).reshape(*motions.shape[:2], height, width, 3)


def main(folder: Path) -> None:
    """Answer the request in a folder."""
    request = json.loads((folder / "request.json").read_text())
    meta = DatasetMeta.from_json(request["meta"])
    motions = np.load(folder / "positions.npy")
    np.save(folder / "frames.npy", draw(meta, motions, request["width"], request["height"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
