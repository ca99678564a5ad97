"""The windows looked at are spread over the experience, distinct, and inside their episodes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loopwm.seed import numpy_rng
from loopwm.study.windows import Sampling, change_std, draw_rows, window_rows


def test_no_window_and_no_history_crosses_an_episode(world: Any) -> None:
    rows = window_rows(world.test, 6, 4, Sampling(max_windows=10_000))
    episode = world.test.episode
    plain = [row for row in range(4, len(episode) - 5) if len(set(episode[row - 4 : row + 6])) == 1]
    assert rows.tolist() == plain


def test_every_stretch_of_the_list_gives_one_row() -> None:
    rows = np.arange(1000) * 3
    drawn = draw_rows(rows, 50, numpy_rng(0))
    assert len(drawn) == 50
    gaps = np.diff(np.append(drawn, drawn[0] + 3000))
    assert gaps.min() > 0
    assert gaps.max() < 2 * 60


def test_every_row_has_the_same_chance() -> None:
    rows = np.arange(70)
    counts = sum(
        np.bincount(draw_rows(rows, 20, numpy_rng(seed)), minlength=70) for seed in range(2000)
    )
    expected = 2000 * 20 / 70
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_a_short_list_is_taken_whole() -> None:
    assert draw_rows(np.arange(5), 9, numpy_rng(0)).tolist() == [0, 1, 2, 3, 4]


def test_rows_can_be_ruled_out(world: Any) -> None:
    keep = world.test.episode == 3
    rows = window_rows(world.test, 2, 0, Sampling(), keep)
    assert set(world.test.episode[rows]) == {3}


def test_a_dimension_that_never_changes_has_a_unit_of_one(world: Any) -> None:
    still = world.test.obs.copy()
    still[:, 1] = 2.0
    following = world.test.next_obs.copy()
    following[:, 1] = 2.0
    std = change_std(replace(world.test, obs=still, next_obs=following), 3)
    assert std[1] == 1
    assert std[0] == pytest.approx(change_std(world.test, 3)[0])


def test_no_window_no_unit(world: Any) -> None:
    assert np.isnan(change_std(world.test, 500)).all()
