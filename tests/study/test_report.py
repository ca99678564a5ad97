"""The page holds everything it shows, escapes what it is given, and loads nothing."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from loopwm.study.canvas import make_figure
from loopwm.study.episode import imagine_episode, predict_episode
from loopwm.study.page import Origin, Shown, Views, page_sections, summary
from loopwm.study.prediction import evaluate
from loopwm.study.report import (
    Facts,
    Grid,
    Section,
    Text,
    Video,
    grid_of,
    picture_of,
    write_report,
)
from loopwm.study.results import rich_table
from loopwm.study.table import compare_table
from loopwm.study.windows import Sampling

pytest.importorskip("matplotlib")


class Checker(HTMLParser):
    """Collect tags, references and text, and check that tags are closed in order."""

    empty = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.empty:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text())
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def shown(world: Any) -> dict[str, Shown]:
    history = [{"update": 1, "validation": 0.5}, {"update": 2, "validation": 0.4}]
    sampling = Sampling(max_windows=50, ceiling_windows=0)
    return {
        name: Shown(
            evaluate(world.model(bias), world.test, (1, 5), sampling=sampling),
            1000,
            {"bias": bias},
            history,
        )
        for name, bias in (("<looped>", 0.1), ("MLP", 0.01))
    }


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    film = Video(b"film", "moving")
    sections = [Section("one", (picture_of(make_figure(1, 1), "a figure"), film))]
    page = read(write_report(tmp_path / "page.html", "title", sections))
    for source in page.sources:
        assert source.startswith(("data:", "#"))
    assert f"data:video/mp4;base64,{base64.b64encode(b'film').decode()}" in page.sources
    assert not re.search(r"@import|url\(|<script|http", (tmp_path / "page.html").read_text())


def test_text_is_shown_as_it_is_and_never_runs(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script>'
    blocks = (
        Text((evil,)),
        Grid(evil, (evil,), ((evil,),), evil),
        Facts({evil: evil, "nested": {"a": [evil]}}),
        Video(b"", evil),
    )
    path = write_report(tmp_path / "page.html", evil, [Section(evil, blocks)], evil)
    assert "<script" not in path.read_text()
    assert read(path).words.count(evil) >= 9


def test_the_page_says_what_how_good_where_it_fails_and_how_it_was_made(
    tmp_path: Path, world: Any, shown: dict[str, Shown]
) -> None:
    model = world.model(0.1)
    views = Views(
        imagine_episode(model, world.test, 47, 20),
        predict_episode(model, world.test, 47, 20),
        film_missing="no film: no graphics library",
    )
    origin = Origin(world.train, world.test, {"updates": 7}, {"machine": "one core"})
    path = write_report(tmp_path / "page.html", "linear", page_sections(shown, origin, views))
    page = read(path)
    text = " ".join(page.words)
    for expected in (
        *("<looped>", "1,000 parameters", "copy last", "linear", "first, second"),
        *("no film: no graphics library", "one core", "updates", "bootstrap over episodes"),
        *("What was predicted", "How good", "Where it fails", "How this was made"),
    ):
        assert expected in text
    assert len([source for source in page.sources if source.startswith("data:image/png")]) == 4


def test_the_summary_ranks_by_error(shown: dict[str, Shown]) -> None:
    text = " ".join(summary(shown))
    assert re.search(r"Best first at 5 steps \(0\.25 s\): MLP [\d.]+, <looped>", text)


def test_a_rich_table_becomes_a_grid_cell_for_cell(shown: dict[str, Shown]) -> None:
    table = compare_table({name: each.report for name, each in shown.items()})
    grid = grid_of(table, "note")
    assert grid.heads == ("model", "1", "5", "diverged")
    assert [row[0] for row in grid.rows] == ["<looped>", "MLP", "copy last", "linear"]
    assert grid.note == "note"
    assert callable(rich_table)
