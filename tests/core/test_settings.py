"""Settings are Python's numbers and objects whatever they were given as, or refused at once."""

import json
import re
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

import loopwm
from loopwm.core.config import MixTokens, PostNorm
from loopwm.errors import ConfigError
from loopwm.world.build import encode

# Arguments that are not what the annotations say are what this is about.
lw: Any = loopwm
post_norm: Any = PostNorm
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def test_numbers_of_numpy_are_what_pythons_are() -> None:
    ours: list[Any] = [
        lw.MLP(width=8, clip=0.5, margin=None),
        lw.WorldConfig(carry=False, depth=lw.depth.Poisson(3, max=5), objective=lw.Objective(0.5)),
        lw.FitConfig(updates=3, seed=0, lr=0.25, clip=None, progress=False),
    ]
    theirs: list[Any] = [
        lw.MLP(width=np.int64(8), clip=np.float32(0.5), margin=None),
        lw.WorldConfig(
            carry=np.False_,
            depth=lw.depth.Poisson(np.int64(3), max=np.uint8(5)),
            objective=lw.Objective(np.float32(0.5)),
        ),
        lw.FitConfig(
            updates=np.int64(3),
            seed=np.int64(0),
            lr=np.float32(0.25),
            clip=None,
            progress=np.False_,
        ),
    ]
    assert theirs == ours
    for one, two in zip(ours[:2], theirs[:2], strict=True):
        assert json.dumps(encode(one)) == json.dumps(encode(two))
    assert json.dumps(asdict(ours[2])) == json.dumps(asdict(theirs[2]))
    rule = lw.Fixed(np.int64(3), first=np.int64(5))
    assert (type(rule.iterations), type(rule.first)) == (int, int)


def test_numbers_in_tuples_are_pythons_too() -> None:
    adamw = lw.AdamW(betas=(np.float32(0.9), 0.95))
    assert [type(each) for each in adamw.betas] == [float, float]
    assert adamw.betas == pytest.approx((0.9, 0.95), rel=1e-6)
    saved = json.loads(json.dumps(lw.FitConfig(optimizer=adamw).fingerprint()))
    assert saved["optimizer"]["betas"] == list(adamw.betas)
    rule = lw.OutputDelta(stages=[np.int64(2), 4], patience=np.int64(1))
    assert rule == lw.OutputDelta(stages=(2, 4))
    assert hash(rule) == hash(lw.OutputDelta(stages=(2, 4)))
    assert [type(each) for each in (*rule.stages, rule.patience)] == [int] * 3


def test_heads_that_are_changed_later_change_no_configuration() -> None:
    heads: dict[str, Any] = {"reward": dict}
    config = lw.WorldConfig(heads=heads)
    heads["nonsense"] = 3
    assert config.heads == {"reward": dict}
    assert config == lw.WorldConfig(heads={"reward": dict})
    assert len({config, lw.WorldConfig(heads={"reward": dict}), lw.WorldConfig()}) == 2


def test_pythons_numbers_stay_as_they_were_written() -> None:
    assert type(lw.WorldConfig(clip=10).clip) is int
    assert type(lw.depth.Poisson(6).mean) is int


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lw.WorldConfig(head=lw.Gaussian), "head is the class Gaussian, not an object"),
        (lambda: lw.MLP(head=lw.Gaussian), "write Gaussian() with parentheses"),
        (lambda: lw.WorldConfig(cell=lw.Contractive), "write Contractive() with parentheses"),
        (lambda: lw.Untied(cell=lw.Contractive), "Untied.cell is the class Contractive"),
        (lambda: lw.WorldConfig(grad=lw.grad.Full), "write Full() with parentheses"),
        (lambda: lw.FitConfig(optimizer=lw.AdamW), "FitConfig.optimizer is the class AdamW"),
        (lambda: lw.WorldConfig(objective=lw.Objective), "write Objective() with parentheses"),
        (lambda: post_norm(MixTokens), "PostNorm.mixer is the class MixTokens"),
        (lambda: lw.FitConfig(optimizer="adamw"), "such as Muon(momentum=0.95"),
        (lambda: lw.WorldConfig(grad="full"), "grad must be of loopwm.core.grad.GradientMode"),
        (lambda: lw.WorldConfig(depth=6), "such as Poisson(mean=6, max=None), got 6"),
        (
            lambda: lw.WorldConfig(depth=lw.Fixed(1)),
            "WorldConfig.depth must be of loopwm.core.depth.Fixed, loopwm.core.depth.Uniform",
        ),
        (lambda: lw.depth.Flow(tau=3), "Flow.tau must be of loopwm.core.depth.Fixed"),
        (lambda: lw.WorldConfig(clip=float("inf")), "WorldConfig.clip=inf is out of range"),
        (lambda: lw.Objective(reward=float("nan")), "Objective.reward=nan is out of range"),
        (lambda: lw.WorldConfig(width=8.0), "WorldConfig.width must be a whole number, got 8.0"),
        (lambda: lw.FitConfig(updates=1e4), "FitConfig.updates must be a whole number, got 10000"),
        (lambda: lw.FitConfig(lr="1e-3"), "FitConfig.lr must be a number, got '1e-3'"),
        (lambda: lw.WorldConfig(carry="no"), "WorldConfig.carry must be True or False, got 'no'"),
        (lambda: lw.Fixed(2.5), "Fixed.iterations must be a whole number, got 2.5"),
        (lambda: lw.OutputDelta(patience=1.5), "OutputDelta.patience must be a whole number"),
        (lambda: lw.Residual(patience=1.5), "Residual.patience must be a whole number, got 1.5"),
        (lambda: lw.Certified(patience=1.5), "Certified.patience must be a whole number, got 1.5"),
        (lambda: lw.OutputDelta(stages=(2.5,)), "stages[0] must be a whole number, got 2.5"),
        (lambda: lw.OutputDelta(stages=4), "OutputDelta.stages must be a tuple of numbers, got 4"),
        (lambda: lw.AdamW(betas=(0.9,)), "AdamW.betas must be a tuple of 2 numbers, got (0.9,)"),
        (lambda: lw.WorldConfig(encoder=5), "encoder must be a function that returns a module"),
        (lambda: lw.WorldConfig(heads={"reward": 3}), "heads['reward'] must be a function that"),
        (lambda: lw.WorldConfig(heads=None), "heads must map names to functions, got None"),
    ],
)
def test_what_would_fail_after_training_or_mean_something_else_is_refused(
    make: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make()
