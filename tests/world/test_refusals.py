"""Bad input is refused where it enters, by name and value, with a remedy."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import loopwm as lw
from loopwm.core.config import Attend, MixTokens, PostNorm
from loopwm.errors import ConfigError, DataError

KINDS = ["looped", "ensemble"]


@pytest.fixture(scope="module", params=KINDS)
def model(request, make, kinds, data) -> Any:
    if request.param == "looped":
        return make(kinds["looped"], data)
    return lw.Ensemble([make(kinds["looped"], data, seed) for seed in (0, 1)])


@pytest.fixture(scope="module")
def good(data) -> tuple[np.ndarray, np.ndarray]:
    return data.obs[:4], data.action[:12].reshape(4, 3, 2)


def spoilt(array: np.ndarray, value: float) -> np.ndarray:
    out = array.copy()
    out.flat[2] = value
    return out


BAD: dict[str, tuple[Any, str]] = {
    "NaN in obs": (
        lambda m, o, a: m.predict(spoilt(o, np.nan), a[:, 0]),
        "obs holds NaN or infinite values",
    ),
    "infinite action": (
        lambda m, o, a: m.predict(o, spoilt(a[:, 0], np.inf)),
        "action holds NaN or infinite values",
    ),
    "NaN in actions": (
        lambda m, o, a: m.imagine(o, spoilt(a, np.nan)),
        "actions holds NaN or infinite values",
    ),
    "NaN in what is observed": (
        lambda m, o, a: m.observe(m.start(o), a[:, 0], spoilt(o, np.nan)),
        "obs holds NaN or infinite values",
    ),
    "a dict for obs": (
        lambda m, o, a: m.predict({"a": o}, a[:, 0]),
        "obs must be an array of numbers, got dict of type object",
    ),
    "None for actions": (
        lambda m, o, a: m.predict(o, None),
        "action must be an array of numbers, got NoneType of type object",
    ),
    "text for actions": (
        lambda m, o, a: m.imagine(o, ["left", "right"]),
        "actions must be an array of numbers, got list of type <U5",
    ),
    "a ragged obs": (
        lambda m, o, a: m.start([[1.0, 2.0, 3.0], [1.0]]),
        "obs must be an array of numbers: ",
    ),
    "numbers that torch has not": (
        lambda m, o, a: m.start(o.astype(np.longdouble)),
        "obs must be an array of numbers, got ndarray of type",
    ),
    "narrow obs": (
        lambda m, o, a: m.predict(o[:, :2], a[:, 0]),
        "obs must end in the axes (3,), got shape (4, 2)",
    ),
    "scalar obs": (
        lambda m, o, a: m.start(np.float64(1)),
        "obs must end in the axes (3,), got shape ()",
    ),
    "narrow action": (
        lambda m, o, a: m.predict(o, a[:, 0, :1]),
        "action must end in the axes (2,), got shape (4, 1)",
    ),
    "narrow action in step": (
        lambda m, o, a: m.step(m.start(o), a[:, 0, :1]),
        "action must end in the axes (2,), got shape (4, 1)",
    ),
    "narrow action in observe": (
        lambda m, o, a: m.observe(m.start(o), a[:, 0, :1], o),
        "action must end in the axes (2,), got shape (4, 1)",
    ),
    "narrow action of a policy": (
        lambda m, o, a: m.imagine(o, policy=lambda obs: a[:, 0, :1], horizon=2),
        "action must end in the axes (2,), got shape (4, 1)",
    ),
    "narrow actions": (
        lambda m, o, a: m.imagine(o, a[..., :1]),
        "actions must have the shape (..., H, 2) with H >= 1, got (4, 3, 1)",
    ),
    "actions without a horizon": (
        lambda m, o, a: m.imagine(o[0], a[0, 0]),
        "actions must have the shape (..., H, 2) with H >= 1, got (2,)",
    ),
    "no actions": (
        lambda m, o, a: m.imagine(o, a[:, :0]),
        "actions must have the shape (..., H, 2) with H >= 1, got (4, 0, 2)",
    ),
    "too few actions": (
        lambda m, o, a: m.predict(o, a[:3, 0]),
        "obs and action must have the same leading axes, got (4,) and (3,)",
    ),
    "too few rows of actions": (
        lambda m, o, a: m.imagine(o, a[:3]),
        "obs and actions must have the same leading axes, got (4,) and (3,)",
    ),
    "too few rows observed": (
        lambda m, o, a: m.observe(m.start(o), a[:, 0], o[:3]),
        "obs has 3 rows but the state has 4",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused_by_name_and_value(model, good, case):
    call, message = BAD[case]
    with pytest.raises(DataError, match=re.escape(message)):
        call(model, *good)


CONTRADICTING: dict[str, tuple[Any, str]] = {
    "neither obs nor state": (
        lambda m, o, a: m.imagine(actions=a),
        "imagine needs obs or state, exactly one of them",
    ),
    "obs and state": (
        lambda m, o, a: m.imagine(o, a, state=m.start(o)),
        "imagine needs obs or state, exactly one of them",
    ),
    "no actions": (
        lambda m, o, a: m.imagine(o),
        "imagine needs actions, or policy= and horizon=",
    ),
    "policy without horizon": (
        lambda m, o, a: m.imagine(o, policy=lambda obs: a[:, 0]),
        "imagine with policy= needs obs and horizon=",
    ),
    "policy and actions": (
        lambda m, o, a: m.imagine(o, a, policy=lambda obs: a[:, 0], horizon=2),
        "imagine with policy= needs obs and horizon=",
    ),
    "horizon of zero": (
        lambda m, o, a: m.imagine(o, policy=lambda obs: a[:, 0], horizon=0),
        "horizon must be at least 1, got 0",
    ),
    "unknown decoding": (
        lambda m, o, a: m.imagine(o, a, decode="first"),
        'decode must be "all", "last" or "reward", got \'first\'',
    ),
    "unknown feedback": (
        lambda m, o, a: m.imagine(o, a, feedback="both"),
        'feedback must be "observation" or "latent", got \'both\'',
    ),
    "no iterations": (
        lambda m, o, a: m.predict(o, a[:, 0], max_iters=0),
        "max_iters must be at least 1, got 0",
    ),
    "a training depth as stop rule": (
        lambda m, o, a: m.predict(o, a[:, 0], halt=lw.depth.Fixed(3)),
        "halt must be a stop rule such as lw.OutputDelta() or lw.Fixed(8), got Fixed",
    ),
    "the class of a stop rule": (
        lambda m, o, a: m.predict(o, a[:, 0], halt=lw.OutputDelta),
        "halt must be a stop rule such as lw.OutputDelta() or lw.Fixed(8), got <class",
    ),
    "half an iteration": (
        lambda m, o, a: m.predict(o, a[:, 0], max_iters=2.5),
        "max_iters must be a whole number, got 2.5",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTING)
@pytest.mark.usefixtures("without_shape_checks")
def test_contradicting_arguments_are_refused_with_a_remedy(model, good, case):
    call, message = CONTRADICTING[case]
    with pytest.raises(ConfigError, match=re.escape(message)):
        call(model, *good)


@pytest.mark.parametrize("kind", ["MLP", "looped, no carry", "untied, no carry"])
def test_models_that_carry_nothing_cannot_go_on_in_the_dark(make, kinds, data, kind):
    model = make(kinds[kind], data)
    with pytest.raises(ConfigError, match='this one does not, use feedback="observation"'):
        model.imagine(data.obs[:1], data.action[None, :3], feedback="latent")


@pytest.mark.parametrize("wrong", [4, -1, 1.5])
def test_an_index_that_is_no_action_is_refused(make, kinds, discrete_data, wrong):
    model = make(kinds["looped"], discrete_data)
    action = np.array([0, 1, wrong])
    with pytest.raises(DataError, match=rf"action must hold integers in 0\.\.3, got {wrong}"):
        model.predict(discrete_data.obs[:3], action)
    with pytest.raises(DataError, match=rf"actions must hold integers in 0\.\.3, got {wrong}"):
        model.imagine(discrete_data.obs[0], torch.as_tensor(action))


@pytest.mark.parametrize(
    ("make_config", "message"),
    [
        (lambda: lw.WorldConfig(width=0), "WorldConfig.width must be above 0, got 0"),
        (lambda: lw.WorldConfig(frames=0), "WorldConfig.frames must be above 0, got 0"),
        (lambda: lw.WorldConfig(clip=0.0), "WorldConfig.clip must be above 0, got 0.0"),
        (lambda: lw.WorldConfig(feedback="obs"), "got 'obs'"),  # pyright: ignore[reportArgumentType]
        (lambda: lw.WorldConfig(feedback="latent", carry=False), "needs carry=True"),
        *(
            (lambda grad=grad: lw.WorldConfig(reinject=False, grad=grad), "lets the input in by")
            for grad in (lw.grad.LastK(2), lw.grad.Phantom(), lw.grad.Implicit())
        ),
        (lambda: lw.WorldConfig(reinject=False, cell=lw.Contractive()), "lets the input in by"),
        (lambda: lw.WorldConfig(heads={"rewards": nn.Linear}), "no head named ['rewards']"),
        (
            lambda: lw.WorldConfig(width=6, cell=PostNorm(Attend(4))),
            "width must be a multiple of the heads, got width=6, heads=4; nearest valid width is 8",
        ),
        (
            lambda: lw.Untied(width=20, cell=PostNorm(Attend(4, theta=1e4))),
            "twice the heads for rotary places, got width=20, heads=4; nearest valid width is 16",
        ),
        (lambda: lw.WorldConfig(cell=PostNorm(MixTokens())), "a world model's state has one token"),
        (lambda: lw.MLP(depth=0), "MLP.depth must be above 0, got 0"),
        (lambda: lw.Untied(blocks=0), "Untied.blocks must be above 0, got 0"),
        (lambda: lw.GRU(width=-1), "GRU.width must be above 0, got -1"),
        (lambda: lw.RSSM(latent=0), "RSSM.latent must be above 0, got 0"),
        (lambda: lw.RSSM(classes=1), "RSSM.classes must be at least 2, or None, got 1"),
        (lambda: lw.RSSM(kl=-1.0), "RSSM.kl must not be negative, got -1.0"),
        (lambda: lw.RSSM(balance=2.0), "RSSM.balance must be a share in [0, 1], got 2.0"),
        (lambda: lw.Gaussian(floor=0), "Gaussian.floor must be above 0, got 0"),
        (lambda: lw.Objective(reward=-1), "Objective.reward must not be negative, got -1"),
        (lambda: lw.Objective(robust=-1), "Objective.robust must not be negative, got -1"),
        (lambda: lw.Objective(robust=1e-9), "Objective.robust must be 0 or at least 1e-6"),
        (lambda: lw.Objective(mask=1.5), "Objective.mask must be a probability, got 1.5"),
        (lambda: lw.Objective(context=0), "Objective.context must be at least 1, got 0"),
        (lambda: lw.Fixed(0), "Fixed.iterations must be at least 1, got 0"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_impossible_settings_are_refused_when_they_are_written(make_config, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_config()
