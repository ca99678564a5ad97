"""The record of measurements: one JSON file for each study, rendered into one page."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from loopwm.errors import StoreError
from loopwm.files import read_json, write_file, write_json
from loopwm.study.table import columns_table, number

SCHEMA = 1
_PROVENANCE = frozenset({"date", "command", "seeds", "commit", "versions", "machine"})


@dataclass(frozen=True)
class Column:
    """Name a column of a table.

    Attributes:
        key: Key of its value in every row.
        label: Heading; the key where it is empty.
        digits: Significant digits of numbers.
    """

    key: str
    label: str = ""
    digits: int = 3


@dataclass(frozen=True)
class Sheet:
    """Hold one table.

    Attributes:
        title: Heading.
        columns: Columns, in order.
        rows: Values by column key: text, a number, [value, low, high], true or false, or null.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Study:
    """Hold what one question found, with where its numbers come from.

    Attributes:
        name: Name of the file and of `--rerun`.
        title: Heading.
        question: What was asked, in a sentence.
        method: How it was measured, a paragraph each.
        sheets: The tables.
        provenance: Date, command, seeds, commit, versions and machine.
        order: Place on the page; smaller comes first.
    """

    name: str
    title: str
    question: str
    method: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    order: int = 100


def save_study(study: Study, folder: Path) -> Path:
    """Write a study to `<folder>/<name>.json`, atomically; return the path."""
    path = folder / f"{study.name}.json"
    write_json(path, _plain({"schema": SCHEMA, **asdict(study)}))
    return path


def load_study(path: Path) -> Study:
    """Read what `save_study` wrote.

    Raises:
        StoreError: If it is missing, damaged, or of another schema.
    """
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise StoreError(f"{path} is not a study of schema {SCHEMA}; rerun it to write it anew")
    try:
        sheets = tuple(
            Sheet(
                each["title"],
                tuple(Column(**column) for column in each["columns"]),
                tuple(each["rows"]),
            )
            for each in document["sheets"]
        )
        fields = {key: document[key] for key in ("name", "title", "question", "provenance")}
        study = Study(
            **fields, method=tuple(document["method"]), sheets=sheets, order=document["order"]
        )
        return _check_parts(path, study)
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path} lacks a part of a study: {error}") from error


def _check_parts(path: Path, study: Study) -> Study:
    """Refuse what could not be rendered."""
    missing = [] if not study.provenance else sorted(_PROVENANCE - study.provenance.keys())
    if missing:
        raise StoreError(f"{path}: the provenance lacks {', '.join(missing)}; rerun the study")
    for sheet in study.sheets:
        for row in sheet.rows:
            for name, value in row.items():
                if isinstance(value, list) and len(value) != 3:
                    raise StoreError(
                        f"{path}: {name}={value} is neither a value nor one with the ends of its "
                        "interval; rerun the study"
                    )
    return study


def render_results(folder: Path, page: Path) -> list[Study]:
    """Render all studies of a folder into one Markdown page, from their files alone.

    Args:
        folder: Where the studies' JSON files are.
        page: The page to write.

    Returns:
        The studies, in the order of the page.

    Raises:
        StoreError: If the folder holds no study, or a damaged one.
    """
    studies = [load_study(path) for path in sorted(folder.glob("*.json"))]
    if not studies:
        raise StoreError(f"{folder} holds no studies; `loopwm results --rerun NAME` writes them")
    studies.sort(key=lambda study: (study.order, study.name))
    told = (page.parent / "findings.md").exists()
    lines = [
        "# Results",
        "",
        "Rendered from the files beside this page by `loopwm results`; edit those, not this.",
        "Numbers in brackets are intervals or ranges, as each table says.",
        *(["What they add up to: [what we found](findings.md)."] if told else []),
        "",
        *(f"- [{study.title}](#{_anchor(study.title)})" for study in studies),
    ]
    for study in studies:
        lines += ["", *_section(study)]
    write_file(page, ("\n".join(lines) + "\n").encode())
    return studies


def markdown(sheet: Sheet) -> list[str]:
    """Render a table as lines of Markdown."""
    heads = [column.label or column.key for column in sheet.columns]
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    lines = [_row(heads), _row(rule)]
    for row in sheet.rows:
        cells = (cell(row.get(each.key), each.digits) for each in sheet.columns)
        lines.append(_row([html.escape(each, quote=False) for each in cells]))
    return lines


def rich_table(sheet: Sheet) -> Table:
    """Lay a table out for the terminal."""
    columns = {
        each.label or each.key: [cell(row.get(each.key), each.digits) for row in sheet.rows]
        for each in sheet.columns
    }
    return columns_table(sheet.title, columns)


def cell(value: Any, digits: int = 3) -> str:
    """Write one value of a table as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else number(value, digits)
    if isinstance(value, Sequence) and not isinstance(value, str):
        middle, low, high = (cell(each, digits) for each in value)
        return middle if low == middle == high else f"{middle} [{low}, {high}]"
    return str(value)


def _section(study: Study) -> list[str]:
    lines = [f"## {study.title}", "", study.question]
    for paragraph in study.method:
        lines += ["", paragraph]
    for sheet in study.sheets:
        lines += ["", f"**{sheet.title}**", "", *markdown(sheet)]
    source = study.provenance
    if source:
        versions = ", ".join(f"{name} {each}" for name, each in source["versions"].items())
        seeds = ", ".join(str(seed) for seed in source["seeds"]) or "none"
        lines += [
            "",
            f"*{source['date']}; `{source['command']}`; seeds {seeds}; commit {source['commit']}; "
            f"{source['machine']}; {versions}.*",
        ]
    return lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _plain(value: Any) -> Any:
    """Make JSON values: tuples become lists, numbers that are not finite become text or null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    return value
