import gymnasium as gym
import numpy as np
import pytest

from loopwm.data.policy import (
    Excitation,
    OrnsteinUhlenbeck,
    Policy,
    Sines,
    Uniform,
    WithNoise,
    as_policy,
)
from loopwm.errors import ConfigError, EnvironmentUnsupported
from loopwm.seed import numpy_rng

EXCITATIONS = [Uniform(), OrnsteinUhlenbeck(), Sines(), Excitation()]
BOXES = [
    gym.spaces.Box(-1, 1, (3,), np.float32),
    gym.spaces.Box(np.array([-0.4, 0.1], np.float32), np.array([0.4, 7.3], np.float32)),
    gym.spaces.Box(-2.0, 3.0, (1,), np.float64),
]
DISCRETE = gym.spaces.Discrete(4, start=-1)
UNIT = BOXES[0]


def name(value):
    return type(value).__name__


@pytest.mark.parametrize("excitation", EXCITATIONS, ids=name)
@pytest.mark.parametrize("space", [*BOXES, DISCRETE], ids=str)
def test_every_action_lies_in_the_space_and_has_its_type(excitation, space):
    actions = excitation.actions(numpy_rng(0, "episode"), space, 500)

    assert actions.dtype == (np.int64 if space is DISCRETE else space.dtype)
    assert all(space.contains(action) for action in actions)


@pytest.mark.parametrize("excitation", EXCITATIONS, ids=name)
@pytest.mark.parametrize("space", [UNIT, DISCRETE], ids=str)
def test_a_shorter_horizon_gives_the_beginning_of_a_longer_one(excitation, space):
    short, long = (excitation.actions(numpy_rng(3), space, horizon) for horizon in (40, 90))

    np.testing.assert_array_equal(short, long[:40])


@pytest.mark.parametrize("excitation", EXCITATIONS, ids=name)
@pytest.mark.parametrize("space", [UNIT, DISCRETE], ids=str)
def test_different_generators_give_different_actions(excitation, space):
    one, two = (excitation.actions(numpy_rng(seed), space, 50) for seed in (0, 1))

    assert not np.array_equal(one, two)


def test_uniform_actions_have_the_moments_of_a_uniform_distribution():
    actions = Uniform().actions(numpy_rng(0), BOXES[1], 40_000)

    # Standard errors are 0.004 of the half range for the mean, 0.002 for the deviation.
    low, high = np.array([-0.4, 0.1]), np.array([0.4, 7.3])
    np.testing.assert_allclose(
        actions.mean(0) / (high - low), (low + high) / 2 / (high - low), atol=0.01
    )
    np.testing.assert_allclose(actions.std(0) / (high - low), np.sqrt(1 / 12), atol=0.006)


def test_an_ornstein_uhlenbeck_path_has_its_stationary_spread_and_correlation_from_the_start():
    theta, sigma = 0.2, 0.1
    process = OrnsteinUhlenbeck(theta, sigma)
    space = gym.spaces.Box(-1, 1, (4_000,), np.float64)
    paths = process.actions(numpy_rng(0), space, 12)

    # AR(1) in closed form; sigma is small enough that nothing is clipped.
    spread = sigma / np.sqrt(1 - (1 - theta) ** 2)
    np.testing.assert_allclose(paths.std(1), spread, rtol=0.05)
    correlation = [np.corrcoef(paths[0], paths[lag])[0, 1] for lag in (1, 4)]
    np.testing.assert_allclose(correlation, [0.8, 0.8**4], atol=0.06)


def test_a_discrete_ornstein_uhlenbeck_path_holds_each_action_for_one_over_theta_steps():
    actions = OrnsteinUhlenbeck(theta=0.1).actions(numpy_rng(0), gym.spaces.Discrete(50), 50_000)

    # One redraw in 50 gives the action that was held.
    changes = np.count_nonzero(np.diff(actions)) / len(actions)
    assert changes == pytest.approx(0.1 * 49 / 50, rel=0.05)


def test_sines_have_the_asked_root_mean_square_and_no_power_outside_the_asked_periods():
    sines = Sines(terms=3, shortest=10.0, longest=50.0, rms=0.2)
    actions = sines.actions(numpy_rng(0), gym.spaces.Box(-1, 1, (20,), np.float64), 20_000)

    np.testing.assert_allclose(np.sqrt((actions**2).mean(0)), 0.2, rtol=0.02)
    power = np.abs(np.fft.rfft(actions * np.hanning(20_000)[:, None], axis=0)) ** 2
    frequency = np.fft.rfftfreq(20_000)
    outside = (frequency < 1 / 51) | (frequency > 1 / 9.8)
    assert (power[outside].sum(0) / power.sum(0)).max() < 1e-6


def test_an_excitation_uses_every_kind_and_equals_it():
    seen = set()
    for seed in range(30):
        mixed = Excitation().actions(numpy_rng(seed), UNIT, 20)
        for kind in Excitation().kinds:
            rng = numpy_rng(seed)
            rng.integers(3)
            seen |= {name(kind)} if np.array_equal(mixed, kind.actions(rng, UNIT, 20)) else set()

    assert seen == {"Uniform", "OrnsteinUhlenbeck", "Sines"}


