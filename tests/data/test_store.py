import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwm.data.concat import concat
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import COLUMNS, RolloutDataset
from loopwm.errors import ConfigError, DataError, LoopwmError, StoreError


def rollouts(
    lengths: tuple[int, ...], seed: int = 0, obs_type: type = np.float64, discrete: bool = False
) -> RolloutDataset:
    """Make episodes of random walks; every second one ends in a terminal state."""
    rng = np.random.default_rng(seed)
    paths = [rng.normal(size=(length + 1, 3)).astype(obs_type) for length in lengths]
    rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    terminated = np.zeros(rows, bool)
    terminated[ends[::2]] = True
    truncated = np.zeros(rows, bool)
    truncated[ends[1::2]] = True
    action = rng.integers(4, size=rows) if discrete else rng.normal(size=(rows, 2))
    return RolloutDataset(
        obs=np.concatenate([path[:-1] for path in paths]),
        next_obs=np.concatenate([path[1:] for path in paths]),
        action=action,
        reward=rng.normal(size=rows),
        terminated=terminated,
        truncated=truncated,
        episode=np.repeat(np.arange(len(lengths)), lengths),
        info={"difficulty/contacts": rng.normal(size=(rows, 2))},
        meta=DatasetMeta(
            env_id="Test-v0", num_actions=4 if discrete else None, obs_names=("a", "b", "c")
        ),
    )


def assert_same(one: RolloutDataset, two: RolloutDataset) -> None:
    assert one.meta == two.meta
    assert one.info.keys() == two.info.keys()
    columns = [(getattr(one, name), getattr(two, name)) for name in COLUMNS]
    for left, right in [*columns, *((one.info[name], two.info[name]) for name in one.info)]:
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple)


@settings(deadline=None, max_examples=25)
@given(
    LENGTHS,
    st.integers(0, 2**32),
    st.sampled_from([np.float64, np.float32, np.float16, np.int16, np.uint8]),
    st.booleans(),
    st.sampled_from([1, 100, 2**20]),
)
def test_saved_and_loaded_rollouts_are_equal_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: tuple[int, ...],
    seed: int,
    obs_type: type,
    discrete: bool,
    shard_bytes: int,
) -> None:
    data = rollouts(lengths, seed, np.float64, discrete)
    if np.dtype(obs_type).kind in "iu":
        data = replace(
            data,
            obs=(data.obs * 9).astype(np.int8).astype(obs_type),
            next_obs=(data.next_obs * 9).astype(np.int8).astype(obs_type),
        )
    path = tmp_path_factory.mktemp("store") / "data"
    data.save(path, shard_bytes)
    assert_same(RolloutDataset.load(path), data)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, (4, 2), elements=st.floats(allow_nan=False, allow_infinity=False)),
)
def test_every_finite_observation_is_accepted(values: np.ndarray) -> None:
    done = np.array([False, False, True])
    data = RolloutDataset.from_arrays(
        values[:-1], np.zeros((3, 1)), np.zeros(3), done, next_obs=values[1:]
    )
    assert data.obs.tobytes() == values[:-1].tobytes()


def test_a_description_survives_saving_with_infinite_and_nested_arguments(tmp_path: Path) -> None:
    meta = DatasetMeta(
        env_id="Hopper-v5",
        env_kwargs={"healthy_z_range": (0.7, float("inf")), "noise": np.float64(0.5)},
        variants=({"terminate_when_unhealthy": True}, {"terminate_when_unhealthy": False}),
        seed=3,
        dropped={"time went back": 2},
        action_low=(-1.0, float("-inf")),
        action_high=(1.0, float("inf")),
        obs_kept=(0, 2, 5),
        dt=0.008,
        parts=("early", "late"),
    )
    data = replace(rollouts((4,)), meta=meta)
    data.save(tmp_path / "data")
    assert RolloutDataset.load(tmp_path / "data").meta == meta


