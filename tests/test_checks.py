"""The checks of every test find what they are there for, and are made once."""

from collections.abc import Callable
from typing import Any

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
