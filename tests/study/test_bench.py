"""Timing takes turns and counts what ran; benchmarks name every contestant."""

import contextlib
import time
from typing import Any

import numpy as np
import pytest
import torch

from loopwm.core.halt import Fixed
from loopwm.data.collect import collect
from loopwm.errors import ConfigError
from loopwm.study import bench
from loopwm.study.bench import BenchConfig, bench_imagine, fresh_model, imagining
from loopwm.study.contest import mbrl_ensemble, simulator
from loopwm.study.provenance import commit, machine, provenance
from loopwm.study.timing import Contestant, matmul, race, single_thread
from loopwm.world.config import WorldConfig

TINY = BenchConfig(
    task="Pendulum-v1",
    batch=8,
    horizon=3,
    iterations=2,
    repeats=2,
    compiled=False,
    config=WorldConfig(width=8),
)


def test_contestants_take_turns() -> None:
    order: list[str] = []
    contestants = [Contestant(name, lambda name=name: order.append(name), 1) for name in "ab"]
    timings = race(contestants, repeats=3, warmup=1)
    assert order == ["a", "b"] * 4
    assert [len(each.wall) for each in timings] == [3, 3]


def test_a_rate_is_work_over_time_and_sleep_costs_no_cpu() -> None:
    (timing,) = race([Contestant("nap", lambda: time.sleep(0.02), 10)], repeats=3)
    middle, low, high = timing.rate
    assert low <= middle <= high
    assert middle == pytest.approx(500, rel=0.5)
    assert timing.cpu_rate[0] > 5 * middle
    assert np.isnan(timing.gflops)


def test_the_threads_of_torch_are_given_back() -> None:
    before = torch.get_num_threads()
    inside = 0
    with contextlib.suppress(KeyError), single_thread():
        inside = torch.get_num_threads()
        raise KeyError
    assert inside == 1
    assert torch.get_num_threads() == before


def test_a_product_of_matrices_counts_two_operations_for_each_term() -> None:
    assert matmul(10, torch.float32, "m").flops == 2000


def test_no_round_no_time() -> None:
    with pytest.raises(ConfigError, match="repeats must be at least 1, got 0"):
        race([], repeats=0)


def test_what_is_timed_is_imagination_with_every_head(monkeypatch: pytest.MonkeyPatch) -> None:
    data = collect("Pendulum-v1", 50, seed=0, progress=False)
    model = fresh_model(TINY.config, data)
    calls: list[dict[str, Any]] = []
    whole = model.imagine

    def spy(*given: Any, **options: Any) -> Any:
        calls.append(options)
        return whole(*given, **options)

    monkeypatch.setattr(model, "imagine", spy)
    contestant = imagining(model, data, "looped", TINY)
    contestant.run()
    assert calls == [{"halt": Fixed(2)}] * 2
    assert contestant.amount == 24


def test_the_tables_name_the_contestants_and_grow_over_three_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "MATMUL_SIZE", 32)
    main, *growth = bench_imagine(TINY)
    rates = {row["what"]: row for row in main.rows}
    bare = rates["bare cell: core.refine"]
    assert bare["bare"] == "100%"
    for name in ("looped, 2 iterations", "MLP 4x200", "ensemble of 5 MLP 4x200"):
        assert rates[name]["rate"][0] > 0
        assert rates[name]["share"].endswith("%")
    assert rates["the simulator, Gymnasium"]["share"] is None
    assert "matmul 32, bf16" in rates
    assert [sheet.columns[0].label for sheet in growth] == ["iterations", "batch", "horizon"]
    assert [row["value"] for row in growth[0].rows] == [1, 2, 4, 8, 16]


def test_the_simulator_is_stepped_through_its_resets() -> None:
    data = collect("Hopper-v5", 60, seed=0, progress=False)
    contestant = simulator(data)
    contestant.run()
    assert contestant.amount == 60


def test_a_library_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = collect("Pendulum-v1", 20, seed=0, progress=False)
    monkeypatch.setitem(__import__("sys").modules, "mbrl.models", None)
    assert mbrl_ensemble(data, 4, 2) is None


def test_provenance_says_when_what_and_where(tmp_path: Any) -> None:
    source = provenance("loopwm bench", (0, 1))
    assert source["command"] == "loopwm bench"
    assert source["seeds"] == [0, 1]
    assert {"torch", "mujoco", "numpy"} <= set(source["versions"])
    assert "cores" in machine()
    assert commit(tmp_path) == "unknown"


@pytest.mark.parametrize("name", ["batch", "horizon", "iterations", "repeats"])
def test_a_number_below_one_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"BenchConfig.{name} must be at least 1, got 0"):
        BenchConfig(**{name: 0})  # type: ignore[arg-type]
