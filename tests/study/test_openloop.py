"""Imagining windows equals imagining each by itself, and a real model's own `imagine`."""

from typing import Any

import numpy as np
import pytest
import torch

from loopwm.core.halt import Fixed
from loopwm.data.normalise import Statistics
from loopwm.errors import DataError
from loopwm.study.episode import imagine_episode, longest_start, predict_episode
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.world.build import build
from loopwm.world.config import Gaussian, WorldConfig


@pytest.fixture
def looped(world: Any) -> Any:
    config = WorldConfig(width=8, head=Gaussian())
    model = build(config, world.train.meta, Statistics.of(world.train), seed=0)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("feedback", ["observation", "latent"])
def test_the_verbs_imagine_what_imagine_imagines(world: Any, looped: Any, feedback: str) -> None:
    rows = np.array([0, 3, 50])
    how = Imagination(feedback=feedback, halt=Fixed(3))
    seen = imagine_windows(looped, world.test, rows, 6, how)
    obs = torch.as_tensor(world.test.obs[rows]).float()
    actions = torch.as_tensor(world.test.action[rows[:, None] + np.arange(6)]).float()
    own = looped.imagine(obs, actions, feedback=feedback, halt=Fixed(3))
    np.testing.assert_allclose(seen.obs, own.obs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen.reward, own.reward, rtol=1e-4, atol=1e-5)
    assert (seen.n_iters == 3).all()
    assert seen.std is not None
    assert seen.std.shape == (3, 6, 3)


def test_a_context_equals_observing_by_hand(world: Any, looped: Any) -> None:
    row, test = 20 + 47, world.test
    seen = imagine_windows(looped, test, np.array([row]), 2, Imagination(context=4))
    at = [torch.as_tensor(test.obs[r : r + 1]).float() for r in range(row - 3, row + 1)]
    acts = [torch.as_tensor(test.action[r : r + 1]).float() for r in range(row - 3, row + 2)]
    state = looped.start(at[0])
    for step in range(3):
        state = looped.observe(state, acts[step], at[step + 1])
    for step in range(2):
        state, out = looped.step(state, acts[3 + step])
        np.testing.assert_allclose(seen.obs[:, step], out.next_obs, rtol=1e-5, atol=1e-6)


def test_an_episode_shows_the_context_as_it_was_and_then_what_was_imagined(
    world: Any, looped: Any
) -> None:
    test = world.test
    row = longest_start(test)
    episode = imagine_episode(looped, test, row, 20, Imagination(context=5))
    np.testing.assert_array_equal(episode.imagined[:5], test.obs[row : row + 5])
    np.testing.assert_array_equal(episode.real[:20], test.obs[row : row + 20])
    seen = imagine_windows(looped, test, np.array([row + 4]), 16, Imagination(context=5))
    np.testing.assert_allclose(episode.imagined[5:], seen.obs[0], rtol=1e-6)
    assert episode.iterations.shape == episode.settled.shape == (20,)
    assert episode.std is not None
    assert np.isnan(episode.std[:4]).all()
    assert episode.time[-1] == pytest.approx(20 * 0.05)


def test_a_stretch_ends_with_its_episode(world: Any, looped: Any) -> None:
    test = world.test
    first, after = test.bounds[2:4]
    episode = predict_episode(looped, test, int(first) + 5, 1000)
    assert len(episode.real) == after - first - 5 + 1
    np.testing.assert_array_equal(episode.real[-1], test.next_obs[after - 1])


def test_one_step_predictions_start_from_the_truth(world: Any) -> None:
    episode = predict_episode(world.model(), world.test, 0, 30)
    np.testing.assert_allclose(episode.imagined, episode.real, atol=1e-5)


def test_the_longest_episode_is_found(world: Any) -> None:
    row = longest_start(world.test)
    assert (world.test.episode == world.test.episode[row]).sum() == 60


def test_a_stretch_that_is_all_context_is_refused(world: Any, looped: Any) -> None:
    with pytest.raises(DataError, match="leaves none to imagine"):
        imagine_episode(looped, world.test, 45, 30, Imagination(context=16))
    with pytest.raises(DataError, match="row must lie in"):
        imagine_episode(looped, world.test, 10_000, 30)
