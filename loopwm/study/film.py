"""A video of an agent at work in its real environment."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from loopwm.data.episode import Episode
from loopwm.data.meta import DatasetMeta
from loopwm.errors import LoopwmError, MissingExtra, require
from loopwm.study.video import ADVICE, BAR, FASTEST, GRAPHICS, backends

# Pictures of a film; of longer episodes, not every step is drawn.
MOST = 300
_PYGAME = (
    "classic control is drawn by pygame, which is not installed, so there is no video: "
    'pip install "gymnasium[classic-control]", then run this again'
)


def film_episode(path: Path, episode: Episode, meta: DatasetMeta, seed: int) -> Path:
    """Film an episode, its return so far above.

    Args:
        path: The mp4 file to write.
        episode: What happened.
        meta: Description of the environment, which must be registered and repeat itself.
        seed: Seed with which it was reset.

    Returns:
        The path.

    Raises:
        MissingExtra: If a package or a graphics library is missing; the message says which.
        LoopwmError: If drawing failed for another reason.
    """
    writer = require("imageio.v2", "viz")
    require("imageio_ffmpeg", "viz")
    every = max(1, -(-len(episode) // MOST))
    frames = _frames(episode, meta, seed, every)
    seconds = (meta.dt or 1 / FASTEST) * every
    path.parent.mkdir(parents=True, exist_ok=True)
    totals = np.concatenate([[0.0], np.cumsum(episode.reward)])[::every]
    rate = max(1, min(FASTEST, round(1 / seconds)))
    with writer.get_writer(path, fps=rate, codec="libx264", macro_block_size=2) as out:
        for index, (frame, total) in enumerate(zip(frames, totals, strict=True)):
            words = f"{meta.env_id}   step {index * every}   return {total:.1f}"
            out.append_data(captioned(frame, words))
    return path


def captioned(frame: UInt8[ndarray, "Y X 3"], words: str) -> UInt8[ndarray, "H W 3"]:
    """Put a picture, made even in its sides, under a bar with words."""
    image, drawing, font = (
        require(f"PIL.{name}", "viz") for name in ("Image", "ImageDraw", "ImageFont")
    )
    height, width = (size - size % 2 for size in frame.shape[:2])
    canvas = image.new("RGB", (width, height + BAR), (255, 255, 255))
    canvas.paste(image.fromarray(frame[:height, :width]), (0, BAR))
    pen = drawing.Draw(canvas)
    pen.text((8, BAR // 2), words, fill=(34, 34, 34), font=font.load_default(size=13), anchor="lm")
    return np.asarray(canvas)


def _frames(
    episode: Episode, meta: DatasetMeta, seed: int, every: int
) -> UInt8[ndarray, "F Y X 3"]:
    complaint = ""
    for library in backends() or [""]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            request = {"meta": meta.to_json(), "seed": seed, "every": every}
            (folder / "request.json").write_text(json.dumps(request))
            np.save(folder / "actions.npy", episode.action)
            chosen = {"MUJOCO_GL": library} if library else {}
            done = subprocess.run(
                [sys.executable, "-m", "loopwm.study.replay", name],
                env={**os.environ, "SDL_VIDEODRIVER": "dummy", **chosen},
                capture_output=True,
                text=True,
            )
            if (folder / "frames.npy").exists():
                return np.load(folder / "frames.npy")
        complaint = (done.stderr.strip().splitlines() or ["no picture was drawn"])[-1]
        if "pygame" in complaint:
            raise MissingExtra(_PYGAME)
        if done.returncode > 0 and not any(sign in done.stderr for sign in GRAPHICS):
            raise LoopwmError(f"drawing failed: {complaint}")
    raise MissingExtra(ADVICE)
