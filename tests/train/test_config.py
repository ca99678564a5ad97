"""Settings are checked where they are made, and schedules follow their closed forms."""

import json
import math
import subprocess
import sys

import pytest

from loopwm.errors import ConfigError
from loopwm.train.config import AdamW, FitConfig, Muon


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    config = FitConfig(updates=200, lr=0.3, warmup=0.1, final_lr=0.05)
    rise = [0.3 * (u + 1) / 20 for u in range(20)]
    fall = [0.3 * (0.525 + 0.475 * math.cos(math.pi * (u - 20) / 179)) for u in range(20, 200)]
    assert [config.lr_at(u) for u in range(200)] == pytest.approx(rise + fall, rel=1e-12)
    assert config.lr_at(199) == pytest.approx(0.3 * 0.05)


@pytest.mark.parametrize("updates", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_the_learning_rate_of_the_shortest_runs_is_positive_and_at_most_the_peak(
    updates: int, warmup: float
):
    config = FitConfig(updates=updates, warmup=warmup)
    assert all(0 < config.lr_at(u) <= config.lr for u in range(updates))


def test_the_horizon_grows_from_one_to_its_full_length_in_equal_stages():
    config = FitConfig(updates=60, horizon=4, horizon_warmup=0.5)
    assert [config.horizon_at(u) for u in range(60)] == [1] * 10 + [2] * 10 + [3] * 10 + [4] * 30
    assert FitConfig(horizon=4, horizon_warmup=0.0).horizon_at(0) == 4
    assert FitConfig(horizon=1).horizon_at(0) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("updates", 0),
        ("batch_size", -1),
        ("horizon", 0),
        ("validate_every", 0),
        ("checkpoint_every", 0),
        ("log_every", 0),
        ("lr", 0.0),
        ("lr", math.inf),
        ("lr", math.nan),
        ("horizon_warmup", 1.5),
        ("warmup", -0.1),
        ("final_lr", math.nan),
        ("weight_decay", -1.0),
        ("clip", 0.0),
        ("ema", 1.0),
        ("seed", -1),
        ("threads", 0),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(name: str, value: float):
    with pytest.raises(ConfigError, match=f"{name}={value!r} is out of range: it must be"):
        FitConfig(**{name: value})  # pyright: ignore[reportArgumentType]


def test_an_optimiser_setting_out_of_range_is_named_with_its_value():
    with pytest.raises(ConfigError, match=r"betas=\(0\.9, 1\.0\)"):
        AdamW(betas=(0.9, 1.0))
    with pytest.raises(ConfigError, match=r"eps=0\.0"):
        AdamW(eps=0.0)
    with pytest.raises(ConfigError, match=r"momentum=1\.0"):
        Muon(momentum=1.0)


def test_the_fingerprint_is_json_and_tells_optimisers_apart():
    adamw = FitConfig(optimizer=AdamW()).fingerprint()
    muon = FitConfig().fingerprint()
    assert adamw["optimizer"] != muon["optimizer"]
    assert json.loads(json.dumps(muon))["optimizer"]["name"] == "Muon"


def test_the_fingerprint_leaves_out_what_does_not_touch_the_mathematics():
    assert FitConfig(threads=1, progress=True).fingerprint() == FitConfig().fingerprint()
    assert FitConfig(seed=1).fingerprint() != FitConfig().fingerprint()


def test_configuring_does_not_import_torch():
    code = "import sys, loopwm.train.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
