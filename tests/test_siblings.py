"""The world model and the reasoner stand on the same core, and neither needs the other."""

import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "loopwm"

IMPORT_ALL = """
import importlib, pkgutil, sys

class Deleted:
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in {gone!r}):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Deleted())
for package in {kept!r}:
    module = importlib.import_module(package)
    for each in pkgutil.walk_packages(module.__path__, package + ".", lambda name: None):
        if not each.name.startswith({gone!r}):
            importlib.import_module(each.name)
assert not any(name.startswith({gone!r}) for name in sys.modules)
"""


@pytest.mark.parametrize(
    ("gone", "kept"),
    [
        # The studies of the reasoner go where it goes.
        (
            ("loopwm.reason", "loopwm.study.reasoner"),
            ("loopwm.world", "loopwm.agent", "loopwm.study", "loopwm.cli"),
        ),
        (("loopwm.world",), ("loopwm.reason",)),
    ],
)
def test_the_one_is_whole_without_the_other(gone: tuple[str, ...], kept: tuple[str, ...]):
    code = IMPORT_ALL.format(gone=gone, kept=kept)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_both_use_the_very_same_core():
    from loopwm.reason import model
    from loopwm.world import looped

    assert model.LoopedCore is looped.LoopedCore
