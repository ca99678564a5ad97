"""The record renders from its files alone, exactly what they hold."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from loopwm.cli.studies import Results
from loopwm.errors import ConfigError, StoreError
from loopwm.study.recipe import Options
from loopwm.study.results import (
    Column,
    Sheet,
    Study,
    cell,
    load_study,
    markdown,
    render_results,
    rich_table,
    save_study,
)
from loopwm.study.studies import RECIPES, rerun
from loopwm.study.table import columns_table, with_interval

SHEET = Sheet(
    "sizes",
    (Column("model"), Column("rmse", "RMSE"), Column("parameters")),
    (
        {"model": "looped | deep", "rmse": [0.25, 0.2, 0.3], "parameters": 34_893},
        {"model": "none", "rmse": float("nan"), "parameters": None},
    ),
)
SOURCE = {
    "date": "2026-01-01 00:00 UTC",
    "command": "loopwm results --rerun sizes",
    "seeds": [0, 1],
    "commit": "abc",
    "versions": {"numpy": "2"},
    "machine": "one core",
}
STUDY = Study("sizes", "Sizes: a study", "How large?", ("Measured.",), (SHEET,), SOURCE, 5)


def test_a_study_survives_its_file(tmp_path: Path) -> None:
    path = save_study(STUDY, tmp_path)
    back = load_study(path)
    assert (back.name, back.order, back.provenance) == ("sizes", 5, SOURCE)
    assert back.sheets[0].columns == SHEET.columns
    assert back.sheets[0].rows[0]["rmse"] == [0.25, 0.2, 0.3]
    assert back.sheets[0].rows[1]["rmse"] is None


def test_the_page_holds_every_study_in_order_with_its_origin(tmp_path: Path) -> None:
    first = Study("zeta", "Zeta", "First?", (), (SHEET,), SOURCE, 1)
    for study in (STUDY, first):
        save_study(study, tmp_path / "results")
    page = tmp_path / "results.md"
    render_results(tmp_path / "results", page)
    text = page.read_text()
    assert text.index("## Zeta") < text.index("## Sizes: a study")
    assert "[Sizes: a study](#sizes-a-study)" in text
    for part in ("looped \\| deep", "0.250 [0.200, 0.300]", "34,893", "one core", "seeds 0, 1"):
        assert part in text


def test_rendering_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    save_study(STUDY, tmp_path / "results")
    pages = [tmp_path / name for name in ("a.md", "b.md")]
    for page in pages:
        render_results(tmp_path / "results", page)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_markdown_has_one_cell_for_each_column() -> None:
    lines = markdown(SHEET)
    assert len(lines) == 4
    assert lines[0] == "| model | RMSE | parameters |"
    assert lines[3] == "| none | - | - |"


def printed(table: Table) -> str:
    screen = StringIO()
    Console(file=screen, width=120, color_system=None).print(table)
    return screen.getvalue()


def test_what_stands_in_square_brackets_is_printed_whole() -> None:
    table = columns_table(
        "RMSE [95%]", {"median [quartiles]": ["[learned]", "[/]"], "[b]": ["1", "2"]}
    )
    shown = printed(table)
    for part in ("RMSE [95%]", "median [quartiles]", "[learned]", "[/]", "[b]"):
        assert part in shown


def test_markdown_escapes_what_html_reads_and_the_terminal_shows_it_as_it_is() -> None:
    sheet = Sheet("signs", (Column("model"),), ({"model": "a < b & c > d"},))
    assert markdown(sheet)[2] == "| a &lt; b &amp; c &gt; d |"
    assert "a < b & c > d" in printed(rich_table(sheet))


def test_an_interval_whose_ends_are_equal_is_left_out() -> None:
    assert with_interval(0.25, (0.25, 0.25)) == "0.250"
    assert with_interval(0.25, (0.2, 0.3)) == "0.250 [0.200, 0.300]"


def test_the_terminal_shows_the_same_cells() -> None:
    table = rich_table(SHEET)
    assert [str(each) for each in list(table.columns)[2].cells] == ["34,893", "-"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (1_234_567, "1,234,567"),
        (0.012345, "0.0123"),
        (34_893.2, "34,893"),
        ("inf", "inf"),
        ([1.0, 1.0, 1.0], "1.00"),
        ("a < b & c", "a < b & c"),
    ],
)
def test_values_are_written_as_people_read_them(value: object, text: str) -> None:
    assert cell(value) == text


def test_an_empty_folder_and_a_foreign_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="--rerun NAME"):
        render_results(tmp_path, tmp_path / "page.md")
    (tmp_path / "other.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(StoreError, match="rerun it"):
        load_study(tmp_path / "other.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda study: study.update(provenance={"date": "x"}),
        lambda study: study["sheets"][0]["rows"][0].update(rmse=[1, 2]),
    ],
)
def test_a_damaged_study_is_named(tmp_path: Path, damage: Any) -> None:
    path = save_study(STUDY, tmp_path)
    study = json.loads(path.read_text())
    damage(study)
    path.write_text(json.dumps(study))
    with pytest.raises(StoreError, match=r"sizes\.json.*rerun the study"):
        render_results(tmp_path, tmp_path / "page.md")


def test_an_unknown_study_is_answered_by_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prediction-hopper"):
        rerun("prediction-hoper", tmp_path)
    assert len({recipe.order for recipe in RECIPES.values()}) == len(RECIPES)


def test_only_tables_that_can_show_what_is_missing_are_published_without_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bench needs all of its cells"):
        rerun("bench", tmp_path, Options(finished=True))
    with pytest.raises(ConfigError, match="no run of this table is finished yet"):
        rerun("longer-hopper", tmp_path, Options(work=tmp_path, finished=True))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="--finished needs --rerun NAME"):
        Results(finished=True)
