"""Only where the environment ends episodes does a dataset tell where they end."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from loopwm.data.collect import collect
from loopwm.data.ending import can_terminate
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset


def rollouts() -> RolloutDataset:
    return RolloutDataset.from_arrays(
        obs=np.zeros((6, 2)),
        next_obs=np.zeros((6, 2)),
        action=np.zeros((6, 1)),
        reward=np.zeros(6),
        terminated=np.zeros(6, bool),
        truncated=np.array([False, True] * 3),
    )


def test_it_is_known_from_how_the_environment_was_made() -> None:
    ways = ({"terminate_when_unhealthy": True}, {"terminate_when_unhealthy": False})
    variant = np.array([0, 0, 1, 1, 0, 0], np.int8)
    mixed = replace(rollouts(), info={"variant": variant}, meta=DatasetMeta(variants=ways))
    np.testing.assert_array_equal(can_terminate(mixed), variant == 0)
    never = replace(rollouts(), meta=DatasetMeta(env_kwargs={"terminate_when_unhealthy": False}))
    assert not can_terminate(never).any()
    assert can_terminate(rollouts()).all()
    untold = replace(rollouts(), meta=DatasetMeta(variants=ways))
    assert can_terminate(untold).all()


def test_a_column_of_the_dataset_has_the_last_word() -> None:
    able = np.array([True, True, False, False, True, True])
    np.testing.assert_array_equal(
        can_terminate(replace(rollouts(), info={"can_terminate": able})), able
    )


@pytest.mark.parametrize("off", [False, 0])
def test_a_function_that_makes_an_environment_without_ends_is_seen_through(off: Any) -> None:
    made = collect(lambda: gym.make("Hopper-v5", terminate_when_unhealthy=off), 20)
    asked = collect("Hopper-v5", 20, env_kwargs={"terminate_when_unhealthy": off})
    assert not can_terminate(made).any()
    assert not can_terminate(asked).any()
    assert can_terminate(collect(lambda: gym.make("Hopper-v5"), 20)).all()
