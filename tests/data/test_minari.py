from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import WrapperSpec

from loopwm.data.collect import collect
from loopwm.data.flatten import flatten_rows
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import COLUMNS, RolloutDataset
from loopwm.errors import ConfigError, DataError

minari = pytest.importorskip("minari")
buffers = pytest.importorskip("minari.data_collector")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def assert_same(one: RolloutDataset, two: RolloutDataset) -> None:
    assert one.meta == two.meta
    assert one.info.keys() == two.info.keys()
    columns = [(getattr(one, name), getattr(two, name)) for name in COLUMNS]
    for left, right in [*columns, *((one.info[name], two.info[name]) for name in one.info)]:
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("Hopper-v5", {"unclipped": True, "env_kwargs": {"terminate_when_unhealthy": False}}),
        ("Hopper-v5", {"info_keys": ("x_position",)}),
        ("CartPole-v1", {}),
        ("Pendulum-v1", {}),
    ],
)
def test_exported_rollouts_come_back_bit_for_bit(env_id: str, options: dict) -> None:
    data = collect(env_id, 120, **options)
    data.to_minari("test/there-and-back-v0")
    assert_same(RolloutDataset.from_minari("test/there-and-back-v0"), data)


def test_parts_and_nested_columns_come_back() -> None:
    data = collect("Hopper-v5", 60)
    info = {
        "part": np.zeros(60, np.int8),
        "difficulty/contact force": np.random.default_rng(0).normal(size=60),
    }
    data = replace(data, info=info, meta=replace(data.meta, parts=("excitation",)))
    exported = data.to_minari("test/parts-v0")
    assert_same(RolloutDataset.from_minari(exported), data)


def test_minari_reads_the_exported_episodes_and_environment() -> None:
    data = collect("Hopper-v5", 100, env_kwargs={"ctrl_cost_weight": 0.5, "max_episode_steps": 30})
    exported = data.to_minari("test/hopper-v0", author="somebody")
    assert exported.total_steps == 100
    assert exported.total_episodes == data.num_episodes
    for index, episode in enumerate(exported.iterate_episodes()):
        rows = data.episode == index
        assert episode.observations[:-1].tobytes() == data.obs[rows].tobytes()
        assert episode.observations[-1].tobytes() == data.next_obs[rows][-1].tobytes()
        assert episode.rewards.tobytes() == data.reward[rows].tobytes()
    assert exported.env_spec is not None
    assert exported.env_spec.kwargs["ctrl_cost_weight"] == 0.5
    assert exported.env_spec.max_episode_steps == 30


def test_an_environment_of_another_package_is_exported_with_its_specification() -> None:
    data = collect("loopwm_envs:loopwm/BallChain-v0", 40)
    exported = data.to_minari("test/chain-v0")
    assert exported.env_spec is not None
    assert exported.env_spec.id == "loopwm/BallChain-v0"


def foreign(observation_space: gym.Space, observations: list, infos: dict | None = None):
    """Make a Minari dataset of two episodes with three steps each, as others would."""
    rng = np.random.default_rng(0)
    episodes = [
        buffers.EpisodeBuffer(
            id=index,
            observations=obs,
            actions=rng.normal(size=(3, 2)).astype(np.float32),
            rewards=[0.5, 1.0, -2.0],
            terminations=[False, False, index == 0],
            truncations=[False, False, False],
            infos=infos,
        )
        for index, obs in enumerate(observations)
    ]
    return minari.create_dataset_from_buffers(
        "others/data-v0",
        episodes,
        env="Reacher-v5",
        eval_env="Reacher-v5",
        algorithm_name="SAC",
        author="a",
        author_email="b",
        code_permalink="c",
        description="d",
        observation_space=observation_space,
        action_space=gym.spaces.Box(-2, 2, (2,), np.float32),
    )


def test_a_foreign_dataset_keeps_its_numbers_and_its_last_step_is_marked() -> None:
    obs = [np.random.default_rng(seed).normal(size=(4, 5)) for seed in range(2)]
    infos = {"step": np.arange(4), "name": ["a", "b", "c", "d"], "nested": {"x": np.ones(3)}}
    data = RolloutDataset.from_minari(foreign(gym.spaces.Box(-9, 9, (5,), np.float64), obs, infos))
    assert data.obs.tobytes() == np.concatenate([each[:-1] for each in obs]).tobytes()
    assert data.next_obs.tobytes() == np.concatenate([each[1:] for each in obs]).tobytes()
    assert data.action.dtype == np.float32
    assert data.terminated.tolist() == [False, False, True, False, False, False]
    assert data.truncated.tolist() == [False, False, False, False, False, True]
    assert data.info["step"].tolist() == [1, 2, 3, 1, 2, 3]
    assert data.info["nested/x"].tolist() == [1.0] * 6
    assert set(data.info) == {"step", "nested/x"}
    assert data.meta.env_id == "Reacher-v5"
    assert data.meta.action_high == (2.0, 2.0)
    assert data.meta.policy == "others/data-v0 (SAC)"


def test_a_dict_of_observations_is_flattened_as_gymnasium_does() -> None:
    space = gym.spaces.Dict(
        goal=gym.spaces.Box(-9, 9, (2,), np.float32), state=gym.spaces.Box(-9, 9, (3,), np.float32)
    )
    rng = np.random.default_rng(0)
    obs = [
        {name: rng.normal(size=(4, size)).astype(np.float32) for name, size in shapes}
        for shapes in [(("state", 3), ("goal", 2))] * 2
    ]
    data = RolloutDataset.from_minari(foreign(space, obs))
    for row, step in ((0, 0), (2, 2)):
        single = {name: column[step] for name, column in obs[0].items()}
        assert data.obs[row].tobytes() == np.asarray(gym.spaces.flatten(space, single)).tobytes()


