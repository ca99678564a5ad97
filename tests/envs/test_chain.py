"""The ball chain against closed forms, exact fractions and the laws of mechanics."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loopwm.errors import ConfigError
from loopwm_envs import Chain

REPEATABLE = settings(max_examples=50, deadline=None, derandomize=True, database=None)
# Where an event is closer to the end of the step, rounding may decide whether it belongs to it.
CLEAR = 1e-9

seeds = st.integers(0, 2**32 - 1)
balls = st.integers(2, 7)


def drawn(seed: int, n: int, rows: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    speed = 10 ** rng.uniform(-1, 1, (rows, 1))
    return np.sort(rng.uniform(0, n, (rows, n)), axis=1), speed * rng.normal(size=(rows, n))


def masses_of(seed: int, n: int) -> tuple[float, ...]:
    return tuple(10 ** np.random.default_rng(seed).uniform(-0.5, 0.5, n))


def crossings(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Count the pairs of free flights whose order turns around, of each row."""
    pairs = np.triu_indices(before.shape[1], 1)
    return (
        (before[:, pairs[1]] > before[:, pairs[0]]) & ~(after[:, pairs[1]] > after[:, pairs[0]])
    ).sum(1)


def in_fractions(
    position: np.ndarray,
    velocity: np.ndarray,
    masses: Sequence[float],
    walls: tuple[int, int],
    dt: int,
) -> tuple[list[Fraction], list[Fraction], int, int]:
    """Play one chain in exact arithmetic: positions, velocities, count and causal depth."""
    x, v = [Fraction(each) for each in position], [Fraction(each) for each in velocity]
    m, left, count, depth = [Fraction(each) for each in masses], Fraction(dt), 0, [0] * len(x)
    while True:
        events: list[tuple[Fraction, tuple[int, ...]]] = []
        events += [((walls[0] - x[0]) / v[0], (0,))] if v[0] < 0 else []
        events += [((walls[1] - x[-1]) / v[-1], (len(x) - 1,))] if v[-1] > 0 else []
        for i in range(len(x) - 1):
            if v[i] > v[i + 1]:
                events.append(((x[i + 1] - x[i]) / (v[i] - v[i + 1]), (i, i + 1)))
        wait, who = min(events, default=(left + 1, (0,)))
        x = [place + speed * min(wait, left) for place, speed in zip(x, v, strict=True)]
        if wait > left:
            return x, v, count, max(depth)
        left -= wait
        if len(who) == 1:
            v[who[0]] = -v[who[0]]
        else:
            i, j = who
            common = (m[i] * v[i] + m[j] * v[j]) / (m[i] + m[j])
            v[i], v[j] = 2 * common - v[i], 2 * common - v[j]
        count += 1
        level = 1 + max(depth[each] for each in who)
        for each in who:
            depth[each] = level


@REPEATABLE
@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=7),
    st.lists(st.floats(-10, 10), min_size=7, max_size=7),
    st.floats(0.1, 3),
)
def test_equal_balls_are_sorted_free_flights_and_collide_where_those_cross(
    places: list[float], speeds: list[float], dt: float
) -> None:
    position = np.sort(np.array([places]), axis=1)
    velocity = np.array([speeds[: len(places)]])
    free = position + dt * velocity
    gaps = np.diff(np.sort(free, axis=1))
    assume(((gaps > CLEAR) | (gaps == 0)).all() and (np.diff(position) > CLEAR).all())
    flight = Chain(len(places), dt).advance(position, velocity)
    np.testing.assert_allclose(flight.position, np.sort(free, axis=1), atol=1e-12)
    assert sorted(flight.velocity[0]) == sorted(velocity[0])
    assume((gaps > CLEAR).all())
    assert flight.count.tolist() == crossings(position, free).tolist()


