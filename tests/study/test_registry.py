"""Studies of other packages are found by name, and imported only when they are asked for."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from loopwm.errors import ConfigError
from loopwm.study import registry
from loopwm.study.recipe import Computed, Options, Recipe
from loopwm.study.registry import GROUP, find_recipe


def compute(options: Options) -> Computed:
    raise AssertionError(options)


OURS, THEIRS = (Recipe(title, "Why?", 1, compute) for title in ("ours", "theirs"))


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare a study of another package, a broken one and one that is none."""
    module = ModuleType("their_package")
    vars(module).update(RECIPE=THEIRS, NUMBER=3)
    monkeypatch.setitem(sys.modules, "their_package", module)
    points = [
        EntryPoint("theirs", "their_package:RECIPE", GROUP),
        EntryPoint("same", "their_package:RECIPE", GROUP),
        EntryPoint("number", "their_package:NUMBER", GROUP),
        EntryPoint("broken", "no_such_package:RECIPE", GROUP),
        EntryPoint("absent", "their_package:ABSENT", GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == GROUP else [])


@pytest.mark.usefixtures("declared")
def test_ours_come_first_and_broken_ones_hinder_no_other() -> None:
    own = {"same": OURS}
    assert find_recipe("same", own) is OURS
    assert find_recipe("theirs", own) is THEIRS


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"'no_such_package:RECIPE', which cannot be imported \(ModuleNotFoundError"),
        ("absent", r"'their_package:ABSENT', which cannot be imported \(AttributeError"),
        ("number", "'their_package:NUMBER', which is no Recipe but an object of int"),
        ("xyz", "there is no study 'xyz'; known: same, theirs, number, broken, absent"),
        ("thiers", "there is no study 'thiers'; did you mean 'theirs'"),
    ],
)
def test_what_cannot_be_used_is_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_recipe(name, {"same": OURS})


def test_the_simulators_declare_their_study() -> None:
    assert find_recipe("ballchain", {}).order > 0