def test_every_part_of_a_dict_is_flattened_as_gymnasium_does() -> None:
    spaces = gym.spaces
    inner = spaces.Tuple((spaces.Box(-9, 9, (2, 2), np.float32), spaces.Discrete(3, start=1)))
    space = spaces.Dict(
        digits=spaces.MultiDiscrete([3, 4, 2], start=[0, 2, 0]),
        flags=spaces.MultiBinary(2),
        inner=spaces.Dict(pair=inner),
        mode=spaces.Discrete(4),
    )
    space.seed(0)
    episodes = [[space.sample() for _ in range(4)] for _ in range(2)]
    stored = [
        {
            **{name: np.stack([e[name] for e in each]) for name in ("digits", "flags", "mode")},
            "inner": {
                "pair": tuple(np.stack([e["inner"]["pair"][i] for e in each]) for i in range(2))
            },
        }
        for each in episodes
    ]
    data = RolloutDataset.from_minari(foreign(space, stored))
    assert data.obs_dim == 9 + 2 + 7 + 4
    wanted = [np.asarray(spaces.flatten(space, e)) for each in episodes for e in each[:-1]]
    assert data.obs.dtype == wanted[0].dtype
    assert data.obs.tobytes() == np.stack(wanted).tobytes()


def test_words_become_numbers_as_in_gymnasium_and_the_rest_is_refused_by_type() -> None:
    spaces = gym.spaces
    text = spaces.Dict(word=spaces.Text(3, charset="abc"))
    words = ["ab", "c", "abc", "a"]
    wanted = [spaces.flatten(text, {"word": word}) for word in words]
    np.testing.assert_array_equal(flatten_rows(text, {"word": words}, 4), wanted)
    with pytest.raises(DataError, match=r"none of \[2\] choices"):
        flatten_rows(spaces.Dict(x=spaces.Discrete(2)), {"x": np.array([0, 2])}, 2)
    with pytest.raises(DataError, match="an episode of 1 steps has 3 observations"):
        flatten_rows(spaces.Dict(x=spaces.Discrete(2)), {"x": np.zeros(3, int)}, 2)
    for observations in ({}, {"x": np.array(["a", "b"])}):
        with pytest.raises(DataError, match="cannot be flattened as Dict"):
            flatten_rows(spaces.Dict(x=spaces.Box(-1, 1, (2,))), observations, 2)
    graph = spaces.Dict(x=spaces.Graph(spaces.Box(-1, 1, (2,)), None))
    with pytest.raises(DataError, match="cannot be flattened as Dict"):
        flatten_rows(graph, {"x": np.zeros((2, 2))}, 2)


def as_others_see_it(data: RolloutDataset, monkeypatch: pytest.MonkeyPatch) -> RolloutDataset:
    """Export and import again without the description that only we write and read."""
    exported = data.to_minari("others/same-v0")
    monkeypatch.setattr("loopwm.data.minari.ENTRY", "of somebody else")
    return RolloutDataset.from_minari(exported)


@pytest.mark.parametrize("env_kwargs", [{}, {"reset_noise_scale": 0.2}])
def test_a_foreign_dataset_of_a_known_environment_joins_collected_data(
    env_kwargs: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = collect("HalfCheetah-v5", 60, env_kwargs=env_kwargs)
    found = as_others_see_it(data, monkeypatch)
    assert found.meta.angles == data.meta.angles != ()
    assert (found.meta.dt, found.meta.obs_names) == (data.meta.dt, data.meta.obs_names)
    assert data.extend(found).obs.tobytes() == np.concatenate([data.obs, data.obs]).tobytes()


@pytest.mark.parametrize(
    "spoil", ["other observations", "other arguments", "not registered", "wrapped"]
)
def test_where_the_environment_is_not_the_same_here_nothing_is_taken_from_it(
    spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = collect("HalfCheetah-v5", 60)
    if spoil == "other observations":
        data = data.keep_obs(range(1, data.obs_dim))
    spec = gym.spec("HalfCheetah-v5")
    changes: dict[str, dict] = {
        "other arguments": {"kwargs": {"a_wheel": True}},
        "not registered": {"id": "OfOthers-v5", "entry_point": "os:abort"},
        "wrapped": {"additional_wrappers": (WrapperSpec("W", "os:abort", {}),)},
    }
    theirs = replace(spec, **changes.get(spoil, {}))
    monkeypatch.setattr(minari.MinariDataset, "env_spec", theirs)
    found = as_others_see_it(data, monkeypatch)
    assert (found.meta.angles, found.meta.dt, found.meta.obs_names) == ((), None, None)
    assert found.meta.env_id == theirs.id


def test_numbers_that_are_not_finite_and_unknown_names_are_refused() -> None:
    obs = [np.full((4, 5), np.nan)] * 2
    with pytest.raises(DataError, match="obs holds nan in row 0"):
        RolloutDataset.from_minari(foreign(gym.spaces.Box(-9, 9, (5,), np.float64), obs))
    with pytest.raises(ConfigError, match="no Minari dataset 'no/such-v0'"):
        RolloutDataset.from_minari("no/such-v0")


def test_a_taken_or_malformed_name_is_refused() -> None:
    data = replace(collect("Pendulum-v1", 20), meta=DatasetMeta(env_id="Pendulum-v1"))
    data.to_minari("test/taken-v0")
    for name in ("test/taken-v0", "no version"):
        with pytest.raises(ConfigError, match="Minari refuses"):
            data.to_minari(name)