@REPEATABLE
@given(seeds, balls)
def test_equal_balls_between_walls_are_sorted_folded_flights(seed: int, n: int) -> None:
    position, velocity = drawn(seed, n)
    flight = Chain(n, walls=(0, n)).advance(position, velocity)
    free = position + velocity
    folded = n - np.abs(free % (2 * n) - n)
    np.testing.assert_allclose(flight.position, np.sort(folded, axis=1), atol=1e-12)
    # Two folded flights meet where the sum or the difference of the free ones passes a multiple of
    # twice the length; one meets a wall where it passes a multiple of the length.
    one, other = np.triu_indices(n, 1)
    meetings = [
        np.floor(two / (2 * n)) - np.floor(was / (2 * n))
        for was, two in (
            (position[:, one] + sign * position[:, other], free[:, one] + sign * free[:, other])
            for sign in (1, -1)
        )
    ]
    walls = np.abs(np.floor(free / n)).sum(axis=1)
    assert flight.count.tolist() == (np.abs(meetings).sum(axis=(0, 2)) + walls).tolist()


@REPEATABLE
@given(seeds, balls, st.booleans(), st.booleans())
def test_every_row_equals_exact_fractions(seed: int, n: int, alike: bool, walled: bool) -> None:
    position, velocity = drawn(seed, n, rows=2)
    masses = (1.0,) * n if alike else masses_of(seed, n)
    walls = (0, n) if walled else (-(10**6), 10**6)
    # Fractions of many events are long numbers.
    velocity = velocity.clip(-3, 3)
    flight = Chain(n, masses=masses, walls=walls).advance(position, velocity)
    for row in range(2):
        x, v, count, depth = in_fractions(position[row], velocity[row], masses, walls, 1)
        # Each collision of unequal masses may multiply the rounding of the ones before.
        np.testing.assert_allclose(flight.position[row], np.array(x, float), atol=1e-9)
        np.testing.assert_allclose(flight.velocity[row], np.array(v, float), atol=1e-9)
        assert (flight.count[row], flight.depth[row]) == (count, depth)


@REPEATABLE
@given(seeds, balls, st.booleans())
def test_energy_and_momentum_are_conserved(seed: int, n: int, alike: bool) -> None:
    position, velocity = drawn(seed, n)
    masses = None if alike else masses_of(seed, n)
    m = np.ones(n) if masses is None else np.array(masses)
    flight = Chain(n, masses=masses).advance(position, velocity)
    scale = np.abs(velocity).max(axis=1) * m.sum()
    momentum = (flight.velocity @ m - velocity @ m) / scale
    energy = (flight.velocity**2 @ m - velocity**2 @ m) / (scale * np.abs(velocity).max(axis=1))
    assert np.abs(momentum).max() < 1e-12
    assert np.abs(energy).max() < 1e-12


@REPEATABLE
@given(seeds, balls, st.booleans())
def test_a_chain_sent_back_arrives_where_it_began(seed: int, n: int, walled: bool) -> None:
    position, velocity = drawn(seed, n)
    chain = Chain(n, walls=(0, n)) if walled else Chain(n)
    there = chain.advance(position, velocity)
    back = chain.advance(there.position, -there.velocity)
    np.testing.assert_allclose(back.position, position, atol=1e-12)
    np.testing.assert_allclose(back.velocity, -velocity, atol=1e-12)
    assert back.count.tolist() == there.count.tolist()
    assert back.depth.tolist() == there.depth.tolist()


@REPEATABLE
@given(seeds, balls)
def test_a_row_is_computed_as_if_it_were_alone(seed: int, n: int) -> None:
    position, velocity = drawn(seed, n)
    chain = Chain(n, masses=masses_of(seed, n), walls=(0, n))
    flight = chain.advance(position, velocity)
    for row in range(len(position)):
        alone = chain.advance(position[[row]], velocity[[row]])
        assert alone.position.tobytes() == flight.position[[row]].tobytes()
        assert alone.velocity.tobytes() == flight.velocity[[row]].tobytes()
        assert (alone.count[0], alone.depth[0]) == (flight.count[row], flight.depth[row])


@REPEATABLE
@given(
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
    st.lists(st.integers(-2, 2), min_size=5, max_size=5),
)
def test_balls_that_meet_in_one_point_part_in_order(places: list[int], speeds: list[int]) -> None:
    position, velocity = np.sort(np.array([places], float), axis=1), np.array([speeds], float)
    flight = Chain(5, walls=(0, 3)).advance(position, velocity)
    folded = 3 - np.abs((position + velocity) % 6 - 3)
    np.testing.assert_allclose(flight.position, np.sort(folded, axis=1), atol=1e-12)


