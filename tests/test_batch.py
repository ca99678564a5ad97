import pytest
import torch

from loopwm.batch import SequenceBatch


@pytest.fixture(params=["continuous", "discrete"])
def batch(request: pytest.FixtureRequest) -> SequenceBatch:
    generator = torch.Generator().manual_seed(0)
    discrete = request.param == "discrete"
    return SequenceBatch(
        obs=torch.randn(2, 4, 5, generator=generator),
        action=torch.ones(2, 3, dtype=torch.int64) if discrete else torch.ones(2, 3, 1),
        reward=torch.randn(2, 3, generator=generator),
        terminated=torch.tensor([[False, True, False], [False, False, False]]),
        can_end=torch.tensor([[True, True, False], [False, False, False]]),
        valid=torch.tensor([[True, True, False], [True, True, True]]),
    )


def test_its_length_is_the_number_of_windows(batch: SequenceBatch):
    assert len(batch) == 2


def test_the_first_steps_keep_one_observation_more_than_actions(batch: SequenceBatch):
    first = batch.steps(2)
    assert torch.equal(first.obs, batch.obs[:, :3])
    for name in ("action", "reward", "terminated", "can_end", "valid"):
        assert torch.equal(getattr(first, name), getattr(batch, name)[:, :2])


def test_moving_it_keeps_every_value(batch: SequenceBatch):
    moved = batch.to("cpu")
    for name in ("obs", "action", "reward", "terminated", "can_end", "valid"):
        assert torch.equal(getattr(moved, name), getattr(batch, name))


def test_shapes_that_do_not_belong_together_are_found_by_the_checks_of_the_tests():
    with pytest.raises(TypeError, match="reward"):
        SequenceBatch(
            obs=torch.zeros(2, 4, 5),
            action=torch.zeros(2, 3, 1),
            reward=torch.zeros(2, 4),
            terminated=torch.zeros(2, 3, dtype=torch.bool),
            can_end=torch.ones(2, 3, dtype=torch.bool),
            valid=torch.ones(2, 3, dtype=torch.bool),
        )