@pytest.mark.parametrize("shard_bytes", [200, 2**20])
def test_a_flipped_byte_anywhere_is_detected(tmp_path: Path, shard_bytes: int) -> None:
    path = tmp_path / "data"
    rollouts((3, 4)).save(path, shard_bytes)
    rng = np.random.default_rng(0)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for place in rng.integers(len(whole), size=5):
            broken = bytearray(whole)
            broken[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(broken)
            with pytest.raises(StoreError):
                RolloutDataset.load(path)
        file.write_bytes(whole)
    RolloutDataset.load(path)


def test_a_large_dataset_is_written_as_several_shards(tmp_path: Path) -> None:
    rollouts((50, 50)).save(tmp_path / "data", shard_bytes=1000)
    assert len(list((tmp_path / "data").glob("shard-*.safetensors"))) > 5


def test_a_newer_format_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopwm.data.shards.SCHEMA", 99)
    rollouts((4,)).save(tmp_path / "data")
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"format 99, this version reads 2"):
        RolloutDataset.load(tmp_path / "data")


def test_a_directory_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        RolloutDataset.load(tmp_path / "nothing")


@pytest.mark.parametrize("column", ["obs", "next_obs", "action", "reward"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_column_and_row(
    column: str, value: float
) -> None:
    data = rollouts((5, 6))
    broken = getattr(data, column).copy()
    broken.reshape(len(broken), -1)[7, 0] = value
    with pytest.raises(DataError, match=rf"{column} holds .* in row 7"):
        replace(data, **{column: broken})


def test_episodes_must_be_numbered_and_marked_at_their_ends() -> None:
    data = rollouts((2, 3))
    with pytest.raises(DataError, match=r"0, 1, 2"):
        replace(data, episode=np.array([0, 0, 2, 2, 2]))
    with pytest.raises(DataError, match=r"row 0 is terminated or truncated"):
        replace(data, terminated=np.array([True, True, False, False, False]))
    with pytest.raises(DataError, match=r"row 4 .* neither terminated nor truncated"):
        replace(data, truncated=np.zeros(5, bool))
    with pytest.raises(DataError, match=r"next_obs of row 1 is not obs of row 2"):
        replace(
            data,
            episode=np.zeros(5, np.int64),
            terminated=np.zeros(5, bool),
            truncated=np.arange(5) == 4,
        )


def test_columns_of_another_length_or_type_are_refused() -> None:
    data = rollouts((2, 3))
    with pytest.raises(DataError, match="action"):
        replace(data, action=data.action[:-1])
    with pytest.raises(DataError, match="action"):
        replace(data, action=data.action.astype(np.int64))
    with pytest.raises(DataError, match="x has shape"):
        replace(data, info={"x": np.zeros(4)})


def test_from_arrays_finds_episodes_and_marks_a_cut_one_as_truncated() -> None:
    obs = np.arange(10.0).reshape(5, 2)
    data = RolloutDataset.from_arrays(
        obs,
        np.zeros(5, np.int32),
        np.zeros(5, np.float32),
        np.array([0, 1, 0, 0, 0]),
        np.array([0, 0, 0, 0, 0]),
        next_obs=obs + 2,
    )
    assert data.episode.tolist() == [0, 0, 1, 1, 1]
    assert data.terminated.tolist() == [False, True, False, False, False]
    assert data.truncated.tolist() == [False, False, False, False, True]
    assert data.reward.dtype == np.float64
    assert data.action.dtype == np.int64
    assert data.discrete
    assert data.action_dim == 1


def test_a_dataset_does_not_change_with_the_buffer_that_it_was_made_from() -> None:
    rows: dict[str, Any] = {name: np.ones((4, 2)) for name in ("obs", "next_obs", "action")}
    rows |= {name: np.zeros(4, bool) for name in ("terminated", "truncated")}
    rows |= {"reward": np.zeros(4), "episode": np.zeros(4, np.int64)}
    data = RolloutDataset.from_arrays(**rows)
    before = {name: getattr(data, name).copy() for name in COLUMNS}
    for column in rows.values():
        column[:] = 9
    for name, column in before.items():
        np.testing.assert_array_equal(getattr(data, name), column)


@pytest.mark.usefixtures("without_shape_checks")
def test_from_arrays_takes_tensors_and_bounds_of_actions_from_the_data() -> None:
    path = torch.arange(8.0).view(4, 2).requires_grad_()
    rows = {"obs": path[:3], "next_obs": path[1:]}
    rows |= {"reward": torch.arange(3), "terminated": torch.zeros(3, dtype=torch.bool)}
    action = torch.tensor([[0.5, 1.0], [-2.0, 1.0], [0.0, 1.0]])
    given: Any = {**rows, "action": action}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = RolloutDataset.from_arrays(**given)
    assert (data.meta.action_low, data.meta.action_high) == ((-2.0, 1.0), (0.5, 1.0))
    assert data.next_obs.dtype == np.float32
    told = DatasetMeta(env_id="mine", action_low=(-3.0, 0.0), action_high=(3.0, 3.0), seed=7)
    data = RolloutDataset.from_arrays(**given, meta=told)
    assert (data.meta.action_low, data.meta.action_high) == (told.action_low, told.action_high)
    assert (data.env_id, data.seed, data.env_kwargs, data.versions) == ("mine", 7, {}, {})


def test_from_arrays_without_next_obs_leaves_out_and_counts_last_steps() -> None:
    obs = np.arange(7.0)[:, None]
    data = RolloutDataset.from_arrays(
        obs,
        np.zeros((7, 1)),
        np.zeros(7),
        np.zeros(7, bool),
        episode=np.array([5, 5, 5, 2, 9, 9, 9]),
    )
    assert data.obs[:, 0].tolist() == [0, 1, 4, 5]
    assert data.next_obs[:, 0].tolist() == [1, 2, 5, 6]
    assert data.episode.tolist() == [0, 0, 1, 1]
    assert data.truncated.tolist() == [False, True, False, True]
    assert data.meta.dropped == {"last step without next_obs": 3}


def test_from_arrays_refuses_an_episode_in_two_places() -> None:
    column = np.zeros((3, 1))
    with pytest.raises(DataError, match="separate stretches"):
        RolloutDataset.from_arrays(
            column, column, column[:, 0], column[:, 0], next_obs=column, episode=np.array([0, 1, 0])
        )


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=12),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32),
)
def test_a_split_shares_out_whole_episodes(lengths: list[int], fraction: float, seed: int) -> None:
    data = rollouts(tuple(lengths))
    train, test = data.split(fraction, seed)
    expected = min(max(round(fraction * len(lengths) + 1e-9), 1), len(lengths) - 1)
    assert abs(train.num_episodes - expected) <= 1
    assert train.num_episodes + test.num_episodes == len(lengths)
    episodes = {data.obs[a:b].tobytes() for a, b in zip(data.bounds, data.bounds[1:], strict=False)}
    halves = [
        half.obs[a:b].tobytes()
        for half in (train, test)
        for a, b in zip(half.bounds, half.bounds[1:], strict=False)
    ]
    assert sorted(halves) == sorted(episodes)


