"""The experience of a comparison: policies where they ship, else excitations; longer intervals."""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from loopwm.data.replay import full_window_starts
from loopwm.errors import ConfigError
from loopwm.study.compare.excited import collect_excited
from loopwm.study.compare.places import Place, experience
from loopwm.study.compare.settings import Settings
from loopwm.study.compare.summary import method


def test_a_longer_control_interval_multiplies_the_tasks_own(tmp_path: Path) -> None:
    place = Place("InvertedPendulum-v5", 2, 120, 60, 60, "standard")
    assert not place.standard
    split = experience(place, tmp_path)
    assert split.train.make_env().unwrapped.frame_skip == 4  # pyright: ignore[reportAttributeAccessIssue]
    assert len(split.train) + len(split.held) == 120
    assert split.test.meta.dt == pytest.approx(0.08)
    again = experience(place, tmp_path, pytest.fail)
    np.testing.assert_array_equal(again.test.obs, split.test.obs)


def test_the_ball_chain_is_a_task_though_nothing_has_registered_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "loopwm_envs", raising=False)
    monkeypatch.delitem(gym.registry, "loopwm/BallChain-v0", raising=False)
    split = experience(Place("loopwm/BallChain-v0", 2, 900, 300, 300, "standard"), tmp_path)
    assert split.test.meta.env_kwargs == {"frame_skip": 2}
    assert split.test.obs_dim == 12
    assert "difficulty/depth" in split.test.info


@pytest.mark.parametrize("task", ["Walker2d-v5", "Hopper-v5"])
def test_what_falls_when_excited_has_long_windows_at_long_intervals(
    task: str, tmp_path: Path
) -> None:
    split = experience(Place(task, 4, 600, 360, 360, "standard"), tmp_path)
    assert split.test.meta.parts == ("uniform", "wandering", "sines")
    np.testing.assert_array_equal(np.bincount(split.test.info["part"]), 120)
    assert len(full_window_starts(split.test, 50)) > 0
    # Where falls end no episode, nothing can be learned about ends.
    for part in split.test.meta.parts:
        able = split.test.part(part).info["can_terminate"]
        assert able.mean() == 0.5
    assert not split.test.terminated[~split.test.info["can_terminate"]].any()
    assert split.test.terminated.any()


@pytest.mark.parametrize(("task", "dimensions"), [("Ant-v5", 27), ("Swimmer-v5", 8)])
def test_tasks_without_policies_are_excited_and_the_method_says_so(
    task: str, dimensions: int, tmp_path: Path
) -> None:
    place = Place(task, 1, 90, 60, 60, "standard")
    assert experience(place, tmp_path).test.obs_dim == dimensions
    assert place.name.endswith("_excited")
    said = " ".join(method(Settings(tasks=("Hopper-v5", task), skips=(1, 2))))
    assert (
        f"no policies ship for them: Hopper-v5 at 2 times its interval, {task}, {task} at" in said
    )
    assert "no policies" not in " ".join(method(Settings(tasks=("Hopper-v5",))))


def test_too_few_rows_for_every_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 rows are too few for 6 kinds"):
        collect_excited("Hopper-v5", 5, 0, {})


def test_a_task_without_simulator_steps_has_no_longer_interval(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no frame_skip"):
        experience(Place("Pendulum-v1", 2, 100, 50, 50, "excitation"), tmp_path)
