"""Film an episode by playing its actions again; run as a process of its own (see `study.frames`).

`python -m loopwm.study.replay FOLDER` reads `request.json` and `actions.npy` from the folder and
writes `frames.npy`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8
from numpy import ndarray

from loopwm.data.engine import quiet_mujoco
from loopwm.data.environment import make_env
from loopwm.data.meta import DatasetMeta


def replay(
    meta: DatasetMeta, seed: int, actions: Shaped[ndarray, "T ..."], every: int
) -> UInt8[ndarray, "F Y X 3"]:
    """Play actions from a reset with a seed, and draw what is seen.

    Args:
        meta: Description of the environment.
        seed: Seed of the reset.
        actions: Actions of the episode.
        every: Every how many steps a picture is drawn, at least 1.
    """
    with quiet_mujoco():
        env: Any = make_env(meta, render_mode="rgb_array")
        env.reset(seed=seed)
        frames = [env.render()]
        for step, action in enumerate(actions, 1):
            env.step(action)
            if step % every == 0:
                frames.append(env.render())
        env.close()
    return np.stack(frames).astype(np.uint8)


def main(folder: Path) -> None:
    """Answer the request in a folder."""
    request = json.loads((folder / "request.json").read_text())
    meta = DatasetMeta.from_json(request["meta"])
    actions = np.load(folder / "actions.npy")
    np.save(folder / "frames.npy", replay(meta, request["seed"], actions, request["every"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
