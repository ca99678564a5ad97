"""Real and imagined motion side by side, as a video."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from ctypes.util import find_library
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from loopwm.data.meta import DatasetMeta
from loopwm.errors import LoopwmError, MissingExtra, require
from loopwm.study.episode import Episode
from loopwm.study.frames import positions_of
from loopwm.study.strip import draw_strip

BAR = 32
FASTEST = 30
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
# What the failures of a missing or unusable graphics library have in common.
GRAPHICS = ("OpenGL", "EGL", "OSMesa", "FatalError", "GLFW", "MUJOCO_GL")
ADVICE = (
    "no graphics library can draw MuJoCo here, so there is no video; on Debian or Ubuntu: "
    "apt-get install libosmesa6, then run this again"
)


def write_video(
    path: Path,
    episode: Episode,
    meta: DatasetMeta,
    *,
    title: str = "",
    size: tuple[int, int] = (320, 240),
    every: int = 1,
    iterations: Int[ndarray, " T"] | None = None,
) -> Path:
    """Film an episode as it was and as it was imagined, iterations drawn below.

    Args:
        path: The mp4 file to write.
        episode: What was imagined and what happened.
        meta: Description of the data that the episode comes from.
        title: What to write above the imagined motion, such as the model's name.
        size: Width and height of each of the two pictures, multiples of 16.
        every: Every how many steps a frame is drawn, at least 1.
        iterations: Iterations of each step, drawn as bars under the motion where they differ; by
            default those of the episode.

    Returns:
        The path.

    Raises:
        EnvironmentUnsupported: If the motion cannot be told from the observation.
        MissingExtra: If a package or a graphics library is missing; the message says which.
    """
    writer = require("imageio.v2", "viz")
    require("imageio_ffmpeg", "viz")
    obs = np.stack([episode.real, episode.imagined])[:, ::every]
    pictures = draw_frames(meta, obs, size)
    dt = (episode.dt or 1.0) * every
    rate = max(1, min(FASTEST, round(1 / dt)))
    captions = _captions(episode, meta, title, every, rate * dt)
    bars = episode.iterations if iterations is None else iterations
    path.parent.mkdir(parents=True, exist_ok=True)
    with writer.get_writer(path, fps=rate, codec="libx264", macro_block_size=16) as out:
        for frame, (real, imagined, words) in enumerate(zip(*pictures, captions, strict=True)):
            picture = compose(real, imagined, words)
            if len(np.unique(bars)) > 1:
                strip = draw_strip(bars, frame * every, picture.shape[1], "iterations")
                picture = np.concatenate([picture, strip])
            out.append_data(picture)
    return path


def draw_frames(
    meta: DatasetMeta, obs: Float[ndarray, "S T O"], size: tuple[int, int]
) -> UInt8[ndarray, "S T Y X 3"]:
    """Draw several motions, trying each graphics library that is installed.

    Args:
        meta: Description of the data that the observations come from.
        obs: Observations of several motions.
        size: Width and height of a picture.

    Raises:
        EnvironmentUnsupported: If the motion cannot be told from the observation.
        MissingExtra: If no library can draw; the message gives the remedy.
        LoopwmError: If drawing failed for another reason.
    """
    # Here, so that what is wrong with the motion is said where nothing could draw it, too.
    positions = positions_of(meta, obs)
    for library in backends():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            request = {"meta": meta.to_json(), "width": size[0], "height": size[1]}
            (folder / "request.json").write_text(json.dumps(request))
            np.save(folder / "positions.npy", positions)
            done = subprocess.run(
                [sys.executable, "-m", "loopwm.study.frames", name],
                env={**os.environ, "MUJOCO_GL": library},
                capture_output=True,
                text=True,
            )
            if (folder / "frames.npy").exists():
                return np.load(folder / "frames.npy")
        if done.returncode > 0 and not any(sign in done.stderr for sign in GRAPHICS):
            raise LoopwmError(f"drawing failed: {done.stderr.strip().splitlines()[-1]}")
    raise MissingExtra(ADVICE)


def backends() -> list[str]:
    """List the values of MUJOCO_GL worth trying: the user's choice, else what is installed."""
    chosen = os.environ.get("MUJOCO_GL")
    if chosen:
        return [chosen]
    return [name for name, library in _LIBRARIES.items() if find_library(library)]


def compose(
    real: UInt8[ndarray, "Y X 3"], imagined: UInt8[ndarray, "Y X 3"], words: Sequence[str]
) -> UInt8[ndarray, "H W 3"]:
    """Set two pictures side by side under a bar with a caption for each.

    Args:
        real: Left picture.
        imagined: Right picture.
        words: Caption of the left, of the right, and a note at the right end.
    """
    image, drawing, font = (
        require(f"PIL.{name}", "viz") for name in ("Image", "ImageDraw", "ImageFont")
    )
    height, width = real.shape[:2]
    canvas = image.new("RGB", (2 * width, height + BAR), (255, 255, 255))
    canvas.paste(image.fromarray(real), (0, BAR))
    canvas.paste(image.fromarray(imagined), (width, BAR))
    pen, letters = drawing.Draw(canvas), font.load_default(size=13)
    for text, x, anchor in zip(
        words, (8, width + 8, 2 * width - 8), ("lm", "lm", "rm"), strict=True
    ):
        pen.text((x, BAR // 2), text, fill=(34, 34, 34), font=letters, anchor=anchor)
    pen.line([(width, 0), (width, height + BAR)], fill=(255, 255, 255), width=2)
    return np.asarray(canvas)


def _captions(
    episode: Episode, meta: DatasetMeta, title: str, every: int, speed: float
) -> list[tuple[str, str, str]]:
    shown = f", {speed:.2g}x speed" if episode.dt else ""
    captions = []
    for step in range(0, len(episode.real), every):
        seen = step < episode.context
        right = f"{title or 'imagined'} (real so far)" if seen else title or "imagined"
        clock = f"{episode.time[step]:.2f} s{shown}" if episode.dt else f"step {step}"
        captions.append((f"{meta.env_id}, real", right, clock))
    return captions
