from typing import Any, cast

import numpy as np
import pytest

from loopwm.data.actor import STAGES, Actor, ActorInfo, shipped_actors
from loopwm.data.collect import collect
from loopwm.data.policy import Excitation, WithNoise
from loopwm.data.standard import NOISE, PARTS, collect_standard, plan
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError

STEPS = 1001


def actors(env_id, seeds=(0, 1)):
    layer = [(np.zeros((3, 11)), np.zeros(3))]
    return [
        Actor(layer, -np.ones(3), np.ones(3), ActorInfo(env_id, seed, stage, 0, 0.0, 0.0, 1))
        for seed in seeds
        for stage in STAGES
    ]


def rows(pieces, **wanted):
    return sum(
        piece.rows
        for piece in pieces
        if all(getattr(piece, name) == value for name, value in wanted.items())
    )


@pytest.mark.parametrize("steps", [96, 1000, 12345])
@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 4)])
def test_rows_are_divided_evenly_over_parts_noise_policies_and_termination(steps, seeds):
    pieces = plan(steps, actors("Hopper-v5", seeds))

    assert rows(pieces) == steps
    for part in PARTS:
        size = rows(pieces, part=part)
        assert abs(size - steps / 4) < 1
        for on in (True, False):
            half = rows(pieces, part=part, env_kwargs={"terminate_when_unhealthy": on})
            assert abs(half - size / 2) <= len(seeds) * 2
    for stage in STAGES:
        size = rows(pieces, part=stage)
        noisy = [piece for piece in pieces if piece.part == stage and piece.noise]
        assert abs(rows(noisy) - size / 2) <= 1
        for seed in seeds:
            mine = [p for p in noisy if cast(Any, p.policy).policy.info.seed == seed]
            assert abs(rows(mine) - size / 2 / len(seeds)) <= 2
    assert all(isinstance(p.policy, Excitation) == (p.part == "excitation") for p in pieces)
    assert all(isinstance(p.policy, WithNoise) == (p.noise == NOISE) for p in pieces)


def test_a_task_that_never_ends_has_no_settings_of_termination():
    pieces = plan(400, actors("HalfCheetah-v5"))

    assert all(piece.env_kwargs == {} for piece in pieces)
    assert len(pieces) == 1 + 3 * 2 * 2


def test_too_few_steps_for_every_policy_are_refused_with_the_number_needed():
    assert len(plan(32, actors("Hopper-v5"))) == 2 + 3 * 8
    with pytest.raises(ConfigError, match=r"at least 32.*got 31"):
        plan(31, actors("Hopper-v5"))


@pytest.fixture(scope="module")
def hopper():
    return collect_standard("Hopper-v5", STEPS, seed=3)


def test_the_mixture_has_the_rows_asked_for_and_says_what_each_is(hopper):
    assert len(hopper) == STEPS
    assert hopper.meta.parts == PARTS
    assert hopper.meta.seed == 3
    assert hopper.meta.unclipped
    for part in PARTS:
        one = hopper.part(part)
        assert abs(len(one) - STEPS / 4) < 1
        noisy = one.info["noise"] > 0
        assert abs(noisy.sum() - (0 if part == "excitation" else len(one) / 2)) <= 1
        assert set(one.info["noise"]) <= {0.0, np.float32(NOISE)}
        assert abs(one.info["can_terminate"].sum() - len(one) / 2) <= 4


def test_only_rows_that_can_terminate_do_and_the_column_agrees_with_the_setting(hopper):
    able = hopper.info["can_terminate"]

    assert hopper.terminated[able].any()
    assert not hopper.terminated[~able].any()
    assert hopper.where(terminate_when_unhealthy=True).info["can_terminate"].all()
    assert not hopper.where(terminate_when_unhealthy=False).info["can_terminate"].any()


def test_quiet_rows_of_a_policy_hold_the_actions_of_a_shipped_actor_and_noisy_rows_do_not(hopper):
    late = hopper.part("late")
    policies = [a for a in shipped_actors("Hopper-v5") if a.info.stage == "late"]
    quiet = late.info["noise"] == 0

    error = np.min(
        [
            np.abs(np.stack([actor(obs) for obs in late.obs]) - late.action).max(axis=1)
            for actor in policies
        ],
        axis=0,
    )

    assert error[quiet].max() == 0
    assert (error[~quiet] > 0).mean() > 0.9


def test_the_same_seed_gives_the_same_rows_and_another_split_or_seed_gives_others(hopper):
    again = collect_standard("Hopper-v5", STEPS, seed=3)
    np.testing.assert_array_equal(again.obs, hopper.obs)
    np.testing.assert_array_equal(again.action, hopper.action)

    starts = {tuple(row) for row in hopper.obs[hopper.bounds[:-1]]}
    for other in (
        collect_standard("Hopper-v5", 64, seed=4),
        collect_standard("Hopper-v5", 64, seed=3, split="test"),
    ):
        assert starts.isdisjoint(map(tuple, other.obs[other.bounds[:-1]]))


def test_a_piece_of_the_mixture_is_what_collect_gives(hopper):
    alone = collect("Hopper-v5", 40, seed=0, unclipped=True)

    assert alone.obs.dtype == hopper.obs.dtype
    assert alone.action.dtype == hopper.action.dtype
    assert alone.meta.obs_names == hopper.meta.obs_names


def test_the_mixture_is_put_to_what_was_collected_without_parts(hopper):
    more = collect("Hopper-v5", 40, seed=0, unclipped=True)
    both = hopper.extend(more)

    assert both.meta.parts == (*PARTS, "other")
    np.testing.assert_array_equal(both.part("other").obs, more.obs)
    np.testing.assert_array_equal(both.part("late").obs, hopper.part("late").obs)
    assert both.part("other").info["can_terminate"].all()
    assert np.isnan(both.part("other").info["noise"]).all()
    np.testing.assert_array_equal(both.info["noise"][:STEPS], hopper.info["noise"])
    ends = both.where(terminate_when_unhealthy=False)
    assert len(ends) == len(hopper.where(terminate_when_unhealthy=False))


def test_the_mixture_survives_saving(hopper, tmp_path):
    hopper.save(tmp_path / "mixture")
    again = RolloutDataset.load(tmp_path / "mixture")

    assert again.meta == hopper.meta
    for name in ("part", "noise", "can_terminate", "variant"):
        np.testing.assert_array_equal(again.info[name], hopper.info[name])
        assert again.info[name].dtype == hopper.info[name].dtype


def test_half_cheetah_is_collected_as_it_is():
    mixture = collect_standard("HalfCheetah-v5", 300, split="test")

    assert len(mixture) == 300
    assert not mixture.meta.unclipped
    assert "variant" not in mixture.info
    assert mixture.info["can_terminate"].all()


def test_a_negative_seed_is_refused():
    with pytest.raises(ConfigError, match="seed must not be negative, got -1"):
        collect_standard("Hopper-v5", 1000, seed=-1)


def test_a_task_without_actors_is_refused_before_anything_is_collected():
    with pytest.raises(DataError, match="loopwm policies train Ant-v5"):
        collect_standard("Ant-v5", 1000)


def test_a_progress_bar_is_drawn_on_request(capsys):
    collect_standard("HalfCheetah-v5", 60, progress=True)

    assert "60/60" in capsys.readouterr().err
