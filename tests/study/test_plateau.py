"""What a training left on record is read as it was meant."""

import pytest

from loopwm.study.plateau import left_out, plateau_gain


def test_the_plateau_compares_the_end_with_three_quarters() -> None:
    errors = (9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 2.0, 1.9)
    updates = (5, 10, 15, 20, 25, 50, 75, 100)
    history = [{"update": u, "validation": v} for u, v in zip(updates, errors, strict=True)]
    assert plateau_gain([*history[:1], {"update": 7, "loss": 1.0}, *history[1:]]) == (
        pytest.approx(0.05)
    )


def test_a_training_of_few_validations_tells_no_plateau() -> None:
    flat = [{"update": update, "validation": 1.0} for update in range(1, 8)]
    assert plateau_gain(flat) is None
    assert plateau_gain([*flat, {"update": 8, "validation": 1.0}]) == 0


def test_an_update_that_was_left_out_by_any_is_seen() -> None:
    clean = [{"update": 1, "skipped": 0}, {"update": 1, "validation": 2.0}]
    assert not left_out([clean, clean])
    assert left_out([clean, [*clean, {"update": 2, "skipped": 1}]])
