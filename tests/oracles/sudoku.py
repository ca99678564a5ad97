"""Sudoku by sets of digits in plain Python: solutions, singles, and what guessing costs."""

from collections.abc import Iterator
from fractions import Fraction

Cells = tuple[frozenset[int], ...]


class Sudoku:
    def __init__(self, box_rows: int, box_columns: int) -> None:
        self.n = n = box_rows * box_columns
        places = [(i // n, i % n) for i in range(n * n)]
        names = [
            [("row", r), ("column", c), ("box", r // box_rows, c // box_columns)] for r, c in places
        ]
        keys = sorted({name for each in names for name in each}, key=str)
        self.units = [[i for i in range(n * n) if key in names[i]] for key in keys]
        self.peers = [
            {j for unit in self.units if i in unit for j in unit} - {i} for i in range(n * n)
        ]

    def fits(self, grid: list[int], cell: int) -> list[int]:
        taken = {grid[peer] for peer in self.peers[cell]}
        return [digit for digit in range(1, self.n + 1) if digit not in taken]

    def solutions(self, grid: list[int]) -> Iterator[list[int]]:
        """Yield every solution: fill the emptiest cell with each digit that fits."""
        if any(grid[i] and grid[i] not in self.fits(grid, i) for i in range(len(grid))):
            return
        empty = [i for i in range(len(grid)) if not grid[i]]
        if not empty:
            yield list(grid)
            return
        cell = min(empty, key=lambda i: len(self.fits(grid, i)))
        for digit in self.fits(grid, cell):
            yield from self.solutions([*grid[:cell], digit, *grid[cell + 1 :]])

    def start(self, grid: list[int]) -> Cells | None:
        every = frozenset(range(1, self.n + 1))
        return self.singles(tuple(frozenset({d}) if d else every for d in grid))

    def singles(self, cells: Cells) -> Cells | None:
        """Apply naked and hidden singles until nothing changes; None if they contradict."""
        before = None
        while cells != before:
            before = cells
            cells = tuple(
                options - {d for p in self.peers[i] if len(before[p]) == 1 for d in before[p]}
                for i, options in enumerate(before)
            )
            for unit in self.units:
                for digit in range(1, self.n + 1):
                    where = [i for i in unit if digit in cells[i]]
                    if not where:
                        return None
                    if len(where) == 1:
                        (i,) = where
                        cells = (*cells[:i], frozenset({digit}), *cells[i + 1 :])
        return cells if all(cells) else None

    def branches(self, cells: Cells) -> Iterator[dict[int, Cells | None]]:
        """Yield, of each cell with fewest candidates, what follows from each of them."""
        least = min((len(options) for options in cells if len(options) > 1), default=0)
        for i, options in enumerate(cells):
            if len(options) == least:
                yield {
                    d: self.singles((*cells[:i], frozenset({d}), *cells[i + 1 :])) for d in options
                }

    def solvable(self, cells: Cells | None) -> bool:
        if cells is None:
            return False
        for branch in self.branches(cells):
            return any(self.solvable(after) for after in branch.values())
        return True

    def waste(self, cells: Cells | None) -> Fraction:
        """Return the wrong guesses that it takes to find out that there is no solution."""
        if cells is None:
            return Fraction(0)
        costs = [sum(1 + self.waste(a) for a in b.values()) for b in self.branches(cells)]
        return Fraction(sum(costs), len(costs))

    def wrong_guesses(self, cells: Cells) -> Fraction:
        """Return the expected wrong guesses before the only solution is found.

        A candidate that is wrong comes before the right one in half of the orders.
        """
        costs = []
        for branch in self.branches(cells):
            right = next(after for after in branch.values() if self.solvable(after))
            assert right is not None
            wrong = [after for after in branch.values() if after is not right]
            costs.append(
                self.wrong_guesses(right) + Fraction(sum(1 + self.waste(a) for a in wrong), 2)
            )
        return Fraction(sum(costs), len(costs)) if costs else Fraction(0)
