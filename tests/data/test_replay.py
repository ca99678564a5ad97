import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopwm.batch import SequenceBatch
from loopwm.data.replay import Windows, full_window_starts
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError

torch.set_num_threads(1)


def rollouts(lengths: list[int], discrete: bool = False) -> RolloutDataset:
    """Make episodes whose every number is different and tells the row."""
    rows = sum(lengths)
    ends = np.cumsum(lengths) - 1
    episode = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(rows) + episode
    terminated = np.isin(np.arange(rows), ends[::2])
    return RolloutDataset(
        obs=np.stack([place, -place], axis=1) + 0.5,
        next_obs=np.stack([place + 1, -place - 1], axis=1) + 0.5,
        action=np.arange(rows) % 5 if discrete else (np.arange(rows)[:, None] + 0.25),
        reward=np.arange(rows) + 1000.0,
        terminated=terminated,
        truncated=np.isin(np.arange(rows), ends) & ~terminated,
        episode=episode,
        info={"can_terminate": np.arange(rows) % 3 > 0},
    )


def window_by_hand(data: RolloutDataset, row: int, length: int) -> dict[str, list]:
    """Walk from `row` step by step, and stand still once the episode is over."""
    obs, action, reward, terminated, valid = [data.obs[row].tolist()], [], [], [], []
    can_end: list[bool] = []
    here, over = row, False
    for _ in range(length):
        if over:
            obs.append(obs[-1])
            action.append(0 if data.discrete else [0.0])
            reward.append(0.0)
            terminated.append(False)
            can_end.append(False)
        else:
            obs.append(data.next_obs[here].tolist())
            action.append(data.action[here].tolist())
            reward.append(data.reward[here].item())
            terminated.append(data.terminated[here].item())
            can_end.append(here % 3 > 0)
        valid.append(not over)
        over = over or bool(data.terminated[here] or data.truncated[here])
        here += 1
    columns = dict(obs=obs, action=action, reward=reward, terminated=terminated, valid=valid)
    return columns | {"can_end": can_end}


def as_lists(batch: SequenceBatch, index: int) -> dict[str, list]:
    names = ("obs", "action", "reward", "terminated", "valid", "can_end")
    return {name: getattr(batch, name)[index].tolist() for name in names}


LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.booleans())
def test_windows_equal_a_walk_through_the_rows(
    lengths: list[int], length: int, discrete: bool
) -> None:
    data = rollouts(lengths, discrete)
    batch = Windows(data, length).at(torch.arange(len(data)))
    for row in range(len(data)):
        assert as_lists(batch, row) == window_by_hand(data, row, length)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_no_valid_step_leaves_the_episode_of_its_window(lengths: list[int], length: int) -> None:
    data = rollouts(lengths)
    batch = Windows(data, length).sample(50, torch.Generator().manual_seed(0))
    rows = (batch.reward - 1000).long()
    episode = torch.from_numpy(data.episode)
    first = episode[rows[:, 0]]
    assert batch.valid[:, 0].all()
    assert (episode[rows.clamp(min=0)] == first[:, None])[batch.valid].all()


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_full_windows_are_those_without_padding(lengths: list[int], length: int) -> None:
    data = rollouts(lengths)
    valid = Windows(data, length).at(torch.arange(len(data))).valid.all(dim=1)
    assert full_window_starts(data, length).tolist() == valid.nonzero()[:, 0].tolist()


def test_batches_have_the_types_of_the_legend() -> None:
    batch = Windows(rollouts([5, 6]), 3).sample(4, torch.Generator().manual_seed(0))
    assert batch.obs.shape == (4, 4, 2)
    assert batch.obs.dtype == batch.action.dtype == batch.reward.dtype == torch.float32
    assert batch.terminated.dtype == batch.valid.dtype == torch.bool
    discrete = Windows(rollouts([5, 6], discrete=True), 3).at(torch.tensor([0]))
    assert discrete.action.dtype == torch.int64
    assert discrete.action.shape == (1, 3)


def test_samples_depend_on_the_generator_alone_and_reach_every_row() -> None:
    windows = Windows(rollouts([5, 6, 7]), 3)
    one = windows.sample(500, torch.Generator().manual_seed(1))
    two = windows.sample(500, torch.Generator().manual_seed(1))
    assert torch.equal(one.obs, two.obs)
    assert sorted({int(r) - 1000 for r in one.reward[:, 0]}) == list(range(18))


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="length must be at least 1, got 0"):
        Windows(rollouts([3]), 0)
    with pytest.raises(ConfigError, match="length must be at least 1"):
        full_window_starts(rollouts([3]), 0)