@pytest.mark.parametrize("excitation", EXCITATIONS, ids=name)
@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
        gym.spaces.Box(0, 5, (2,), np.int64),
        gym.spaces.MultiBinary(3),
    ],
    ids=str,
)
def test_a_space_without_bounds_or_of_another_kind_is_refused_with_its_name(excitation, space):
    with pytest.raises(EnvironmentUnsupported, match=r"Box|MultiBinary"):
        excitation.actions(numpy_rng(0), space, 5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OrnsteinUhlenbeck(theta=0.0),
        lambda: OrnsteinUhlenbeck(theta=1.5),
        lambda: OrnsteinUhlenbeck(sigma=float("nan")),
        lambda: Sines(terms=0),
        lambda: Sines(shortest=1.0),
        lambda: Sines(shortest=20.0, longest=10.0),
        lambda: Excitation(kinds=()),
        lambda: WithNoise(Uniform(), std=0.0),
    ],
)
def test_settings_outside_their_range_are_refused(make):
    with pytest.raises(ConfigError, match="must"):
        make()


def test_an_open_loop_excitation_is_played_back_whatever_is_observed():
    control = as_policy(Sines()).begin(numpy_rng(5), UNIT, 30)
    played = np.stack([control(np.full(2, np.nan)) for _ in range(30)])

    np.testing.assert_array_equal(played, Sines().actions(numpy_rng(5), UNIT, 30))


def test_a_function_of_the_observation_is_called_with_it():
    control = as_policy(lambda obs: obs[:3] * 2).begin(numpy_rng(0), UNIT, 10)

    np.testing.assert_array_equal(control(np.arange(5.0)), [0, 2, 4])


def test_a_policy_with_predict_is_asked_for_its_deterministic_action():
    class Predicts:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return observation[:1] * (10 if deterministic else 1), state

    control = as_policy(Predicts()).begin(numpy_rng(0), UNIT, 10)

    np.testing.assert_array_equal(control(np.ones(3)), [10])


def test_a_policy_stays_what_it_is():
    policy = WithNoise(Uniform(), 0.1)

    assert as_policy(policy) is policy
    assert isinstance(policy, Policy)


@pytest.mark.parametrize("wrong", [Uniform, WithNoise, 3, None, "random"], ids=str)
def test_what_cannot_choose_actions_is_refused(wrong):
    with pytest.raises(ConfigError, match="policy must"):
        as_policy(wrong)


def test_noise_has_the_asked_share_of_half_the_range_around_the_policy():
    middle = np.array([0.0, 3.7])
    control = WithNoise(lambda obs: middle, 0.1).begin(numpy_rng(0), BOXES[1], 20_000)
    noise = np.stack([control(np.zeros(1)) for _ in range(20_000)]) - middle

    np.testing.assert_allclose(noise.std(0), 0.1 * np.array([0.4, 3.6]), rtol=0.03)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.015)


def test_noisy_actions_stay_in_the_space():
    control = WithNoise(lambda obs: BOXES[1].high, 0.5).begin(numpy_rng(0), BOXES[1], 100)

    assert all(BOXES[1].contains(control(np.zeros(1))) for _ in range(100))


def test_the_noise_leaves_the_actions_of_the_policy_a_function_of_the_episode_alone():
    def play(horizon):
        control = WithNoise(Uniform(), 0.1).begin(numpy_rng(7), UNIT, horizon)
        return np.stack([control(np.zeros(1)) for _ in range(20)])

    np.testing.assert_array_equal(play(20), play(50))


def test_noise_on_discrete_actions_is_refused():
    with pytest.raises(EnvironmentUnsupported, match="continuous"):
        WithNoise(Uniform(), 0.1).begin(numpy_rng(0), DISCRETE, 10)


class Asked:
    """Draw as Sines does, and note the horizons that are asked for."""

    def __init__(self):
        self.horizons = []

    def actions(self, rng, action_space, horizon):
        self.horizons.append(horizon)
        return Sines().actions(rng, action_space, horizon)


def test_of_a_short_episode_no_more_than_a_short_beginning_is_drawn():
    asked = Asked()
    control = as_policy(asked).begin(numpy_rng(5), UNIT, 10_000)
    for _ in range(10):
        control(np.zeros(2))

    assert sum(asked.horizons) < 100


@pytest.mark.parametrize("horizon", [1, 31, 32, 33, 64, 700])
def test_what_is_drawn_bit_by_bit_is_what_the_whole_limit_would_be(horizon):
    asked = Asked()
    control = as_policy(asked).begin(numpy_rng(5), UNIT, horizon)
    played = []
    for _ in range(horizon):
        action = control(np.zeros(2))
        played.append(action.copy())
        action[:] = np.nan

    assert np.stack(played).tobytes() == Sines().actions(numpy_rng(5), UNIT, horizon).tobytes()
    assert sum(asked.horizons) < 3 * max(horizon, 32)


def test_a_draw_that_changes_with_the_horizon_is_refused_when_it_is_continued():
    class Stretched:
        def actions(self, rng, action_space, horizon):
            return np.full((horizon, 3), 1e-3 * horizon, np.float32)

    control = as_policy(Stretched()).begin(numpy_rng(0), UNIT, 200)
    with pytest.raises(ConfigError, match="must give the beginning"):
        [control(np.zeros(2)) for _ in range(200)]


def test_an_ornstein_uhlenbeck_path_equals_its_recursion_step_by_step():
    process = OrnsteinUhlenbeck(0.2, 0.1)
    noise = numpy_rng(0).standard_normal((50, 1))
    path = [noise[0] * (0.1 / np.sqrt(0.2 * 1.8))]
    for step in range(1, 50):
        path.append((1 - 0.2) * path[-1] + 0.1 * noise[step])
    played = process.actions(numpy_rng(0), gym.spaces.Box(-1, 1, (1,), np.float64), 50)

    assert played.tobytes() == np.clip(np.stack(path), -1, 1).tobytes()
