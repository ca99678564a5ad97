"""A saved model is the model, bit for bit; anything else on disk is refused by name."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.errors import StoreError
from loopwm.files import read_tree, write_tree
from loopwm.world.build import encode

OWN = "looped, own modules"


@pytest.fixture
def saved(make, kinds, data, tmp_path: Path) -> Path:
    """Save a small model, whose files a test may spoil."""
    make(kinds["looped"], data).float().save(tmp_path / "model")
    return tmp_path / "model"


def rewrite(path: Path, change: Any) -> None:
    """Change the document of a saved model, and write it with checksums that fit."""
    tree = read_tree(path)
    change(tree.documents["model"])
    write_tree(path, tree.arrays, tree.documents)


def assert_same(ours: Any, theirs: Any, data: Any) -> None:
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    actions = data.action[:12].reshape(4, 3, *data.action.shape[1:])
    a, b = ours.imagine(data.obs[:4], actions), theirs.imagine(data.obs[:4], actions)
    for name in ("obs", "reward", "terminated"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


KINDS = [
    *("looped", "looped, no carry", "looped, frames", "looped, renewal", "looped, Gaussian"),
    *("looped, post-norm", "untied, post-norm"),
    *("looped once", "looped, latent", "untied", "MLP, frames", "GRU, Gaussian"),
    *("RSSM, classes", "looped, injected once"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_bit_for_bit(make, kinds, data, tmp_path, kind):
    model = make(kinds[kind], data).float()
    model.history = [{"update": 1, "loss": 0.5}]
    model.heads.spread_scale *= 1.7
    model.save(tmp_path / "model")
    back = lw.load(tmp_path / "model")
    assert isinstance(back, lw.WorldModel)
    assert_same(back, model, data)
    assert back.config == model.config
    assert back.meta == model.meta
    assert back.history == model.history
    np.testing.assert_array_equal(back.stats.obs_mean, model.stats.obs_mean)
    np.testing.assert_array_equal(back.stats.action_low, model.stats.action_low)
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_comes_back_in_the_type_that_it_had(make, kinds, data, tmp_path, dtype):
    members = [make(kinds["looped, Gaussian"], data, seed).to(dtype) for seed in (0, 1)]
    for model in (members[0], lw.Ensemble(members)):
        model.save(tmp_path / type(model).__name__)
        back = lw.load(tmp_path / type(model).__name__)
        for name, value in model.state_dict().items():
            assert back.state_dict()[name].dtype == value.dtype, name
        assert_same(back, model, data)


def test_discrete_models_come_back_bit_for_bit(make, kinds, discrete_data, tmp_path):
    model = make(kinds["looped"], discrete_data).float()
    model.save(str(tmp_path / "model"))
    assert_same(lw.load(str(tmp_path / "model")), model, discrete_data)


def test_ensembles_come_back_bit_for_bit(make, kinds, data, tmp_path):
    members = [make(kinds["looped, Gaussian"], data, seed).float() for seed in (0, 1)]
    lw.Ensemble(members).save(tmp_path / "model")
    back = lw.load(tmp_path / "model")
    assert isinstance(back, lw.Ensemble)
    for ours, theirs in zip(back.members, members, strict=True):
        assert_same(ours, theirs, data)
    obs, action = data.obs[:3], data.action[:3]
    np.testing.assert_array_equal(
        back.predict(obs, action).disagreement,
        lw.Ensemble(members).predict(obs, action).disagreement,
    )


def test_members_of_an_ensemble_keep_each_its_own_statistics(make, kinds, data, unseen, tmp_path):
    other = replace(unseen, obs=3 * unseen.obs, next_obs=3 * unseen.next_obs)
    members = [make(kinds["MLP, frames"], each).float() for each in (data, other)]
    lw.Ensemble(members).save(tmp_path / "model")
    back = lw.load(tmp_path / "model")
    assert isinstance(back, lw.Ensemble)
    for ours, theirs in zip(back.members, members, strict=True):
        assert_same(ours, theirs, data)
        assert torch.equal(ours.normaliser.obs_high, theirs.normaliser.obs_high)
        np.testing.assert_array_equal(ours.stats.obs_high, theirs.stats.obs_high)


def test_ensembles_of_earlier_versions_are_read(make, kinds, data, tmp_path):
    members = [make(kinds["MLP, frames"], data, seed).float() for seed in (0, 1)]
    lw.Ensemble(members).save(tmp_path / "model")
    tree = read_tree(tmp_path / "model")
    del tree.arrays["statistics-1"]
    write_tree(tmp_path / "model", tree.arrays, tree.documents)
    back = lw.load(tmp_path / "model")
    assert isinstance(back, lw.Ensemble)
    assert_same(back.members[1], members[1], data)


def test_saving_again_replaces_the_model_whole(make, kinds, data, saved):
    make(kinds["GRU"], data, seed=5).float().save(saved)
    assert_same(lw.load(saved), make(kinds["GRU"], data, seed=5).float(), data)


def test_loading_leaves_torchs_random_numbers_alone(saved, monkeypatch):
    torch.manual_seed(77)
    torch.rand(5)
    before = torch.get_rng_state()
    # By this those of GPUs would be seeded, and not put back.
    monkeypatch.setattr(torch.cuda, "manual_seed_all", None)
    lw.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_saved_is_a_pickle(saved):
    names = {path.name.split(".")[-1] for path in saved.iterdir() if not path.name.startswith(".")}
    assert names <= {"json", "safetensors"}


def test_modules_of_the_users_come_back_with_their_configuration(make, kinds, data, tmp_path):
    model = make(kinds[OWN], data).float()
    model.save(tmp_path / "model")
    with pytest.raises(StoreError, match=r"code of your own \(.*Squash\).*lw\.load\(path, config="):
        lw.load(tmp_path / "model")
    assert_same(lw.load(tmp_path / "model", config=kinds[OWN]), model, data)


def test_another_configuration_is_refused(saved, kinds):
    with pytest.raises(StoreError, match=r"config= differs from the one that .* was saved with"):
        lw.load(saved, config=kinds["GRU"])


@pytest.mark.parametrize("pattern", ["weights*.safetensors", "stat*.safetensors", "manifest.json"])
def test_a_flipped_byte_is_found(saved, pattern):
    (path,) = saved.glob(pattern)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=str(saved)):
        lw.load(saved)


def test_a_missing_file_is_found(saved):
    next(saved.glob("weights*.safetensors")).unlink()
    with pytest.raises(StoreError, match=str(saved)):
        lw.load(saved)


def test_nothing_there_is_said_plainly(tmp_path):
    with pytest.raises(StoreError, match="holds nothing that was saved"):
        lw.load(tmp_path / "nowhere")


def test_a_dataset_is_no_model(data, tmp_path):
    data.save(tmp_path / "data")
    with pytest.raises(StoreError, match="holds no model of schema"):
        lw.load(tmp_path / "data")


def test_a_newer_schema_is_refused(saved):
    rewrite(saved, lambda model: model.update(schema=99))
    with pytest.raises(StoreError, match="no model of schema 4; it was saved by another version"):
        lw.load(saved)


def test_an_unknown_configuration_is_never_looked_up(saved):
    rewrite(saved, lambda model: model["config"].update(type="os.system"))
    with pytest.raises(StoreError, match=r"unknown configuration 'os\.system'.*newer version"):
        lw.load(saved)


@pytest.mark.parametrize("change", [{"surprise": 1}, {"width": -8}])
def test_settings_that_this_version_does_not_take_are_refused(saved, change):
    rewrite(saved, lambda model: model["config"].update(change))
    with pytest.raises(StoreError, match=r"settings of world\.WorldConfig .* not take: .*"):
        lw.load(saved)


def test_weights_that_do_not_fit_the_configuration_are_refused(saved):
    rewrite(saved, lambda model: model["config"].update(width=9))
    with pytest.raises(StoreError, match="do not fit its configuration"):
        lw.load(saved)


def test_what_is_bound_to_code_has_the_same_name_in_every_process(make, data, tmp_path):
    @dataclass
    class Made:
        act: Any

        def __call__(self, d_in: int, d_out: int) -> torch.nn.Module:
            return torch.nn.Linear(d_in, d_out)

    def make_encoder(d_in: int, d_out: int, act: Any = None, more: Any = ()) -> torch.nn.Module:
        return torch.nn.Linear(d_in, d_out)

    bound = partial(make_encoder, act=torch.tanh, more=[object(), {"of": torch.relu}])
    for encoder in (bound, Made(torch.tanh)):
        encoded = str(encode(lw.WorldConfig(width=8, encoder=encoder)))
        assert "0x" not in encoded
        assert "tanh" in encoded
    other = partial(make_encoder, act=torch.relu)
    assert encode(lw.WorldConfig(encoder=other)) != encode(lw.WorldConfig(encoder=bound))


@pytest.mark.parametrize("margin", [None, 0.7])
def test_the_margin_that_was_set_comes_back(make, kinds, data, tmp_path, margin):
    model = make(kinds["looped"], data).float()
    model.margin = margin
    model.save(tmp_path / "model")
    assert lw.load(tmp_path / "model").margin == margin
