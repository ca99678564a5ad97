"""Every ```python block of the README and of docs/ runs, in order, one namespace a file."""

import re
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("README.md"), *sorted((ROOT / "docs").rglob("*.md"))]

# The only thing that differs from what the reader sees: these literals are cut to at most this.
AT_MOST = {"steps": 1_000, "updates": 10}
# An agent plans at each of its steps; the README looks 15 steps ahead from eight states.
OTHERWISE = {"guide-learning.md": {"steps": 200}, "README.md": {"steps": 2_000}}

# Many small steps, in agents that act and models that are compared, of which the checks of shapes
# would make minutes.
UNCHECKED = {"guide-learning.md", "guide-compare.md"}

BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LITERAL = re.compile(rf"\b({'|'.join(AT_MOST)})=([\d_]+)")


def shortened(code: str, most: dict[str, int] = AT_MOST) -> str:
    return LITERAL.sub(lambda m: f"{m[1]}={min(int(m[2]), most[m[1]])}", code)


def run_blocks(page: Path) -> int:
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    most = AT_MOST | OTHERWISE.get(page.name, {})
    count = 0
    for match in BLOCK.finditer(text):
        # Empty lines in front make a traceback name the line of the page.
        lines = "\n" * (text[: match.start(2)].count("\n"))
        exec(compile(lines + shortened(dedent(match[2]), most), str(page), "exec"), namespace)
        count += 1
    return count


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_of_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    if page.name in UNCHECKED:
        request.getfixturevalue("without_shape_checks")
    monkeypatch.chdir(tmp_path)
    run_blocks(page)


def test_blocks_share_a_namespace_and_only_steps_and_updates_are_cut(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nsteps = dict(steps=100_000, updates=5)\n```\n"
        "- indented:\n  ```python\n  assert steps == {'steps': 1000, 'updates': 5}\n  ```\n"
        "```bash\nnot python\n```\n"
    )
    assert run_blocks(page) == 2


def test_an_error_in_a_block_names_the_page_and_its_line(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run_blocks(page)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (page, 5)