@pytest.mark.parametrize(("ratio", "digits"), [(1, 3), (100, 31), (10**4, 314), (10**6, 3141)])
def test_a_heavy_ball_pushing_a_light_one_to_the_wall_counts_the_digits_of_pi(
    ratio: int, digits: int
) -> None:
    # Galperin's billiard; reflections count, and each collision waits for the one before.
    chain = Chain(2, dt=1e3, masses=(1, ratio), walls=(0, np.inf))
    flight = chain.advance(np.array([[1.0, 2.0]]), np.array([[0.0, -1.0]]))
    assert flight.count.tolist() == flight.depth.tolist() == [digits]


def test_depth_is_the_longest_chain_and_not_the_number_of_collisions() -> None:
    # Newton's cradle, and three pairs that know nothing of one another.
    position = np.array([[0.0, 1, 2, 3, 4, 5]] * 2)
    velocity = np.array([[10.0, 0, 0, 0, 0, 0], [1, -1, 1, -1, 1, -1]])
    flight = Chain(dt=0.6).advance(position, velocity)
    assert flight.count.tolist() == [5, 3]
    assert flight.depth.tolist() == [5, 1]


def test_a_collision_at_the_very_end_belongs_to_the_step_and_not_to_the_next() -> None:
    chain = Chain(2)
    first = chain.advance(np.array([[0.0, 2.0]]), np.array([[1.0, -1.0]]))
    second = chain.advance(first.position, first.velocity)
    assert (first.count[0], second.count[0]) == (1, 0)


def test_balls_that_meet_as_the_step_ends_are_in_order_and_between_the_walls() -> None:
    # Rounding would put some by the last digit behind their neighbours, and some into the wall.
    position, _ = drawn(0, 6, rows=2000)
    for walls, goal in (((-np.inf, np.inf), 3.3), ((-0.1, 6.3), 6.3), ((-0.1, 6.3), -0.1)):
        flight = Chain(walls=walls).advance(position, goal - position)
        np.testing.assert_allclose(flight.position, goal, atol=1e-12)
        assert (np.diff(flight.position) >= 0).all()
        assert walls[0] <= flight.position.min() <= flight.position.max() <= walls[1]


def test_balls_that_close_in_too_slowly_for_a_number_never_meet() -> None:
    flight = Chain(2).advance(np.array([[0.0, 1.0]]), np.array([[5e-324, 0.0]]))
    assert flight.position.tolist() == [[5e-324, 1]]
    assert flight.count.tolist() == [0]


def test_no_chains_give_no_chains() -> None:
    flight = Chain().advance(np.empty((0, 6)), np.empty((0, 6)))
    assert flight.position.shape == (0, 6)
    assert flight.count.shape == flight.depth.shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"balls": 1}, "balls must be at least 2, got 1"),
        ({"dt": 0.0}, "dt must be positive"),
        ({"dt": np.nan}, "dt must be positive"),
        ({"masses": (1.0,)}, "one mass for each of the 6 balls"),
        ({"balls": 2, "masses": (1.0, -1.0)}, "masses must be positive"),
        ({"walls": (1.0, 1.0)}, "left < right"),
    ],
)
def test_impossible_chains_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Chain(**arguments)


@pytest.mark.parametrize(
    ("position", "velocity", "message"),
    [
        ([0.0, 1], [0.0, 0], "a batch of one row"),
        ([[0.0, 1, 2]], [[0.0, 0, 0]], r"shape \(chains, 2\)"),
        ([[0.0, 1]], [[0.0, 0], [0, 0]], "as many rows"),
        ([[0.0, np.nan]], [[0.0, 0]], "position must be finite, got nan"),
        ([[0.0, 1]], [[0.0, np.inf]], "velocity must be finite, got inf"),
        ([[0.0, 1], [1, 0]], [[0.0, 0], [0, 0]], "in row 1; sort it"),
        ([[0.0, 9]], [[0.0, 0]], "between the walls"),
    ],
)
def test_impossible_states_are_refused(position: Any, velocity: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Chain(2, walls=(0, 5)).advance(np.array(position), np.array(velocity))