def test_a_split_depends_on_the_seed_alone() -> None:
    data = rollouts((3,) * 20)
    assert_same(data.split(0.5, 1)[0], data.split(0.5, 1)[0])
    assert data.split(0.5, 1)[0].obs.tobytes() != data.split(0.5, 2)[0].obs.tobytes()


def test_a_split_divides_every_part_alike() -> None:
    parts = [rollouts((4,) * 10, seed) for seed in range(3)]
    train, test = concat(parts, parts=("a", "b", "c")).split(0.8)
    for name in ("a", "b", "c"):
        assert train.part(name).num_episodes == 8
        assert test.part(name).num_episodes == 2


def test_one_episode_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least 2 episodes"):
        rollouts((5,)).split(0.5)
    with pytest.raises(ConfigError, match="fraction"):
        rollouts((5, 5)).split(1.5)
    with pytest.raises(ConfigError, match="seed must be a non-negative integer, got -1"):
        rollouts((5, 5)).split(seed=-1)


def test_selected_episodes_come_in_the_given_order() -> None:
    data = rollouts((2, 3, 4))
    chosen = data.select_episodes([2, 0])
    assert chosen.obs.tobytes() == np.concatenate([data.obs[5:], data.obs[:2]]).tobytes()
    assert chosen.episode.tolist() == [0, 0, 0, 0, 1, 1]
    for wrong in ([], [0, 0], [3], [-1]):
        with pytest.raises(DataError, match="episodes must"):
            data.select_episodes(wrong)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("given", [[False, True], np.array([False, True]), [1.5], np.array([0.5])])
