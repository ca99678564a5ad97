"""What a training left on record is read as it was meant."""

import pytest

from loopwm.study.plateau import left_out, plateau_gain


def test_the_plateau_compares_the_end_with_three_quarters() -> None:
    history = [{"update": u, "validation": v} for u, v in ((25, 4.0), (75, 2.0), (100, 1.9))]
    assert plateau_gain([*history[:1], {"update": 50, "loss": 1.0}, *history[1:]]) == (
        pytest.approx(0.05)
    )
    assert plateau_gain(history[:1]) is None


def test_an_update_that_was_left_out_by_any_is_seen() -> None:
    clean = [{"update": 1, "skipped": 0}, {"update": 1, "validation": 2.0}]
    assert not left_out([clean, clean])
    assert left_out([clean, [*clean, {"update": 2, "skipped": 1}]])
