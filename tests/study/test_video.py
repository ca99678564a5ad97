"""Films show the states they were given; without a graphics library there is one line of advice."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopwm.data.collect import collect
from loopwm.data.store import RolloutDataset
from loopwm.errors import EnvironmentUnsupported, LoopwmError, MissingExtra
from loopwm.study import video
from loopwm.study.episode import Episode, imagine_episode
from loopwm.study.frames import positions_of
from loopwm.study.reference import fit_linear

pytest.importorskip("imageio_ffmpeg")


@pytest.fixture(scope="module")
def cheetah() -> RolloutDataset:
    return collect("HalfCheetah-v5", 60, seed=0, progress=False)


@pytest.fixture(scope="module")
def episode(cheetah: RolloutDataset) -> Episode:
    return imagine_episode(fit_linear(cheetah), cheetah, 0, 6)


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(video, "find_library", lambda name: None)


def can_draw() -> bool:
    code = "import mujoco; mujoco.GLContext(32, 32).make_current()"
    for library in video.backends():
        done = subprocess.run(
            [sys.executable, "-c", code], env={"MUJOCO_GL": library}, capture_output=True
        )
        if done.returncode == 0:
            return True
    return False


def decoded(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode a film without imageio, whose reader leaves its pipes open."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, *shape)


def test_positions_are_those_of_the_simulator(cheetah: RolloutDataset) -> None:
    env: Any = cheetah.make_env()
    env.reset(seed=3)
    observations, truth = [], []
    for action in cheetah.action[:20]:
        obs, *_ = env.step(action)
        observations.append(obs)
        truth.append(env.unwrapped.data.qpos.copy())
    (found,) = positions_of(cheetah.meta, np.array(observations)[None])
    np.testing.assert_array_equal(found[:, 1:], np.array(truth)[:, 1:])
    # How far it has run is summed up from speeds, so it is known about as well as Euler's rule.
    run = np.array(truth)[:, 0] - truth[0][0]
    np.testing.assert_allclose(found[:, 0], run, atol=0.2)


def test_positions_of_a_task_that_leaves_none_out_are_those_it_observes() -> None:
    data = collect("InvertedPendulum-v5", 20, seed=0, progress=False)
    env: Any = data.make_env()
    obs, _ = env.reset(seed=3)
    observations, truth = [obs], [env.unwrapped.data.qpos.copy()]
    for action in data.action[:5]:
        observations.append(env.step(action)[0])
        truth.append(env.unwrapped.data.qpos.copy())
    (found,) = positions_of(data.meta, np.array(observations)[None])
    np.testing.assert_array_equal(found, truth)


def test_a_frame_has_both_motions_under_their_captions() -> None:
    real, imagined = (np.full((48, 64, 3), value, np.uint8) for value in (50, 200))
    frame = video.compose(real, imagined, ("left", "right", "0 s"))
    assert frame.shape == (48 + video.BAR, 128, 3)
    assert (frame[video.BAR :, :63] == 50).all()
    assert (frame[video.BAR :, 66:] == 200).all()
    bar = frame[: video.BAR]
    assert (bar < 128).any()
    assert (bar == 255).mean() > 0.5


def test_without_a_graphics_library_there_is_one_line_of_advice(
    tmp_path: Path, no_library: None, cheetah: RolloutDataset, episode: Episode
) -> None:
    with pytest.raises(MissingExtra, match="apt-get install") as caught:
        video.write_video(tmp_path / "film.mp4", episode, cheetah.meta)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "film.mp4").exists()


def test_the_users_choice_of_library_is_the_only_one_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert video.backends() == ["osmesa"]


def test_a_motion_that_cannot_be_told_is_refused(cheetah: RolloutDataset, no_library: None) -> None:
    half = cheetah.keep_obs(range(8))
    with pytest.raises(EnvironmentUnsupported, match="does not hold"):
        video.draw_frames(half.meta, half.obs[None, :2].astype(np.float64), (32, 32))


def test_an_unknown_task_says_so_rather_than_blaming_graphics(
    cheetah: RolloutDataset, no_library: None
) -> None:
    meta = replace(cheetah.meta, env_id="Nowhere-v0")
    with pytest.raises(LoopwmError, match="not a registered environment"):
        video.draw_frames(meta, cheetah.obs[None, :2].astype(np.float64), (32, 32))


@pytest.mark.parametrize("dt", [2.0, 5.0])
def test_frames_that_lie_seconds_apart_follow_each_other_once_a_second(
    tmp_path: Path, cheetah: RolloutDataset, episode: Episode, monkeypatch: Any, dt: float
) -> None:
    import imageio_ffmpeg

    def pictures(meta: Any, obs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return np.zeros((*obs.shape[:2], 48, 64, 3), np.uint8)

    monkeypatch.setattr(video, "draw_frames", pictures)
    slow = replace(episode, dt=dt / 2)
    path = video.write_video(tmp_path / "film.mp4", slow, cheetah.meta, size=(64, 48), every=2)
    film = imageio_ffmpeg.read_frames(path)
    assert next(film)["fps"] == 1
    film.close()
    assert len(decoded(path, (48 + video.BAR, 128, 3))) == len(range(0, len(episode.real), 2))


@pytest.mark.slow
def test_a_film_plays_both_motions_in_step(
    tmp_path: Path, cheetah: RolloutDataset, episode: Episode
) -> None:
    if not can_draw():
        pytest.skip("no graphics library can draw here: apt-get install libosmesa6")
    path = tmp_path / "film.mp4"
    video.write_video(path, episode, cheetah.meta, size=(96, 80), every=2)
    frames = decoded(path, (80 + video.BAR, 192, 3))
    assert len(frames) == len(range(0, len(episode.real), 2))
    left, right = frames[0][video.BAR :, :95], frames[0][video.BAR :, 97:]
    assert left.std() > 5
    # The first frame is the real observation on both sides; compression blurs it a little.
    assert np.abs(left[:, :-1].astype(int) - right[:, : left.shape[1] - 1]).mean() < 8