def test_masks_and_fractions_number_neither_episodes_nor_observations(given: Any) -> None:
    data = rollouts((2, 3, 4))
    with pytest.raises(DataError, match="episodes must be a sequence of whole numbers"):
        data.select_episodes(given)
    with pytest.raises(DataError, match="indices must be a sequence of whole numbers"):
        data.keep_obs(given)
    assert data.select_episodes(np.array([2], np.uint8)).keep_obs(range(1)).obs.shape == (4, 1)


def test_concat_records_parts_and_differing_arguments() -> None:
    metas = [
        DatasetMeta(env_id="E", env_kwargs={"noise": 1, "stop": stop}, dropped={"nan": 1})
        for stop in (True, False)
    ]
    datasets = [replace(rollouts((2, 3), seed), meta=metas[seed % 2]) for seed in range(3)]
    data = concat(datasets, parts=("x", "y", "x"))
    assert data.meta.env_kwargs == {"noise": 1}
    assert data.meta.variants == ({"stop": True}, {"stop": False})
    assert data.meta.settings(1) == {"noise": 1, "stop": False}
    assert data.meta.dropped == {"nan": 3}
    assert data.info["part"].tolist() == [0] * 5 + [1] * 5 + [0] * 5
    assert data.where(stop=False).obs.tobytes() == datasets[1].obs.tobytes()
    assert data.part("x").obs.tobytes() == datasets[0].extend(datasets[2]).obs.tobytes()
    assert data.episode.tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 5]
    again = concat([data, data])
    assert again.meta.parts == ("x", "y")
    assert again.part("y").num_episodes == 4
    with pytest.raises(DataError, match="no episode was collected"):
        data.where(stop=None)
    with pytest.raises(DataError, match="no part"):
        data.part("z")


def test_parts_and_variants_may_be_many(tmp_path: Path) -> None:
    one = rollouts((2,))
    datasets = [
        replace(one, meta=replace(one.meta, env_kwargs={"gravity": index})) for index in range(300)
    ]
    data = concat(datasets, [f"part {index}" for index in range(300)])
    for column in ("part", "variant"):
        assert data.info[column].tolist() == np.repeat(np.arange(300), 2).tolist()
    assert data.where(gravity=200).part("part 200").num_episodes == 1
    assert datasets[0].extend(*datasets[1:]).where(gravity=299).num_episodes == 1
    data.save(tmp_path / "data")
    assert_same(RolloutDataset.load(tmp_path / "data"), data)


def test_indices_of_earlier_versions_are_read_and_wrapped_ones_refused(tmp_path: Path) -> None:
    data = concat([rollouts((2,)), rollouts((2,), seed=1)], ["a", "b"])
    narrow = replace(data, info={**data.info, "part": data.info["part"].astype(np.int8)})
    narrow.save(tmp_path / "data")
    assert RolloutDataset.load(tmp_path / "data").part("b").num_episodes == 1
    # What concat once made of a 201st part.
    wrapped = {**data.info, "part": np.array([0, 0, 200, 200]).astype(np.int8)}
    object.__setattr__(data, "info", wrapped)
    data.save(tmp_path / "wrapped")
    with pytest.raises(DataError, match=r"part must be in 0\.\.1, .* got -56 in row 2"):
        RolloutDataset.load(tmp_path / "wrapped")
    with pytest.raises(DataError, match=r"variant must be in 0\.\.0, .* got 1 in row 3"):
        replace(rollouts((3, 2)), info={"variant": np.array([0, 0, 0, 1, 1])})


