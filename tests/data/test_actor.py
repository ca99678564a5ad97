import dataclasses
import json
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from loopwm.data.actor import SPLITS, STAGES, Actor, ActorInfo, shipped_actors, split_of
from loopwm.data.policy import as_policy
from loopwm.errors import ConfigError, DataError, StoreError
from loopwm.seed import numpy_rng

INFO = ActorInfo("Task-v0", 0, "late", 500, 12.5, 1.5, 3, training={"lr": 0.1}, versions={"x": "1"})
LOW, HIGH = np.array([-2, 0], np.float32), np.array([2, 1], np.float32)
SPACE = gym.spaces.Box(LOW, HIGH)


def network(seed=0, widths=(5, 16, 8, 2)):
    rng = numpy_rng(seed, "network")
    return [
        (rng.standard_normal((out, into)).astype(np.float32), rng.random(out).astype(np.float32))
        for into, out in pairwise(widths)
    ]


@pytest.fixture
def actor():
    return Actor(network(), LOW, HIGH, INFO)


def test_an_action_is_the_squashed_network_in_float64_to_float32_rounding(actor):
    observations = numpy_rng(0).standard_normal((50, 5))
    hidden = observations
    for weight, bias in network()[:-1]:
        hidden = np.maximum(hidden @ weight.T.astype(np.float64) + bias, 0)
    weight, bias = network()[-1]
    expected = LOW + (HIGH - LOW) * (np.tanh(hidden @ weight.T.astype(np.float64) + bias) + 1) / 2

    actions = np.stack([actor(obs) for obs in observations])

    np.testing.assert_allclose(actions, expected, atol=1e-5)
    assert actions.dtype == np.float32
    assert all(SPACE.contains(action) for action in actions)


def test_an_action_is_the_same_bits_wherever_the_observation_lies_in_memory(actor):
    observations = numpy_rng(1).standard_normal((64, 5)).astype(np.float32)
    shifted = np.empty(64 * 5 + 1, np.float32)[1:].reshape(64, 5)
    shifted[:] = observations
    columns = np.asfortranarray(observations)

    for row in range(64):
        alone = actor(observations[row].copy())
        assert np.array_equal(alone, actor(shifted[row]))
        assert np.array_equal(alone, actor(columns[row]))
        assert np.array_equal(alone, actor(observations[row].astype(np.float64)))


def test_an_actor_is_a_policy_of_its_own_action_space_only(actor):
    obs = np.ones(5)
    control = as_policy(actor).begin(numpy_rng(0), SPACE, 10)

    np.testing.assert_array_equal(control(obs), actor(obs))
    with pytest.raises(DataError, match="Task-v0"):
        actor.begin(numpy_rng(0), gym.spaces.Box(-1, 1, (2,), np.float32), 10)
    with pytest.raises(DataError, match="Task-v0"):
        actor.begin(numpy_rng(0), gym.spaces.Discrete(2), 10)


def test_bounds_are_compared_in_32_bits_and_kept_in_64():
    bound = np.full(2, 0.1)
    space = gym.spaces.Box(-bound, bound, dtype=np.float64)
    loud = [(weight, bias * 1e6) for weight, bias in network()]
    control = Actor(loud, -bound, bound, INFO).begin(numpy_rng(0), space, 10)
    actions = [control(obs) for obs in numpy_rng(0).standard_normal((20, 5)).astype(np.float32)]
    assert np.abs(actions).max() == 0.1
    assert all(space.contains(action) for action in actions)


def test_an_observation_of_another_shape_is_refused(actor):
    with pytest.raises(DataError, match=r"\(5,\), got \(6,\)"):
        actor(np.ones(6))


def test_a_saved_actor_comes_back_bit_for_bit(actor, tmp_path):
    actor.save(tmp_path / "actor.safetensors")
    again = Actor.load(tmp_path / "actor.safetensors")

    assert again.info == INFO
    for (weight, bias), (other_weight, other_bias) in zip(
        actor.weights, again.weights, strict=True
    ):
        np.testing.assert_array_equal(weight, other_weight)
        np.testing.assert_array_equal(bias, other_bias)
    np.testing.assert_array_equal([again.low, again.high], [LOW, HIGH])


