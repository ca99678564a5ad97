"""`loopwm certify` prints what the library proves, for a model and for each of several."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loopwm as lw
from loopwm.cli import main
from loopwm.data.meta import DatasetMeta
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.world.build import build
from loopwm.world.ensemble import Ensemble
from loopwm.world.model import WorldModel


@pytest.fixture(scope="module")
def data() -> RolloutDataset:
    rng = np.random.default_rng(0)
    rows = 300
    obs = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    return RolloutDataset(
        obs=obs[:-1],
        next_obs=obs[1:],
        action=rng.uniform(-1, 1, size=(rows, 2)).astype(np.float32),
        reward=np.zeros(rows, np.float32),
        terminated=np.zeros(rows, bool),
        truncated=np.arange(rows) == rows - 1,
        episode=np.zeros(rows, np.int64),
        info={},
        meta=DatasetMeta(env_id="noise", action_low=(-1.0, -1.0), action_high=(1.0, 1.0)),
    )


def untrained(data: RolloutDataset, config: Any, seed: int = 0) -> WorldModel:
    model = build(config, data.meta, Statistics.of(data), seed)
    return model.requires_grad_(False).eval()


def certify(*words: str | Path) -> None:
    main(["certify", *map(str, words)])


def test_it_prints_the_certificate_of_the_model(data: RolloutDataset, tmp_path: Path, capsys):
    model = untrained(data, lw.WorldConfig(width=8, cell=lw.Contractive(rate=0.9)))
    model.save(tmp_path / "model")
    certify(tmp_path / "model", "--json", tmp_path / "certificate.json")
    shown = capsys.readouterr().out
    assert str(model.certificate()) in shown
    (document,) = json.loads((tmp_path / "certificate.json").read_text())
    expected = asdict(model.certificate())
    assert document == expected | {"assumptions": list(expected["assumptions"])}
    assert document["local_gain"] <= document["rate"] <= 0.9


def test_it_measures_at_the_rows_of_a_dataset(data: RolloutDataset, tmp_path: Path, capsys):
    model = untrained(data, lw.WorldConfig(width=8))
    model.save(tmp_path / "model")
    data.save(tmp_path / "data")
    certify(tmp_path / "model", "--data", tmp_path / "data")
    shown = capsys.readouterr().out
    rows = np.linspace(0, 299, 256).astype(int)
    there = model.certificate(data.obs[rows], data.action[rows])
    assert str(there) in shown
    assert there.state_norm != model.certificate().state_norm
    assert "contraction rate   nothing proven" in shown


def test_each_member_of_an_ensemble_has_its_own(data: RolloutDataset, tmp_path: Path, capsys):
    members = [untrained(data, lw.WorldConfig(width=8), seed) for seed in (0, 1)]
    Ensemble(members).save(tmp_path / "both")
    certify(tmp_path / "both")
    shown = capsys.readouterr().out
    for index, member in enumerate(members):
        assert f"member {index}\n{member.certificate()}" in shown


def test_a_model_without_a_loop_proves_nothing(data: RolloutDataset, tmp_path: Path, capsys):
    untrained(data, lw.MLP(width=8, depth=2)).save(tmp_path / "mlp")
    certify(tmp_path / "mlp")
    assert "no loop: nothing is repeated" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_a_mistake_of_one_line(tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as stop:
        certify(tmp_path / "none")
    assert stop.value.code == 2
    assert "train one: loopwm train" in capsys.readouterr().err
