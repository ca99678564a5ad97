"""How the tokens of a puzzle look: one character and one colour each; free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from loopwm.errors import ConfigError, DataError

_PAPER, _WALL, _HINT = "#F4F4F4", "#3C3C3C", "#D9D9D9"


@dataclass(frozen=True)
class Glyphs:
    """Write puzzles as lines of text, and read them.

    Args:
        symbols: The character of each token, all different.
        colours: The colour of each token's cell, "#rrggbb", as many as symbols.
        columns: Tokens of a line, at least 1.
        blank: Token of the cells that are asked for; None where all are.
    """

    symbols: str
    colours: tuple[str, ...]
    columns: int
    blank: int | None = None

    def __post_init__(self) -> None:
        if len(set(self.symbols)) != len(self.symbols):
            raise ConfigError(f"Glyphs.symbols must be all different, got {self.symbols!r}")
        if len(self.colours) != len(self.symbols):
            raise ConfigError(
                f"Glyphs needs a colour for each of {len(self.symbols)} symbols, "
                f"got {len(self.colours)}"
            )
        if self.columns < 1:
            raise ConfigError(f"Glyphs.columns must be at least 1, got {self.columns}")

    def write(self, tokens: Sequence[int]) -> str:
        """Return the puzzle as lines of text."""
        text = "".join(self.symbols[token] for token in tokens)
        lines = [text[k : k + self.columns] for k in range(0, len(text), self.columns)]
        return "\n".join(lines)

    def filled(self, puzzle: Sequence[int], answer: Sequence[int]) -> list[int]:
        """Return the answer with what the puzzle gives left as it is."""
        if self.blank is None:
            return list(answer)
        pairs = zip(puzzle, answer, strict=True)
        return [found if given == self.blank else given for given, found in pairs]

    def read(self, text: str, length: int) -> list[int]:
        """Return the tokens of a puzzle; white space counts for nothing.

        Where cells are asked for, 0, _ and - are empty ones, too: such puzzles hold no padding.

        Args:
            text: The puzzle.
            length: Tokens that it must have.

        Raises:
            DataError: If a character is no symbol, or there are too few or too many.
        """
        empty = {} if self.blank is None else dict.fromkeys("0_-", self.symbols[self.blank])
        # The first symbol is that of padding.
        aliases = {each: sign for each, sign in empty.items() if each not in self.symbols[1:]}
        characters = [aliases.get(each, each) for each in "".join(text.split())]
        for each in characters:
            if each not in self.symbols:
                raise DataError(
                    f"{each!r} is no symbol of this puzzle; its symbols are {self.symbols!r}"
                )
        if len(characters) != length:
            raise DataError(f"the puzzle has {len(characters)} cells, and must have {length}")
        return [self.symbols.index(each) for each in characters]


def sudoku(digits: int, columns: int) -> Glyphs:
    """Return the look of a sudoku: padding, empty, digits.

    Args:
        digits: Number of digits that there are tokens for.
        columns: Cells of a row.
    """
    symbols = "-." + "".join(str(digit) for digit in range(1, digits + 1))
    return Glyphs(symbols, (_HINT, _PAPER, *[_PAPER] * digits), columns, blank=1)


def maze(columns: int) -> Glyphs:
    """Return the look of a maze: padding, wall, free, start, goal, path.

    Args:
        columns: Cells of a row.
    """
    colours = (_HINT, _WALL, _PAPER, "#009E73", "#D55E00", "#56B4E9")
    return Glyphs("-#.SGo", colours, columns, blank=2)


def region(columns: int) -> Glyphs:
    """Return the look of regions to fill: padding, wall, open, filled.

    Args:
        columns: Cells of a row.
    """
    return Glyphs("-#.x", (_HINT, _WALL, _PAPER, "#56B4E9"), columns, blank=2)


def arc(columns: int, told: bool = False) -> Glyphs:
    """Return the look of an ARC grid: padding, end of grid, ten colours.

    Args:
        columns: Cells of a row of the canvas.
        told: Whether a row before it tells how the puzzle is shown: by one of eight turns, written
            as a letter, and what each colour became.
    """
    palette = ("#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA")
    palette += ("#F012BE", "#FF851B", "#7FDBFF", "#870C25")
    turns = "abcdefgh" * told
    colours = (_PAPER, _HINT, *palette, *[_HINT] * len(turns))
    return Glyphs("-|0123456789" + turns, colours, columns)
