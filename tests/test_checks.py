"""The checks of every test find what they are there for, and are made once."""

from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

import loopwm
from loopwm import seed
from loopwm.core.depth import Fixed
from loopwm.core.loop import LoopedCore
from loopwm.data.replay import Windows
from loopwm.world import fit
from tests import checks

# conftest.py has made this the one that remembers.
checked = jaxtyped(typechecker=checks.checked)


@checked
def doubled(rows: Float[Tensor, "B D"], factor: float = 2.0) -> Float[Tensor, "B D"]:
    return rows * factor


@checked
def turned(rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    return rows.T


@checked
def counted(rows: Float[Tensor, "B D"]) -> int:
    return rows.sum()  # pyright: ignore[reportReturnType] - the fault


def nested(whole: bool) -> Callable[..., object]:
    """Return one of two functions of the same name, with other annotations."""
    if whole:

        @checked
        def inner(value: int) -> int:  # pyright: ignore[reportRedeclaration] - tested
            return value
    else:

        @checked
        def inner(value: str) -> str:
            return value

    return inner


def test_arguments_are_checked_before_the_call() -> None:
    assert doubled(torch.ones(2, 3), 3).shape == (2, 3)
    with pytest.raises(TypeCheckError, match="rows"):
        doubled(torch.ones(2))
    with pytest.raises(TypeCheckError, match="factor"):
        doubled(torch.ones(2, 3), "2")  # pyright: ignore[reportArgumentType] - the fault


def test_a_result_is_checked_against_the_sizes_of_the_arguments() -> None:
    assert turned(torch.ones(3, 3)).shape == (3, 3)
    with pytest.raises(TypeCheckError, match="return value"):
        turned(torch.ones(2, 3))
    with pytest.raises(TypeCheckError, match="return value"):
        counted(torch.ones(2, 3))


def test_a_call_like_one_that_passed_is_not_checked_again() -> None:
    looked: list[str] = []

    def counting(probe: Any) -> Any:
        def probed(*args: Any, **kwargs: Any) -> Any:
            looked.append("result" if len(args) + len(kwargs) > 1 else "rows")
            return probe(*args, **kwargs)

        return probed

    @jaxtyped(typechecker=counting)
    def first(rows: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        return rows[:, 0]

    for sizes in [(2, 3), (2, 3), (3, 3), (2, 3)]:
        assert first(torch.ones(sizes)).shape == sizes[:1]
    first(rows=torch.ones(2, 3))
    # Again for another size, and for an argument that is given by its name.
    assert looked == ["rows", "result"] * 3


FAULTS: dict[str, tuple[Any, Any, Any]] = {
    "another type": (float, 1.5, "1.5"),
    "another size": (Float[Tensor, "B 3"], torch.ones(2, 3), torch.ones(2, 4)),
    "another number of axes": (Float[Tensor, "B D"], torch.ones(2, 3), torch.ones(2)),
    "another kind of number": (Float[Tensor, "B"], torch.ones(2), torch.ones(2).long()),
    "an item": (tuple[int, int], (1, 2), (1, "2")),
    "an item of an item": (list[tuple[int, int]], [(1, 2)], [(1, "2")]),
    "a value of a mapping": (dict[str, int], {"a": 1}, {"a": "1"}),
    "an item of another collection": (deque[int], deque([1]), deque(["1"])),
    "a value": (Literal["a"], "a", "b"),
    "a class": (type[int], bool, str),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_differs_from_a_call_that_passed_is_checked(name: str) -> None:
    hint, good, bad = FAULTS[name]

    def same(value: Any) -> Any:
        return value

    same.__annotations__ = {"value": hint, "return": Any}
    function = checked(same)
    for _ in range(3):
        assert function(good) is good
    with pytest.raises(TypeCheckError, match="parameters"):
        function(bad)


def test_a_result_unlike_those_that_passed_is_checked() -> None:
    results: list[Any] = [torch.ones(2), torch.ones(2), torch.ones(2), torch.ones(3), 1]

    @checked
    def following(rows: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        return results.pop(0)

    for _ in range(3):
        assert following(torch.ones(2, 4)).shape == (2,)
    for _ in range(2):
        with pytest.raises(TypeCheckError, match="return value"):
            following(torch.ones(2, 4))
    assert not results


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_functions_of_one_name_with_other_annotations_keep_their_own(order: tuple[bool, bool]):
    for whole in order:
        value, other = (1, "a") if whole else ("a", 1)
        assert nested(whole)(value) == value
        with pytest.raises(TypeCheckError):
            nested(whole)(other)


def test_a_function_that_is_made_again_and_again_is_given_one_check() -> None:
    nested(whole=True)
    before = checks.number_made()
    for _ in range(3):
        nested(whole=True)
    assert checks.number_made() == before


def test_the_library_is_taken_bare_for_a_while_only() -> None:
    wrong: Any = "7"
    before = (LoopedCore.forward, Windows.at, seed.key, Fixed.__init__)
    with pytest.raises(TypeCheckError):
        seed.key(wrong)
    with checks.bare():
        now = (LoopedCore.forward, Windows.at, seed.key, Fixed.__init__)
        assert now == tuple(vars(each)["__wrapped__"] for each in before)
        with pytest.raises(TypeError) as caught:
            seed.key(wrong)
        assert not isinstance(caught.value, TypeCheckError)
    assert (LoopedCore.forward, Windows.at, seed.key, Fixed.__init__) == before
    with pytest.raises(TypeCheckError):
        seed.key(wrong)


def test_names_that_are_imported_meanwhile_are_checked_afterwards(monkeypatch: Any) -> None:
    monkeypatch.delitem(vars(loopwm), "fit", raising=False)
    with checks.bare():
        meanwhile = loopwm.fit
    assert loopwm.fit is fit.fit is not meanwhile
    assert vars(fit.fit)["__wrapped__"] is meanwhile
