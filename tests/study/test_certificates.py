"""What only looks stable overflows; what is proven holds, iteration by iteration."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from loopwm.study import certificates
from loopwm.study.certificates import (
    ALONE,
    Course,
    course_sheet,
    courses,
    equation_alone,
    follow,
    proven,
)
from loopwm.study.stability import plot_courses

GATED, RECTIFIED = ALONE
OURS = ("BoundedCell (default)", "BoundedCell, gain 1")
CONTRACTIVE = ("ContractiveCell (default)", "ContractiveCell, gated")


@pytest.fixture(scope="module")
def found() -> dict[str, Course]:
    return courses(2.0, 0, 300)


def test_the_equation_alone_is_equation_five_with_the_weights_of_the_cell():
    (cell, *_), (e, first, _) = certificates._cells(2.0, 3).values(), certificates._given(3)
    weights = {name: each.detach().numpy() for name, each in cell.named_parameters()}
    one, h = e[0].numpy(), first[0].numpy()
    abar = np.exp(-np.exp(weights["log_rate"]) + math.log(0.98))
    pre = weights["from_state"] @ h + weights["from_injection.weight"] @ one
    pre += weights["from_injection.bias"]
    gate, value = np.split(pre, 2)
    for rectified, hidden in (
        (False, gate / (1 + np.exp(-gate)) * value),
        (True, np.maximum(gate, 0)),
    ):
        expected = abar * h + weights["inject.weight"] @ one + weights["leave"] @ hidden
        with torch.no_grad():
            refined = equation_alone(cell, e[:1], rectified)(first[:1])  # type: ignore[arg-type]
        np.testing.assert_allclose(refined[0].numpy(), expected, rtol=1e-12)
    assert abar.max() < 1


def test_a_pair_is_followed_until_it_overflows():
    def double(h: Tensor) -> Tensor:
        return 2 * h

    ones = torch.ones(3, 4, dtype=torch.float64)
    course = follow(double, ones, -ones, 1100)
    # Norms are 2^(t+1); their squares pass the largest float64 at 2^512 times 2^512.
    assert course.norm[:6].tolist() == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    assert course.distance[:3].tolist() == [4.0, 8.0, 16.0]
    assert course.overflow is not None
    assert 500 < course.overflow < 1030
    assert bool(course.norm[course.overflow :].isinf().all())
    assert follow(lambda h: h / 2, ones, -ones, 20).overflow is None


def test_the_equation_alone_overflows_and_our_cells_keep_what_is_proven(found: dict[str, Course]):
    overflow = found[GATED].overflow
    assert overflow is not None
    assert overflow < 20
    assert float(found[RECTIFIED].norm[200]) > 1e40
    for name, proof in proven(2.0, 0).items():
        course, bound, rate = found[name], proof["bound"], proof["rate"]
        assert bound is not None
        assert float(course.norm.max()) <= bound
        assert (rate is None) == (name in OURS)
        if rate is not None:
            steps = torch.arange(len(course.distance), dtype=torch.float64)
            allowed = course.distance[0] * rate**steps + 1e-11
            assert bool((course.distance <= allowed).all())


def test_the_table_has_a_row_for_each_cell_and_says_what_is_proven():
    rows = {row["cell"]: row for row in course_sheet((1.0,), (0, 1), 150).rows}
    assert list(rows) == [*ALONE, *OURS, *CONTRACTIVE]
    assert rows[GATED]["norm"][0] == math.inf
    assert rows[GATED]["bound"] is rows[GATED]["rate"] is None
    for name in (*OURS, *CONTRACTIVE):
        assert rows[name]["overflow"] is None
        assert rows[name]["norm"][2] <= rows[name]["bound"][2]
    for name in CONTRACTIVE:
        assert rows[name]["after_100"][0] <= 16 * rows[name]["rate"][2] ** 100 + 1e-11


def test_lines_of_the_figure_end_where_the_states_do(found: dict[str, Course]):
    figure = plot_courses(found)
    left, right = figure.axes
    for axes in (left, right):
        assert axes.get_yscale() == axes.get_xscale() == "log"
        ends = [int(np.asarray(line.get_xdata())[-1]) for line in axes.lines]
        lost = found[GATED].overflow
        assert lost is not None
        assert ends[0] == lost - 1
        assert ends[2:] == [300, 300]
    written = {text.get_text() for axes in (left, right) for text in axes.texts}
    assert {GATED, RECTIFIED, OURS[0], CONTRACTIVE[0]} == written
