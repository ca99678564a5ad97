"""A page that a person can read: one HTML file with everything inside, opened without a network."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from loopwm.files import write_file
from loopwm.study.canvas import png
from loopwm.study.strict import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """Hold paragraphs of plain text.

    Attributes:
        paragraphs: The paragraphs.
    """

    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """Hold a table.

    Attributes:
        caption: What it shows.
        heads: Headings; the first column is aligned left, the others right.
        rows: Cells, as text.
        note: What a reader must know to read it.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """Hold a figure.

    Attributes:
        data: Bytes of a PNG file.
        caption: What it shows, also for readers who cannot see it.
    """

    data: bytes
    caption: str


@dataclass(frozen=True)
class Video:
    """Hold a film.

    Attributes:
        data: Bytes of an mp4 file.
        caption: What it shows.
    """

    data: bytes
    caption: str


@dataclass(frozen=True)
class Facts:
    """Hold names and values, such as settings and versions.

    Attributes:
        items: Values by name; nested mappings are written as JSON.
    """

    items: Mapping[str, Any]


Block = Text | Grid | Picture | Video | Facts


@dataclass(frozen=True)
class Section:
    """Hold a heading and what stands under it.

    Attributes:
        title: The heading.
        blocks: Text, tables, figures, films and facts, in order.
    """

    title: str
    blocks: tuple[Block, ...]


def write_report(path: Path, title: str, sections: Sequence[Section], subtitle: str = "") -> Path:
    """Write a self-contained HTML page, atomically.

    Args:
        path: The file to write.
        title: Heading of the page.
        sections: What it holds, in order.
        subtitle: A line under the heading: what, when.

    Returns:
        The path.
    """
    links = "".join(
        f'<a href="#s{index}">{_text(each.title)}</a>' for index, each in enumerate(sections)
    )
    body = "".join(_section(index, each) for index, each in enumerate(sections))
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{_text(title)}</h1><p>{_text(subtitle)}</p><nav>{links}</nav></header>\n"
        f"<main>\n{body}</main>\n</body>\n</html>\n"
    )
    write_file(path, page.encode())
    return path


def grid_of(table: Table, note: str = "") -> Grid:
    """Turn a rich table of text into one for the page."""
    columns = [[str(each) for each in column.cells] for column in table.columns]
    heads = tuple(str(column.header) for column in table.columns)
    return Grid(str(table.title or ""), heads, tuple(zip(*columns, strict=True)), note)


def picture_of(figure: "Figure", caption: str) -> Picture:
    """Turn a figure into one for the page."""
    return Picture(png(figure), caption)


def _section(index: int, section: Section) -> str:
    blocks = "\n".join(_block(each) for each in section.blocks)
    return f'<section id="s{index}">\n<h2>{_text(section.title)}</h2>\n{blocks}\n</section>\n'


def _block(block: Block) -> str:
    match block:
        case Text():
            return "\n".join(f"<p>{_text(each)}</p>" for each in block.paragraphs)
        case Grid():
            return _grid(block)
        case Picture():
            source = _embedded("image/png", block.data)
            image = f'<img src="{source}" alt="{_text(block.caption)}">'
            return f"<figure>{image}<figcaption>{_text(block.caption)}</figcaption></figure>"
        case Video():
            source = _embedded("video/mp4", block.data)
            film = f'<video controls loop muted playsinline src="{source}"></video>'
            return f"<figure>{film}<figcaption>{_text(block.caption)}</figcaption></figure>"
        case Facts():
            rows = "".join(
                f"<tr><th>{_text(name)}</th><td>{_fact(value)}</td></tr>"
                for name, value in block.items.items()
            )
            return f'<div class="wide"><table class="facts">{rows}</table></div>'


def _grid(block: Grid) -> str:
    heads = "".join(f"<th>{_text(each)}</th>" for each in block.heads)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_text(each)}</td>" for each in row) + "</tr>" for row in block.rows
    )
    note = f'<p class="note">{_text(block.note)}</p>' if block.note else ""
    caption = f"<caption>{_text(block.caption)}</caption>"
    table = f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>{note}'


def _fact(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    return f"<code>{_text(json.dumps(plain(value), default=str))}</code>"


def _embedded(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)


_STYLE = """
:root { --ink: #222; --faint: #6b6b6b; --line: #dcdcdc; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header, main { max-width: 980px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 36px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 6px; }
header p { color: var(--faint); margin: 0 0 14px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 8px 0;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); font-size: 0.92rem; }
nav a { color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
h2 { font-size: 1.3rem; margin: 40px 0 10px; }
p { max-width: 70ch; margin: 10px 0; }
.wide { overflow-x: auto; margin: 16px 0 6px; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 6px; white-space: nowrap; }
th, td { padding: 5px 12px 5px 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1.5px solid var(--ink); font-weight: 600; vertical-align: bottom; }
tbody td, .facts th, .facts td { border-bottom: 1px solid var(--line); }
.facts th { font-weight: 600; padding-right: 24px; vertical-align: top; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.note, figcaption { color: var(--faint); font-size: 0.88rem; max-width: 80ch; }
figure { margin: 18px 0; }
img, video { max-width: 100%; height: auto; display: block; }
code { font: 0.85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media print { nav { display: none; } section { break-inside: avoid-page; } }
"""
