"""Mazes, against a count of all shortest paths."""

from collections import deque

import pytest
import torch

from loopwm.errors import ConfigError, DataError
from loopwm.reason.loss import IGNORED
from loopwm.reason.puzzles.maze import FREE, GOAL, PATH, START, WALL, Mazes
from loopwm.reason.source import PuzzleSource


def shortest_paths(grid: list[list[int]]) -> tuple[int, int, set[tuple[int, int]]]:
    """Return length and number of the shortest paths, and the cells that lie on any."""
    side = len(grid)
    cells = {(r, c): grid[r][c] for r in range(side) for c in range(side)}
    start, goal = (next(p for p, v in cells.items() if v == kind) for kind in (START, GOAL))

    def around(place):
        r, c = place
        steps = [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
        return [p for p in steps if cells.get(p, WALL) != WALL]

    def counted(origin):
        distance, ways, queue = {origin: 0}, {origin: 1}, deque([origin])
        while queue:
            place = queue.popleft()
            for after in around(place):
                if after not in distance:
                    distance[after], ways[after] = distance[place] + 1, 0
                    queue.append(after)
                if distance[after] == distance[place] + 1:
                    ways[after] += ways[place]
        return distance, ways

    (ahead, ways), (back, _) = counted(start), counted(goal)
    assert set(ahead) == {p for p, v in cells.items() if v != WALL}
    length = ahead[goal]
    return length, ways[goal], {p for p in ahead if ahead[p] + back[p] == length}


@pytest.mark.parametrize(("side", "least", "most"), [(5, 2, None), (11, 8, 20), (30, 100, 140)])
def test_the_answer_is_the_only_shortest_path_and_as_long_as_asked_for(side, least, most):
    mazes = Mazes(side, least, most)
    graded = mazes.test(15)
    tokens, labels = (
        t.view(-1, side, side).tolist() for t in (graded.batch.tokens, graded.batch.labels)
    )
    for grid, answer, difficulty in zip(tokens, labels, graded.difficulty, strict=True):
        length, ways, on_path = shortest_paths(grid)
        assert (length, ways) == (difficulty, 1)
        assert least <= length <= (most or side**2)
        for r in range(side):
            for c in range(side):
                if grid[r][c] == FREE:
                    assert answer[r][c] == (PATH if (r, c) in on_path else FREE)
                else:
                    assert answer[r][c] == IGNORED


def test_all_corridors_are_joined_in_exactly_one_way():
    side = 9
    tokens = Mazes(side).sample(torch.Generator().manual_seed(0), 50).tokens
    # As many joints as cells but one: a tree, for all are joined (see shortest_paths).
    assert ((tokens != WALL).sum(1) == 2 * 25 - 1).all()


def test_what_is_drawn_depends_on_the_generator_alone_and_no_walls_are_in_both_parts():
    mazes = Mazes(5)
    first, again = (mazes.sample(torch.Generator().manual_seed(1), 400) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.labels, again.labels)
    # Of 3 x 3 cells there are 192 mazes, so both parts show most of theirs.
    parts = [
        {tuple(row) for row in (tokens == WALL).tolist()}
        for tokens in (first.tokens, mazes.test(200).batch.tokens)
    ]
    assert all(len(part) > 5 for part in parts)
    assert not parts[0] & parts[1]


def test_mazes_are_a_source_of_the_published_size():
    mazes = Mazes()
    assert isinstance(mazes, PuzzleSource)
    assert (mazes.vocabulary, mazes.length, mazes.num_puzzles) == (6, 900, 1)


def test_paths_for_which_there_is_no_room_are_refused():
    with pytest.raises(ConfigError, match="side"):
        Mazes(4)
    with pytest.raises(ConfigError, match=r"\[2, 16\]"):
        Mazes(5, 18)
    with pytest.raises(ConfigError, match="least=9 to most=8"):
        Mazes(9, 9, 8)
    with pytest.raises(ConfigError, match="most=0"):
        Mazes(9, most=0)
    # Not every length is possible: corridors lie on every other cell.
    with pytest.raises(DataError, match="7 to 7 steps"):
        Mazes(9, 7, 7).sample(torch.Generator().manual_seed(0), 1)


def test_numbers_of_which_no_mazes_can_be_made_are_refused():
    with pytest.raises(ConfigError, match="seed must not be negative, got -1"):
        Mazes(5).test(2, seed=-1)
    with pytest.raises(ConfigError, match="count must be at least 1, got 0"):
        Mazes(5).test(0)