def test_any_flipped_byte_is_noticed(actor, tmp_path):
    path = tmp_path / "actor.safetensors"
    actor.save(path)
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    for position in [0, 7, *range(8 + size, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        with pytest.raises(StoreError, match=r"actor\.safetensors"):
            Actor.load(path)


def rewritten(path, change):
    """Apply `change` to the tensors and the header of a file and give it a right checksum."""
    import loopwm.data.actor as module

    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["loopwm.actor"])
    tensors = load_file(path)
    change(tensors, header)
    header["sha256"] = module._digest(tensors)
    save_file(tensors, path, {"loopwm.actor": json.dumps(header)})


@pytest.mark.parametrize(
    "change",
    [
        lambda t, h: t.update(extra=np.zeros(1, np.float32)),
        lambda t, h: t.pop("1.bias"),
        lambda t, h: t.pop("low"),
        lambda t, h: t.update({"1.weight": np.zeros((8, 15), np.float32)}),
        lambda t, h: t.update({"0.weight": np.zeros(5, np.float32)}),
        lambda t, h: t.update({"2.bias": np.full(2, np.nan, np.float32)}),
        lambda t, h: t.update(high=np.ones(3, np.float32)),
        lambda t, h: h.update(schema=2),
        lambda t, h: h["info"].update(stage="best"),
        lambda t, h: h["info"].update(surprise=1),
        lambda t, h: h["info"].pop("seed"),
    ],
)
def test_a_file_with_unknown_keys_or_wrong_shapes_is_refused(actor, tmp_path, change):
    path = tmp_path / "actor.safetensors"
    actor.save(path)
    rewritten(path, change)

    with pytest.raises(StoreError, match=r"actor\.safetensors"):
        Actor.load(path)


def test_a_file_that_is_not_an_actor_is_refused(tmp_path):
    path = tmp_path / "actor.safetensors"
    for raw in (b"", b"short", b"\0" * 100):
        path.write_bytes(raw)
        with pytest.raises(StoreError, match=r"actor\.safetensors"):
            Actor.load(path)
    save_file({"w": np.zeros(3, np.float32)}, path)
    with pytest.raises(StoreError, match="header"):
        Actor.load(path)
    with pytest.raises(StoreError, match="missing"):
        Actor.load(tmp_path / "missing.safetensors")


def test_training_and_test_actors_never_share_a_seed(tmp_path):
    for seed in range(5):
        for stage in STAGES:
            info = dataclasses.replace(INFO, seed=seed, stage=stage)
            Actor(network(seed), LOW, HIGH, info).save(tmp_path / info.filename)

    found = {split: shipped_actors("Task-v0", split, root=tmp_path) for split in SPLITS}

    assert [(a.info.seed, a.info.stage) for a in found["train"]] == [
        (seed, stage) for seed in (0, 1, 4) for stage in STAGES
    ]
    assert {a.info.seed for a in found["valid"]} == {2}
    assert {a.info.seed for a in found["test"]} == {3}
    assert all(split_of(a.info.seed) == split for split in found for a in found[split])


def test_a_task_without_actors_is_refused_with_the_tasks_that_have_some_and_the_command():
    with pytest.raises(DataError, match=r"hopper-v5.*loopwm policies train Swimmer-v5 --out"):
        shipped_actors("Swimmer-v5")


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="'all'"):
        shipped_actors("Hopper-v5", "all")


@pytest.mark.parametrize("env_id", ["Hopper-v5", "HalfCheetah-v5"])
@pytest.mark.parametrize("split", SPLITS)
def test_every_shipped_seed_has_three_stages_of_rising_return(env_id, split):
    actors = shipped_actors(env_id, split)
    seeds = sorted({actor.info.seed for actor in actors})

    assert len(seeds) == (4 if split == "train" else 1)
    assert [(a.info.seed, a.info.stage) for a in actors] == [
        (seed, stage) for seed in seeds for stage in STAGES
    ]
    for early, middle, late in zip(actors[::3], actors[1::3], actors[2::3], strict=True):
        assert early.info.mean_return < middle.info.mean_return < late.info.mean_return
    assert all(a.info.unclipped == (env_id == "Hopper-v5") for a in actors)
