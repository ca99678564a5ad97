"""What a GPU computes is what the CPU computes; run with `pytest -m gpu` where there is one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.reason.config import TRAINING, Halting
from loopwm.reason.evaluate import exact
from loopwm.reason.fit import fit as teach
from loopwm.reason.fit import on_device
from loopwm.reason.presets import small
from tests.reason.echo import Reversed, held_out

pytestmark = pytest.mark.gpu
LESSON = replace(small(5, 3), puzzles=6)
SETTINGS = lw.FitConfig(updates=60, batch_size=64, validate_every=30, progress=False, device="cuda")
KINDS: dict[str, Any] = {
    "bounded": lw.WorldConfig(),
    "contractive": lw.WorldConfig(cell=lw.Contractive(0.95)),
    "implicit": lw.WorldConfig(cell=lw.Contractive(0.8), grad=lw.grad.Implicit()),
    "gaussian": lw.WorldConfig(head=lw.Gaussian()),
    "untied": lw.Untied(),
    "gru": lw.GRU(),
    "mlp": lw.MLP(),
    "rssm": lw.RSSM(),
}


@pytest.fixture(scope="module", params=list(KINDS.values()), ids=list(KINDS))
def trained(request: pytest.FixtureRequest, pendulum: lw.RolloutDataset) -> Any:
    train, valid = pendulum.split(0.7, seed=0)
    return lw.fit(train, request.param, SETTINGS, valid=valid)


@pytest.fixture(scope="module")
def looped(pendulum: lw.RolloutDataset) -> Any:
    return lw.fit(pendulum, lw.WorldConfig(), SETTINGS)


def on_cpu(model: Any, path: Any) -> Any:
    """Return the same model on the CPU, by way of its file."""
    model.save(path / "model")
    return lw.load(path / "model")


def agree(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def test_imagination_is_that_of_the_cpu(trained: Any, pendulum: lw.RolloutDataset, tmp_path: Any):
    assert next(trained.parameters()).device.type == "cuda"
    assert all(np.isfinite(each["loss"]) for each in trained.history if "loss" in each)
    obs, actions = pendulum.obs[:8], pendulum.action[:40].reshape(8, 5, -1)
    ours = trained.imagine(obs, actions)
    theirs = on_cpu(trained, tmp_path).imagine(obs, actions)
    agree(ours.obs, theirs.obs)
    agree(ours.reward, theirs.reward)


def test_evaluation_is_that_of_the_cpu(looped: Any, pendulum: lw.RolloutDataset, tmp_path: Any):
    ours, theirs = (
        lw.evaluate(each, pendulum, (1, 5)).rmse for each in (looped, on_cpu(looped, tmp_path))
    )
    agree([ours[1], ours[5]], [theirs[1], theirs[5]])


def test_rows_stop_where_they_do_on_the_cpu(
    looped: Any, pendulum: lw.RolloutDataset, tmp_path: Any
):
    """A row whose change is within a rounding of the tolerance may differ: one in a hundred."""
    given = pendulum.obs[:300], pendulum.action[:300]
    halt = {"halt": lw.OutputDelta(0.05), "max_iters": 12}
    ours, theirs = (
        each.predict(*given, **halt).n_iters for each in (looped, on_cpu(looped, tmp_path))
    )
    assert (np.asarray(ours) != np.asarray(theirs)).mean() <= 0.01
    assert len(set(np.asarray(theirs).tolist())) > 1


def test_a_stopped_run_goes_on(tmp_path: Any):
    class Died(Exception):
        pass

    class Killer:
        def write(self, record: Any) -> None:
            if record["update"] >= 30:
                raise Died

        def close(self) -> None:
            pass

    often = replace(
        TRAINING,
        **{"updates": 60, "batch_size": 64, "device": "cuda", "progress": False},
        **{"checkpoint_every": 10, "log_every": 10},
    )
    with pytest.raises(Died):
        teach(Reversed(), LESSON, often, run_dir=tmp_path, sinks=[Killer()])
    again = teach(Reversed(), LESSON, often, run_dir=tmp_path)
    whole = teach(Reversed(), LESSON, often)
    assert again.history[-1]["update"] == 60
    # Sums of a GPU come in any order, so that a run is repeated but for rounding.
    agree(*(each.decode.weight.cpu() for each in (again, whole)))


def test_an_ensemble_imagines_and_disagrees(pendulum: lw.RolloutDataset, tmp_path: Any):
    model = lw.fit(pendulum, lw.WorldConfig(head=lw.Gaussian()), SETTINGS, members=3)
    given = pendulum.obs[:16], pendulum.action[:16]
    ours, theirs = model.predict(*given), on_cpu(model, tmp_path).predict(*given)
    agree(ours.next_obs, theirs.next_obs)
    agree(ours.disagreement, theirs.disagreement)


def test_an_imagined_environment_and_a_planner_run(looped: Any, pendulum: lw.RolloutDataset):
    envs = lw.ImaginationVectorEnv(looped, pendulum, num_envs=16, horizon=5)
    obs, _ = envs.reset(seed=0)
    planner = lw.CEM(looped, action_space=envs.single_action_space, horizon=5, candidates=64)
    action = planner.plan(obs)
    assert np.asarray(action).shape == (16, 1)
    obs, reward, _, _, info = envs.step(np.asarray(action))
    assert np.isfinite(obs).all()
    assert np.isfinite(reward).all()
    assert len(info["iterations"]) == 16


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_reasoner_learns(precision: Any, compiled: bool, without_shape_checks: None):
    training = replace(
        TRAINING,
        **{"updates": 300, "batch_size": 64, "device": "cuda", "progress": False},
        **{"precision": precision, "compiled": compiled, "validate_every": 100},
    )
    valid = held_out(256)
    model = teach(Reversed(), LESSON, training, halting=Halting(4, rise=0.5), valid=valid)
    asked = on_device(valid, torch.device("cuda"))
    right = exact(model, asked, steps=4)[-1].float().mean()
    assert right > 0.9
    there = exact(model.cpu(), valid, steps=4)[-1].float().mean()
    assert abs(float(there) - float(right)) < 0.05
