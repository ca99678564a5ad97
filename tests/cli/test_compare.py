"""`loopwm compare` asks the study for what the words say, on every core unless told otherwise."""

import os
from pathlib import Path

import pytest

from loopwm.cli.compare import Compare
from loopwm.errors import ConfigError
from loopwm.study.compare import conduct
from loopwm.study.compare.settings import QUICK


def ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Compare) -> conduct.Order:
    """Return what a command asks for, without doing it."""
    orders: list[conduct.Order] = []
    # The place of the results is tried out.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conduct, "conduct", lambda order, *rest, **more: orders.append(order))
    command.run()
    return orders[0]


def test_every_core_has_a_process_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ordered(tmp_path, monkeypatch, Compare(quick=True))
    assert (order.settings, order.workers, order.mode) == (QUICK, os.cpu_count(), "run")
    assert ordered(tmp_path, monkeypatch, Compare(quick=True, workers=3)).workers == 3


def test_no_process_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Compare(quick=True, workers=0)
    with pytest.raises(ConfigError, match="above 0"):
        Compare(quick=True, submit=0)
    with pytest.raises(ConfigError, match="above 0"):
        Compare(quick=True, hours=0.0)
