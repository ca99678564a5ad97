"""World models whose loop is differentiated at rest, or runs in continuous time."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import loopwm as lw
from loopwm.errors import CheckpointError, ConfigError, StoreError

pytestmark = pytest.mark.usefixtures("without_shape_checks")

CONTRACTIVE = lw.WorldConfig(
    width=8, cell=lw.Contractive(rate=0.7), depth=lw.depth.Poisson(4, max=6)
)
EULER = lw.depth.Flow(tau=lw.depth.Poisson(4, max=6), method="euler", step=1.0)
MODES = {
    "implicit": replace(CONTRACTIVE, grad=lw.grad.Implicit()),
    "phantom": replace(CONTRACTIVE, grad=lw.grad.Phantom(2, damping=0.8)),
    "implicit, no carry": replace(CONTRACTIVE, grad=lw.grad.Implicit(), carry=False),
    "flow": replace(CONTRACTIVE, depth=EULER),
}
FIT = lw.FitConfig(
    updates=60,
    batch_size=32,
    horizon=2,
    lr=1e-2,
    device="cpu",
    threads=1,
    progress=False,
    validate_every=60,
    log_every=1,
)


@pytest.fixture(scope="module", params=MODES)
def fitted(request, data) -> Any:
    return lw.fit(data, MODES[request.param], FIT)


def test_training_lowers_the_loss(fitted):
    losses = [record["loss"] for record in fitted.history if "loss" in record]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_a_trained_model_predicts_without_a_graph_and_comes_back_whole(fitted, data, tmp_path):
    out = fitted.predict(data.obs[:6], data.action[:6])
    assert out.n_iters.tolist() == [fitted.depth.typical] * 6
    assert out.n_iters.dtype == np.int64
    fitted.save(tmp_path / "model")
    again = lw.load(tmp_path / "model")
    assert again.config == fitted.config
    np.testing.assert_array_equal(
        again.predict(data.obs[:6], data.action[:6]).next_obs, out.next_obs
    )


def test_an_adaptive_flow_predicts_as_long_as_asked_and_reports_its_evaluations(data, make):
    model = make(replace(CONTRACTIVE, depth=lw.depth.Flow(rtol=1e-6, atol=1e-6)), data)
    obs, action = data.obs[:6], data.action[:6]
    short, long = (model.predict(obs, action, halt=lw.Fixed(tau)) for tau in (2, 60))
    loop = make(CONTRACTIVE, data).predict(obs, action, halt=lw.Fixed(60))
    # Both have come to rest, at the same place.
    np.testing.assert_allclose(long.next_obs, loop.next_obs, rtol=1e-4, atol=1e-4)
    assert len(set(short.n_iters.tolist())) == 1
    assert short.n_iters[0] > 2
    assert long.n_iters[0] > short.n_iters[0]
    assert (long.residual < short.residual).all()
    assert long.settled.all()


def test_a_stop_rule_cannot_end_a_flow(data, make):
    model = make(replace(CONTRACTIVE, depth=EULER), data)
    with pytest.raises(ConfigError, match=r"a flow has none: use lw\.Fixed"):
        model.predict(data.obs[:2], data.action[:2], halt=lw.OutputDelta())


@dataclass(frozen=True)
class Plain:
    """A mode that the library does not know, and that changes nothing."""

    strength: float = 1.0

    def step(self, iterate: Any, z: Any, remaining: Any) -> Any:
        return iterate(*z)


def test_a_gradient_mode_of_ones_own_trains_and_comes_back_with_its_configuration(data, tmp_path):
    config, quick = replace(CONTRACTIVE, grad=Plain()), replace(FIT, updates=2)
    model = lw.fit(data, config, quick, run_dir=tmp_path / "run")
    model.save(tmp_path / "model")
    with pytest.raises(StoreError, match=r"code of your own \(Plain.*lw\.load\(path, config="):
        lw.load(tmp_path / "model")
    other = replace(CONTRACTIVE, grad=Plain(strength=2.0))
    with pytest.raises(StoreError, match="config= differs"):
        lw.load(tmp_path / "model", config=other)
    with pytest.raises(CheckpointError, match="another run"):
        lw.fit(data, other, quick, run_dir=tmp_path / "run")
    full = lw.fit(data, CONTRACTIVE, quick)
    for each in (model, lw.load(tmp_path / "model", config=config)):
        found, expected = (m.predict(data.obs, data.action).next_obs for m in (each, full))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
