"""The demonstration, from rollouts to the page."""

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.study.demo import FULL, SMOKE, demonstrate


def run(out: Path) -> tuple[Path, str]:
    text = StringIO()
    return demonstrate(SMOKE, out, Console(file=text, width=80)), text.getvalue()


def test_the_demonstration_is_what_was_promised():
    assert FULL.task == "Hopper-v5"
    assert FULL.rows >= 100_000
    assert {"looped", "once", "mlp-4x200"} <= set(FULL.arms)
    assert set(SMOKE.arms) == set(FULL.arms)


def test_a_directory_with_another_demonstration_is_refused_naming_the_difference(tmp_path: Path):
    (tmp_path / "plan.json").write_text(json.dumps({"updates": 3}))
    with pytest.raises(ConfigError, match=r"other settings \(.*updates.*choose another directory"):
        demonstrate(replace(SMOKE, updates=4), tmp_path, Console(file=StringIO()))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_ends_in_a_table_and_a_page_with_everything_inside_and_resumes(tmp_path: Path):
    page, said = run(tmp_path / "demo")
    assert str(page.resolve()) in said.replace("\n", "")
    for row in ("looped", "same cell", "MLP 4x200", "copy last", "linear", "ceiling"):
        assert re.search(rf"^{row}.* \d", said, re.MULTILINE)
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=.?(https?:|//|/)", text)
    assert "too small to mean anything" in text
    train, test = (RolloutDataset.load(tmp_path / "demo" / "data" / s) for s in ("train", "test"))
    assert (len(train), len(test)) == (SMOKE.rows, SMOKE.test_rows)
    assert train.meta.policy != test.meta.policy

    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "demo" / "runs").rglob("*.jsonl")}
    (tmp_path / "demo" / "reports" / "once.json").unlink()
    _, again = run(tmp_path / "demo")
    # What was finished is not done again, and what is repeated gives the same numbers.
    table = said[said.index("Open-loop") :]
    assert again[again.index("Open-loop") :] == table
    assert written == {p: p.stat().st_mtime_ns for p in written if "once" not in str(p)} | {
        p: n for p, n in written.items() if "once" in str(p)
    }