def test_episodes_are_found_by_a_range_that_their_environment_was_made_with() -> None:
    meta = DatasetMeta(env_kwargs={"healthy_z_range": (0.7, 2.0), "noise": 1})
    data = replace(rollouts((3, 2)), meta=meta)
    assert_same(data.where(healthy_z_range=(0.7, 2.0), noise=np.int64(1)), data)
    with pytest.raises(DataError, match="no episode was collected"):
        data.where(healthy_z_range=(0.7, 3.0))
    with pytest.raises(DataError, match="no episode was collected"):
        data.where(unknown=None)


def test_a_description_that_the_columns_contradict_is_refused() -> None:
    boxes, indices = rollouts((3, 2)), rollouts((3, 2), discrete=True)

    def described(data: RolloutDataset, **changes: object) -> RolloutDataset:
        return replace(data, meta=replace(data.meta, **changes))  # pyright: ignore

    most = int(indices.action.max())
    with pytest.raises(DataError, match=rf"action must be in 0\.\.{most - 1}, .* got {most} in"):
        described(indices, num_actions=most)
    with pytest.raises(DataError, match=r"action must be in .* got -1 in row 0"):
        replace(indices, action=indices.action - indices.action[0] - 1)
    with pytest.raises(DataError, match="num_actions=4, but actions are vectors of 2"):
        described(boxes, num_actions=4)
    with pytest.raises(DataError, match=r"meta\.action_low has 3 numbers and actions have 2"):
        described(boxes, action_low=(-1.0,) * 3, action_high=(1.0,) * 3)
    with pytest.raises(DataError, match=r"action_low=\(0.0, 2.0\) must not be above"):
        described(boxes, action_low=(0.0, 2.0), action_high=(1.0, 1.0))
    for wrong in ((5,), (-1,), (1, 1)):
        with pytest.raises(DataError, match=r"angles must be different dimensions in 0\.\.2"):
            described(boxes, angles=wrong)


def test_datasets_that_differ_are_not_put_together() -> None:
    data = rollouts((3,))
    with pytest.raises(DataError, match="env_id"):
        data.extend(replace(data, meta=replace(data.meta, env_id="Other-v0")))
    with pytest.raises(DataError, match=r"no column 'noise' in dataset 1 of 2.*add it"):
        replace(data, info={"noise": np.arange(3)}).extend(replace(data, info={}))
    with pytest.raises(DataError, match="obs has"):
        data.extend(rollouts((3,), obs_type=np.float32))


def made_with(**settings: object) -> RolloutDataset:
    data = replace(rollouts((2, 3)), info={})
    return replace(data, meta=replace(data.meta, env_kwargs=settings))


@pytest.mark.parametrize("name", ["part", "variant"])
def test_a_column_that_only_shares_its_name_with_an_index_is_kept(name: str) -> None:
    own = replace(rollouts((2, 3)), info={name: np.full(5, 0.5)})
    assert own.extend(own).info[name].tolist() == [0.5] * 10
    data = made_with(gravity=1)
    indexed = {
        "part": concat([data, data], ["a", "b"]),
        "variant": concat([data, made_with(gravity=2)]),
    }
    own = replace(data, info={name: np.zeros(5, np.int64)})
    for pair in ([own, indexed[name]], [indexed[name], own]):
        with pytest.raises(DataError, match=f"column '{name}'"):
            concat(pair)


def test_what_a_dataset_does_not_report_is_filled_in_where_it_is_put_to_others() -> None:
    able = np.array([True, True, False, False, False])
    told = {"noise": np.arange(5.0), "can_terminate": able}
    full = replace(made_with(terminate_when_unhealthy=True), info=told)
    data = full.extend(
        made_with(terminate_when_unhealthy=False), made_with(terminate_when_unhealthy=True)
    )
    np.testing.assert_array_equal(data.info["noise"], [*range(5), *[np.nan] * 10])
    labels = rollouts((3,)).extend(replace(rollouts((3,)), info={})).info["difficulty/contacts"]
    assert labels.shape == (6, 2)
    assert np.isnan(labels[3:]).all()
    assert np.isfinite(labels[:3]).all()
    assert data.info["can_terminate"].tolist() == [*able, *[False] * 5, *[True] * 5]


