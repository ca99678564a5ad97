"""Figures show the numbers they were given, labelled, without pyplot or a window system."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loopwm.errors import ConfigError
from loopwm.study.canvas import make_figure, png, spread
from loopwm.study.episode import imagine_episode, predict_episode
from loopwm.study.openloop import Imagination
from loopwm.study.plot import plot_episode, plot_error, plot_iterations, plot_learning
from loopwm.study.prediction import evaluate
from loopwm.study.windows import Sampling

pytest.importorskip("matplotlib")

FEW = Sampling(max_windows=50, ceiling_windows=0)


@pytest.fixture(scope="module")
def reports(world: Any) -> dict[str, Any]:
    return {
        name: evaluate(world.model(bias), world.test, (1, 5), sampling=FEW)
        for name, bias in (("good", 0.01), ("bad", 0.1))
    }


def words(figure: Any) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def is_drawn(figure: Any) -> bool:
    data = png(figure, dpi=40)
    return data.startswith(b"\x89PNG") and len(data) > 2000


@pytest.mark.parametrize("unit", ["obs", "change"])
def test_errors_are_drawn_at_their_horizons_and_every_line_is_named(
    reports: dict[str, Any], unit: str
) -> None:
    figure = plot_error(reports, unit=unit, title="errors")
    lines = figure.axes[0].get_lines()
    rmse = reports["good"].rmse if unit == "obs" else reports["good"].rmse_change
    assert np.array_equal(lines[0].get_xdata(), [1, 5])
    np.testing.assert_allclose(np.asarray(lines[0].get_ydata()), [rmse[1], rmse[5]])
    assert words(figure) == {"good", "bad", "copy last", "linear"}
    assert is_drawn(figure)


def test_an_infinite_error_is_left_out_of_the_line(reports: dict[str, Any]) -> None:
    broken = replace(reports["good"], rmse={1: 0.1, 5: float("inf")}, references={})
    figure = plot_error({"broken": broken})
    assert np.array_equal(figure.axes[0].get_lines()[0].get_xdata(), [1])
    # What a line leaves out, its name says.
    assert words(figure) == {"broken (infinite from 5 steps on)"}


def test_a_model_that_is_infinite_everywhere_is_named_all_the_same(reports: dict[str, Any]) -> None:
    lost = replace(reports["good"], rmse=dict.fromkeys((1, 5), float("inf")), references={})
    alone = plot_error({"lost": lost})
    assert words(alone) == {"lost (infinite from 1 steps on)", "no finite error"}
    assert is_drawn(alone)
    beside = plot_error({"good": replace(reports["good"], references={}), "lost": lost})
    assert words(beside) == {"good", "lost (infinite from 1 steps on)"}


def test_one_horizon_is_drawn_as_points_with_their_intervals(world: Any) -> None:
    report = evaluate(world.model(0.1), world.test, (5,), sampling=FEW)
    axes = plot_error({"model": report}).axes[0]
    assert len(axes.get_lines()) == 3
    assert all(line.get_marker() == "o" for line in axes.get_lines())
    drawn: Any = axes.collections
    (interval,) = [each.get_segments()[0][:, 1] for each in drawn]
    np.testing.assert_allclose(interval, report.interval[5])
    single = predict_episode(world.model(), world.test, 0, 1)
    assert plot_iterations(single).axes[1].get_lines()[0].get_marker() == "o"


def test_dollars_in_names_are_dollars(reports: dict[str, Any]) -> None:
    assert is_drawn(plot_error({r"v$\foo$": reports["good"]}, title=r"$\foo$"))


def test_no_report_no_figure() -> None:
    with pytest.raises(ConfigError, match="at least one report"):
        plot_error({})


def test_every_dimension_has_its_panel_with_both_motions(world: Any) -> None:
    how = Imagination(context=4)
    episode = imagine_episode(world.model(0.02), world.test, 47, 25, how)
    figure = plot_episode(episode, columns=2)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 3
    for index, axes in enumerate(panels):
        real, imagined = axes.get_lines()
        np.testing.assert_allclose(np.asarray(real.get_ydata()), episode.real[:, index])
        np.testing.assert_allclose(np.asarray(imagined.get_ydata()), episode.imagined[3:, index])
    assert is_drawn(figure)


def test_iterations_are_drawn_as_counted_and_unsettled_steps_named(world: Any) -> None:
    episode = predict_episode(world.model(), world.test, 47, 10)
    counts = np.arange(1, 11)
    late = replace(episode, iterations=counts, settled=counts < 8)
    figure = plot_iterations(late)
    bars: Any = figure.axes[0].patches
    heights = [bar.get_height() for bar in bars]
    assert heights[:10] == counts.tolist()
    assert heights[10:] == [8, 9, 10]
    assert "not settled" in words(figure)
    assert is_drawn(figure)


def test_learning_curves_skip_records_without_the_metric() -> None:
    records = [
        {"update": 1, "validation": 1.0},
        {"update": 2},
        {"update": 3, "validation": None},
        {"update": 4, "validation": 0.5},
    ]
    figure = plot_learning({"one": records, "none": []})
    (line,) = figure.axes[0].get_lines()
    assert np.array_equal(line.get_xdata(), [1, 4])
    assert is_drawn(figure)


def test_labels_are_moved_apart_and_no_further_than_needed() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = rng.random(6).tolist()
        moved = spread(places, 0.1)
        order = np.argsort(places)
        gaps = np.diff(np.array(moved)[order])
        assert gaps.min() >= 0.1 - 1e-9
        assert np.mean(moved) == pytest.approx(np.mean(places))
    assert spread([0.1, 0.5, 0.9], 0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


def test_drawing_leaves_matplotlibs_global_state_alone() -> None:
    code = (
        "import sys; from loopwm.study.canvas import make_figure, png, dress\n"
        "figure = make_figure(); dress(figure.add_subplot()); png(figure, dpi=40)\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_figures_have_the_size_asked_for() -> None:
    assert make_figure(3.0, 2.0).get_size_inches().tolist() == [3.0, 2.0]
