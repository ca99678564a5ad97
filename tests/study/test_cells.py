"""Cells are computed once, whatever happens in between and however many processes share them."""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loopwm.study import cells
from loopwm.study.cells import run_cells, run_groups


@dataclass(frozen=True)
class Square:
    number: int

    @property
    def name(self) -> str:
        return f"square-{self.number}"


CELLS = [Square(number) for number in range(4)]


def compute(cell: Square) -> dict[str, Any]:
    return {"square": cell.number**2}


def test_finished_cells_are_not_computed_again(tmp_path: Path) -> None:
    first = run_cells(CELLS, tmp_path, compute)

    def refuse(cell: Square) -> dict[str, Any]:
        raise AssertionError(cell)

    assert run_cells(CELLS, tmp_path, refuse) == first
    assert first["square-3"] == {"square": 9}


def test_groups_whose_results_are_all_there_are_not_even_claimed(tmp_path: Path) -> None:
    groups = [CELLS[:2], CELLS[2:]]

    def together(group: Sequence[Square]) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from ((cell.name, compute(cell)) for cell in group)

    first = run_groups(groups, tmp_path, together)
    assert list(first) == [cell.name for cell in CELLS]
    os.utime(tmp_path, (0, 0))

    def refuse(group: Sequence[Square]) -> Iterator[tuple[str, dict[str, Any]]]:
        raise AssertionError(group)

    assert run_groups(groups, tmp_path, refuse, pytest.fail) == first
    # A file that comes or goes would have changed it.
    assert tmp_path.stat().st_mtime == 0


def test_a_crash_costs_only_the_cell_it_hit(tmp_path: Path) -> None:
    done: list[int] = []

    def fragile(cell: Square) -> dict[str, Any]:
        if cell.number == 2 and 2 not in done:
            done.append(2)
            raise KeyboardInterrupt
        done.append(cell.number)
        return compute(cell)

    with pytest.raises(KeyboardInterrupt):
        run_cells(CELLS, tmp_path, fragile)
    assert len(run_cells(CELLS, tmp_path, fragile)) == 4
    assert done == [0, 1, 2, 2, 3]
    assert not list(tmp_path.glob("*.claim*"))


def test_a_cell_of_another_living_process_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "square-1.json.claim").write_text(str(os.getppid()))
    assert set(run_cells(CELLS, tmp_path, compute)) == {"square-0", "square-2", "square-3"}


@pytest.mark.parametrize("content", ["999999999", ""])
def test_the_claim_of_a_dead_process_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "square-1.json.claim").write_text(content)
    assert len(run_cells(CELLS, tmp_path, compute)) == 4


def test_each_cell_begun_is_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    run_cells(CELLS[:2], tmp_path, compute, lines.append)
    assert lines == ["1 of 2: square-0", "2 of 2: square-1"]


def test_a_claim_of_another_machine_holds_while_it_is_renewed(tmp_path: Path) -> None:
    claim = tmp_path / "square-1.json.claim"
    # A number that no process of this machine has: only the name of the host says who it is.
    claim.write_text("999999999 elsewhere")
    assert len(run_cells(CELLS, tmp_path, compute)) == 3
    old = time.time() - 601
    os.utime(claim, (old, old))
    assert len(run_cells(CELLS, tmp_path, compute)) == 4
    assert not claim.exists()


def test_a_claim_of_this_machine_that_nobody_renews_is_taken_over(tmp_path: Path) -> None:
    """A living process may have the number of one that died in another container."""
    claim = tmp_path / f"{CELLS[0].name}.json.claim"
    claim.write_text(f"1 {socket.gethostname()}")
    os.utime(claim, (0, 0))
    assert set(run_cells(CELLS[:1], tmp_path, compute)) == {CELLS[0].name}


def test_a_stale_claim_that_another_process_takes_over_first_is_left_to_it(tmp_path: Path) -> None:
    claim = tmp_path / "square-0.json.claim"
    claim.write_text("999999999")
    found: list[dict[str, Any]] = []
    with (tmp_path / "square-0.json.claim.lock").open("w") as lock:
        # The other process: it holds the lock, and has seen that the claim is stale too.
        fcntl.flock(lock, fcntl.LOCK_EX)
        work = threading.Thread(
            target=lambda: found.append(run_cells(CELLS[:1], tmp_path, compute))
        )
        work.start()
        work.join(0.3)
        assert work.is_alive()
        claim.write_text(str(os.getppid()))
    work.join(10)
    assert found == [{}]
    assert claim.read_text() == str(os.getppid())


def test_a_claim_that_another_process_has_taken_meanwhile_is_not_removed(tmp_path: Path) -> None:
    claim = tmp_path / "square-0.json.claim"

    def slept(cell: Square) -> dict[str, Any]:
        claim.write_text("1 elsewhere")
        return compute(cell)

    run_cells(CELLS[:1], tmp_path, slept)
    assert claim.read_text() == "1 elsewhere"


def test_a_claim_is_renewed_while_the_work_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "_RENEWAL", 0.01)
    claim, ages = tmp_path / "square-0.json.claim", []

    def slow(cell: Square) -> dict[str, Any]:
        os.utime(claim, (0, 0))
        time.sleep(0.3)
        ages.append(time.time() - claim.stat().st_mtime)
        return compute(cell)

    run_cells(CELLS[:1], tmp_path, slow)
    assert ages[0] < 60
