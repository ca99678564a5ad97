"""A puzzle as it is thought about: the answer after each step and how sure the model is of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from rich.columns import Columns
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from loopwm.reason.answer import trace
from loopwm.reason.glyphs import Glyphs
from loopwm.reason.model import Reasoner
from loopwm.study.canvas import COLOURS, FAINT, INK, dress, make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WRONG = "#D1242F"
_MOST_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Story:
    """Hold a puzzle and what a reasoner made of it.

    Attributes:
        title: Name of the puzzle.
        glyphs: How its tokens look.
        puzzle: Its tokens.
        answers: Tokens of the answer after each step.
        confidence: Probability in [0, 1] that the model gives each.
        labels: The right tokens, negative where none is asked for; None if they are not known.
        examples: Pairs of grids, as tokens, that show what is asked.
    """

    title: str
    glyphs: Glyphs
    puzzle: list[int]
    answers: list[list[int]]
    confidence: list[float]
    labels: list[int] | None = None
    examples: list[tuple[list[int], list[int]]] = field(default_factory=list)

    @property
    def solved(self) -> bool | None:
        """Say whether the last answer is right; None if that is not known."""
        return None if self.labels is None else not _wrong(self.answers[-1], self.labels)

    def frames(self) -> list[int]:
        """Return the steps that are shown, counted from 1: the first, the last, some between."""
        steps = len(self.answers)
        doubled = [step for k in range(10) for step in (2**k, 3 * 2**k) if step < steps]
        shown = sorted({*doubled, steps})
        return [*shown[: _MOST_FRAMES - 1], steps] if len(shown) > _MOST_FRAMES else shown


def tell(
    model: Reasoner,
    glyphs: Glyphs,
    puzzle: Sequence[int],
    *,
    puzzle_id: int = 0,
    steps: int = 16,
    labels: Sequence[int] | None = None,
    title: str = "puzzle",
) -> Story:
    """Let a reasoner think about one puzzle.

    Args:
        model: Who thinks.
        glyphs: How its tokens look.
        puzzle: Tokens, each in [0, V).
        puzzle_id: Which puzzle it is an example of.
        steps: Number of steps, at least 1.
        labels: The right tokens, where they are known.
        title: Name of the puzzle.
    """
    device = model.decode.weight.device
    tokens = torch.tensor([list(puzzle)], device=device)
    seen = trace(model, tokens, torch.tensor([puzzle_id], device=device), steps=steps)
    return Story(
        title,
        glyphs,
        list(puzzle),
        seen.tokens[:, 0].tolist(),
        seen.confidence[:, 0].tolist(),
        None if labels is None else list(labels),
    )


def panels(story: Story) -> Group:
    """Lay a story out for the terminal; wrong cells are red."""
    examples = [
        Panel.fit(_text(story.glyphs, each), title=name)
        for pair in story.examples
        for name, each in zip(("example", "becomes"), pair, strict=True)
    ]
    boxes = [Panel.fit(_text(story.glyphs, story.puzzle), title=story.title)]
    for step in story.frames():
        answer = _shown(story, story.answers[step - 1])
        text = _text(story.glyphs, answer, _wrong(answer, story.labels))
        title = f"step {step}: {story.confidence[step - 1]:.0%}"
        boxes.append(Panel.fit(text, title=title))
    if story.labels is not None:
        boxes.append(
            Panel.fit(_text(story.glyphs, _right(story, story.labels)), title="right answer")
        )
    line = "halting value by step: " + " ".join(f"{each:.2f}" for each in story.confidence)
    parts = [Columns(examples)] if examples else []
    return Group(*parts, Columns(boxes), Text(line))


def draw(story: Story) -> "Figure":
    """Draw a story: the puzzle, answers after some steps, and the halting value of all steps.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    frames = story.frames()
    grids = [(story.title, story.puzzle, False)]
    for pair in reversed(story.examples):
        grids[:0] = [("example", pair[0], False), ("becomes", pair[1], False)]
    grids += [(f"step {k}", _shown(story, story.answers[k - 1]), True) for k in frames]
    if story.labels is not None:
        grids.append(("right answer", _right(story, story.labels), False))
    columns = min(5, len(grids))
    rows = -(-len(grids) // columns)
    figure = make_figure(1.8 * columns, 2.0 * rows + 1.8)
    layout = figure.add_gridspec(rows + 1, columns, height_ratios=[1.0] * rows + [0.8])
    for place, (title, tokens, judged) in enumerate(grids):
        axes = figure.add_subplot(layout[place // columns, place % columns])
        _draw_grid(axes, story.glyphs, tokens, _wrong(tokens, story.labels) if judged else set())
        axes.set_title(title, fontsize=9.5, color=INK)
    axes = figure.add_subplot(layout[rows, :])
    _draw_confidence(axes, story, frames)
    return figure


def _draw_confidence(axes: "Axes", story: Story, frames: Sequence[int]) -> None:
    steps = range(1, len(story.confidence) + 1)
    dress(axes, x="step", y="halting value")
    axes.plot(steps, story.confidence, color=COLOURS[0], marker="o", markersize=3.5)
    axes.axhline(0.5, color=FAINT, linestyle=":", linewidth=1)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xticks(frames)


def _draw_grid(axes: "Axes", glyphs: Glyphs, tokens: Sequence[int], wrong: set[int]) -> None:
    from matplotlib.patches import Rectangle

    rows = -(-len(tokens) // glyphs.columns)
    for place, token in enumerate(tokens):
        y, x = divmod(place, glyphs.columns)
        colour = glyphs.colours[token]
        axes.add_patch(
            Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="#C8C8C8", linewidth=0.4)
        )
        if place in wrong:
            inner = Rectangle(
                (x + 0.1, y + 0.1), 0.8, 0.8, fill=False, edgecolor=_WRONG, linewidth=1.6
            )
            axes.add_patch(inner)
        if glyphs.symbols[token] not in "-.|#" and glyphs.columns <= 10:
            ink = _WRONG if place in wrong else _ink_on(colour)
            style = {"ha": "center", "va": "center", "fontsize": 60 / glyphs.columns}
            axes.text(x + 0.5, y + 0.5, glyphs.symbols[token], color=ink, **style)
    axes.set_xlim(0, glyphs.columns)
    axes.set_ylim(rows, 0)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _text(glyphs: Glyphs, tokens: Sequence[int], wrong: set[int] = frozenset()) -> Text:  # type: ignore[assignment]
    text = Text()
    for place, token in enumerate(tokens):
        colour = glyphs.colours[token]
        ink = f"bold white on {_WRONG}" if place in wrong else f"{_ink_on(colour)} on {colour}"
        text.append(f"{glyphs.symbols[token]} ", style=ink)
        if place % glyphs.columns == glyphs.columns - 1 and place + 1 < len(tokens):
            text.append("\n")
    return text


def _shown(story: Story, answer: Sequence[int]) -> list[int]:
    """Return an answer as it is shown: with what is given, and blank where nothing is asked."""
    filled = story.glyphs.filled(story.puzzle, answer)
    if story.labels is None or story.glyphs.blank is not None:
        return filled
    return [a if label >= 0 else 0 for a, label in zip(filled, story.labels, strict=True)]


def _right(story: Story, labels: Sequence[int]) -> list[int]:
    return _shown(story, [max(0, label) for label in labels])


def _wrong(tokens: Sequence[int], labels: Sequence[int] | None) -> set[int]:
    """Return the places where an answer differs from the labels."""
    if labels is None:
        return set()
    return {k for k, (a, b) in enumerate(zip(tokens, labels, strict=True)) if b >= 0 and a != b}


def _ink_on(colour: str) -> str:
    """Return black or white, whichever can be read on a colour."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else "#FFFFFF"
