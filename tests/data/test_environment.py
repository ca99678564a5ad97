"""Environments are made from what a user writes; what cannot be made is said in words."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from loopwm.data.collect import collect
from loopwm.data.environment import make
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError

PACKAGE = """
import gymnasium as gym
import numpy as np

class Crane(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}

gym.register("Crane-v0", Crane, max_episode_steps=7)
"""
LATER = """
import sys
from loopwm.data.store import RolloutDataset
data = RolloutDataset.load(sys.argv[1])
print(data.make_env().spec.id)
"""


def test_an_environment_of_another_package_is_found_again_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "harbour_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    data = collect("harbour_package:Crane-v0", 10)
    gym.registry.pop("Crane-v0")
    assert data.meta.env_id == "harbour_package:Crane-v0"
    data.save(tmp_path / "data")
    assert RolloutDataset.load(tmp_path / "data").meta == data.meta
    found = subprocess.run(
        [sys.executable, "-c", LATER, str(tmp_path / "data")],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["Crane-v0"]


def test_the_version_that_gymnasium_chose_is_recorded():
    with pytest.warns(UserWarning, match="latest versioned environment"):
        data = collect("Pendulum", 10)
    assert data.meta.env_id == "Pendulum-v1"


@pytest.mark.parametrize(
    ("source", "kwargs", "expected"),
    [
        ("Hopper v5", {}, "env='Hopper v5' cannot be made.*give a Gymnasium id such as"),
        ("", {}, "env='' cannot be made"),
        ("no_such_module:Foo-v0", {}, "No module named 'no_such_module'"),
        ("Hopper-v5", {"frame_skip": 0}, r"env_kwargs=\{'frame_skip': 0\}: ZeroDivisionError"),
        ("Hopper-v5", {"heigth": 1}, r"env_kwargs=\{'heigth': 1\}"),
    ],
)
def test_what_cannot_be_made_is_a_mistake_that_says_why(
    source: str, kwargs: dict[str, Any], expected: str
):
    with pytest.raises(ConfigError, match=expected) as raised:
        make(source, kwargs)
    assert raised.value.__cause__ is not None


def test_a_fault_of_an_environment_without_arguments_is_shown_as_it_is():
    def faulty() -> gym.Env[Any, Any]:
        return np.zeros(1)[2]

    with pytest.raises(IndexError):
        make(faulty)