def test_what_has_no_part_among_others_that_have_is_the_part_other() -> None:
    bare = made_with()
    parted = concat([bare, bare], ["a", "b"])
    for data, names in (
        (parted.extend(bare), ("a", "b", "other")),
        (bare.extend(parted), ("other", "a", "b")),
    ):
        assert data.meta.parts == names
        assert data.info["part"].tolist() == np.repeat([0, 1, 2], 5).tolist()
        assert data.part("other").obs.tobytes() == bare.obs.tobytes()


def test_kept_observations_remember_their_place() -> None:
    data = rollouts((3, 4))
    data = replace(data, meta=replace(data.meta, angles=(1, 2)))
    assert data.keep_obs([2, 0, 1]).meta.angles == (0, 2)
    kept = data.keep_obs([2, 1]).keep_obs([0])
    assert kept.meta.angles == (0,)
    assert kept.obs.tobytes() == data.obs[:, [2]].tobytes()
    assert kept.meta.obs_kept == (2,)
    assert kept.meta.obs_names == ("c",)
    with pytest.raises(ConfigError, match="indices"):
        data.keep_obs([3])


@pytest.mark.usefixtures("without_shape_checks")
def test_bounds_may_be_those_of_a_space(tmp_path: Path) -> None:
    space = Box(-1, 2, (2,), np.float32)
    meta = DatasetMeta(
        action_low=space.low,  # pyright: ignore[reportArgumentType]
        action_high=space.high,  # pyright: ignore[reportArgumentType]
        angles=np.array([1]),  # pyright: ignore[reportArgumentType]
    )
    assert meta == DatasetMeta(action_low=(-1, -1), action_high=(2, 2), angles=(1,))
    data = replace(rollouts((3,)), meta=meta)
    data.extend(data).save(tmp_path / "data")
    assert RolloutDataset.load(tmp_path / "data").meta.action_high == (2, 2)


def test_arguments_that_json_cannot_hold_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"env_kwargs\['f'\] is a function"):
        DatasetMeta(env_kwargs={"f": lambda: 0})


def test_all_refusals_are_typed() -> None:
    assert issubclass(DataError, LoopwmError)
    assert "3 steps, 1 episodes, obs[3], action[2]" in repr(rollouts((3,)))


@pytest.mark.usefixtures("without_shape_checks")
def test_numbers_of_numpy_in_a_description_are_saved(tmp_path: Path) -> None:
    given = DatasetMeta(
        env_kwargs={"range": tuple(np.array([0.7, np.inf]))},
        seed=np.int64(3),  # pyright: ignore[reportArgumentType] - what users have
        num_actions=np.int64(2),  # pyright: ignore[reportArgumentType]
        dt=np.float32(0.5),  # pyright: ignore[reportArgumentType]
    )
    found = DatasetMeta.from_json(json.loads(json.dumps(given.to_json())))
    assert found == given
    assert found.env_kwargs == {"range": [0.7, math.inf]}
    assert (found.seed, found.num_actions, found.dt) == (3, 2, 0.5)


@pytest.mark.parametrize("name", ["reward", "terminated", "truncated", "episode"])
def test_a_column_of_columns_is_refused_before_it_is_combined(name: str) -> None:
    rows = {"reward": np.zeros(4), "terminated": np.zeros(4, bool)}
    rows |= {"truncated": np.zeros(4, bool), "episode": np.zeros(4, np.int64)}
    with pytest.raises(DataError, match=rf"{name} must have shape \[N\]"):
        RolloutDataset.from_arrays(
            obs=np.zeros((4, 2)),
            next_obs=np.zeros((4, 2)),
            action=np.zeros((4, 1)),
            **(rows | {name: rows[name][:, None]}),
        )
