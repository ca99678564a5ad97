"""The arms have the sizes that they are said to have."""

from typing import Any

import numpy as np
import pytest
from torch import nn

import loopwm as lw
from loopwm.core import count
from loopwm.data.meta import DatasetMeta
from loopwm.errors import ConfigError
from loopwm.study.compare.rounds import first_round
from loopwm.study.compare.sizing import make, width_for
from loopwm.study.compare.terms import FAMILIES, Terms, families_of
from loopwm.study.compare.trial import Scene
from loopwm.study.datasets import Split
from tests.study.compare.small import TERMS, linear_world

TRAIN, VALID, TEST = (linear_world(seed) for seed in range(3))
DATA = Split(TRAIN, VALID, VALID, TEST)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_arm_comes_near_the_size_asked_for(name: str):
    for shape in FAMILIES[name].shapes:
        for size in (8_000, 30_000):
            width = width_for(shape, size, TRAIN, name)
            made = count.parameters(make(shape, width, TRAIN))
            neighbours = [
                count.parameters(make(shape, w, TRAIN)) for w in (max(1, width - 1), width + 1)
            ]
            assert abs(np.log(made / size)) <= min(abs(np.log(n / size)) for n in neighbours) + 1e-9
            assert made == pytest.approx(size, rel=0.15)


def test_the_eightfold_arm_has_eight_times_the_parameters_of_the_others():
    scene = Scene(families_of(["looped", "once", "eightfold"]), DATA, TERMS)
    made: dict[str, list[int]] = {}
    for each in first_round(scene):
        model = make(scene.shape(each), each.width, TRAIN)
        made.setdefault(each.arm, []).append(count.parameters(model))
    assert made["once"] == made["looped"]
    # Widths are whole numbers.
    np.testing.assert_allclose(made["eightfold"], 8 * np.array(made["once"]), rtol=0.1)


def test_the_largest_usual_size_of_the_mlp_ensemble_is_that_of_pets():
    # Five networks of four hidden layers of 200 units (arXiv 1805.12114); obs and action of Hopper.
    (shape,) = FAMILIES["mlp-ensemble"].shapes
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(60, 11)), rng.uniform(-1, 1, (60, 3))
    meta = DatasetMeta(action_low=(-1.0,) * 3, action_high=(1.0,) * 3)
    ends = np.ones(60, bool)
    data = lw.RolloutDataset.from_arrays(obs, action, obs[:, 0], ends, next_obs=obs, meta=meta)
    assert FAMILIES["mlp-ensemble"].members == 5
    assert width_for(shape, Terms().sizes[-1], data) == pytest.approx(200, rel=0.06)


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["once", "mlp", "once"], "arms must be different ones"),
        (["mlp-ensemble"], "'mlp-ensemble' has 5 members and nothing to be compared with"),
        ({"mine": nn.Linear(2, 2)}, "'mine' must be a configuration"),
    ],
)
def test_arms_that_would_waste_a_comparison_are_refused(arms: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        families_of(arms)


def test_a_size_that_no_width_has_is_refused():
    with pytest.raises(ConfigError, match="cannot have about 100 parameters"):
        width_for(lw.GRU(), 100, TRAIN, "gru")
