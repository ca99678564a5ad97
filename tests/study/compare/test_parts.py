"""Data that a comparison cannot use is refused before anything is trained."""

from dataclasses import replace

import numpy as np
import pytest

from loopwm.errors import DataError
from loopwm.study.compare.parts import split_of
from tests.study.compare.small import TERMS, linear_world

TRAIN, VALID, TEST = (linear_world(seed) for seed in range(3))


def test_parts_of_different_episodes_are_taken_as_they_are():
    split = split_of(TRAIN, TEST, VALID, None, TERMS)
    assert (split.train, split.valid, split.test) == (TRAIN, VALID, TEST)
    held = split_of(TRAIN, TEST, None, None, TERMS)
    assert len(held.train) + len(held.valid) == len(TRAIN)


@pytest.mark.parametrize("name", ["test", "valid", "shifted"])
def test_experience_that_is_trained_on_is_no_test(name: str):
    parts = {"test": TEST, "valid": VALID, "shifted": None, name: TRAIN}
    with pytest.raises(DataError, match=f"{name} holds 8 episodes that train holds too"):
        split_of(TRAIN, parts["test"], parts["valid"], parts["shifted"], TERMS)


def test_one_shared_episode_is_enough():
    shared = TEST.extend(TRAIN.select_episodes([0]))
    with pytest.raises(DataError, match="test holds 1 episodes"):
        split_of(TRAIN, shared, VALID, None, TERMS)


def test_horizons_that_no_episode_has_are_refused():
    with pytest.raises(DataError, match="no episode of valid has the 21 steps"):
        split_of(TRAIN, TEST, VALID, None, replace(TERMS, horizons=(1, 21)))
    with pytest.raises(DataError, match="no episode of valid has the 21 steps"):
        split_of(TRAIN, TEST, VALID, None, replace(TERMS, horizons=(19,), context=3))


def test_actions_of_another_kind_are_refused():
    two = replace(
        TEST,
        action=np.repeat(TEST.action, 2, axis=1),
        meta=replace(TEST.meta, action_low=(-1.0, -1.0), action_high=(1.0, 1.0)),
    )
    with pytest.raises(DataError, match="actions of train have the shape"):
        split_of(TRAIN, two, VALID, None, TERMS)
