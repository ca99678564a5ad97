"""How fast a model imagines, beside its bare loop, the MLP, the simulator and the machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from loopwm.core import count
from loopwm.core.halt import Fixed
from loopwm.data.collect import collect
from loopwm.data.normalise import Statistics
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError
from loopwm.study.contest import mbrl_ensemble, simulator
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import Contestant, Timing, matmul, race, single_thread
from loopwm.world import rollout
from loopwm.world.build import build
from loopwm.world.config import MLP, ModelConfig, WorldConfig
from loopwm.world.ensemble import Ensemble
from loopwm.world.model import WorldModel

MATMUL_SIZE = 1024


@dataclass(frozen=True)
class BenchConfig:
    """Say what is timed.

    Attributes:
        task: Gymnasium id; it sets the dimensions and is stepped as the simulator.
        batch: Trajectories imagined at once.
        horizon: Steps of each.
        iterations: Iterations of the loop per step.
        repeats: Timed rounds.
        compiled: Whether to time `torch.compile` too, which takes minutes and a C++ compiler.
        growth: Whether to time how the rate grows with iterations, batch and horizon.
        config: The looped model.

    Raises:
        ConfigError: If a number is below 1.
    """

    task: str = "HalfCheetah-v5"
    batch: int = 1024
    horizon: int = 15
    iterations: int = 4
    repeats: int = 9
    compiled: bool = True
    growth: bool = True
    config: WorldConfig = WorldConfig()

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("batch", "horizon", "iterations", "repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"BenchConfig.{name} must be at least 1, got {getattr(self, name)}"
                )


def bench_imagine(config: BenchConfig = BenchConfig()) -> list[Sheet]:
    """Time imagination on one CPU thread, all heads decoded; weights are random.

    Contestants take turns, round after round, so that a busy machine slows all of them alike;
    rates per CPU second are what a core to itself would give.

    Args:
        config: What is timed.

    Returns:
        Tables of rates, and of how they grow with iterations, batch and horizon.
    """
    data = collect(config.task, max(2048, config.batch), seed=0, progress=False)
    with single_thread(), torch.no_grad():
        sheets = [_main_sheet(config, data)]
        if config.growth:
            sheets += _growth_sheets(config, data)
    return sheets


def fresh_model(config: ModelConfig, data: RolloutDataset, seed: int = 0) -> WorldModel:
    """Build a model with random weights, ready for inference."""
    model = build(config, data.meta, Statistics.of(data), seed)
    return model.eval().requires_grad_(False)


def imagining(
    model: WorldModel | Ensemble, data: RolloutDataset, name: str, config: BenchConfig
) -> Contestant:
    """Make `model.imagine` from real observations a contestant.

    Args:
        model: What imagines.
        data: Real transitions, from which the first observations and the actions are drawn.
        name: What the row of the table is called.
        config: Batch, horizon and iterations.
    """
    obs, actions = _inputs(data, config)

    def run() -> object:
        return model.imagine(obs, actions, halt=Fixed(config.iterations))

    return Contestant(name, run, config.batch * config.horizon, count.matmul_flops(run))


def bare_cell(model: WorldModel, config: BenchConfig) -> Contestant:
    """Make the same number of refinements a contestant, with nothing around them."""
    h, e = _latents(model, config.batch)

    def run() -> Tensor:
        state = h
        for _ in range(config.horizon * config.iterations):
            state = model.core.refine(state, e)
        return state

    return Contestant("bare cell: core.refine", run, config.batch * config.horizon, _flops(run))


def bare_loop(model: WorldModel, config: BenchConfig) -> Contestant:
    """Make the core alone a contestant: what depends on the injection is computed once a step."""
    h, e = _latents(model, config.batch)

    def run() -> Tensor:
        state = h
        for _ in range(config.horizon):
            state = model.core((state,), e, config.iterations).state[0]
        return state

    return Contestant("bare loop: core", run, config.batch * config.horizon, _flops(run))


def compiled_imagine(
    model: WorldModel, data: RolloutDataset, name: str, config: BenchConfig
) -> Contestant:
    """Make imagination compiled as a whole a contestant; its first run compiles.

    Args:
        model: What imagines.
        data: Real transitions, from which the first observations and the actions are drawn.
        name: What the row of the table is called.
        config: Batch, horizon and iterations.
    """
    obs, actions = _inputs(data, config)
    plan = model.plan(Fixed(config.iterations))

    def unrolled(state: tuple[Tensor, ...], scaled: Tensor) -> tuple[Tensor, ...]:
        seen, _ = rollout.unroll(model, state, scaled, plan, "observation")
        return seen.obs, seen.reward, seen.terminated

    compiled: Callable[..., Any] = torch.compile(unrolled, dynamic=False)

    def run() -> object:
        return compiled(model.start(obs), model.normaliser.action(actions))

    eager = partial(model.imagine, obs, actions, halt=Fixed(config.iterations))
    return Contestant(name, run, config.batch * config.horizon, count.matmul_flops(eager))


def _main_sheet(config: BenchConfig, data: RolloutDataset) -> Sheet:
    model = fresh_model(config.config, data)
    half = fresh_model(config.config, data).to(torch.bfloat16)
    ensemble = Ensemble([fresh_model(MLP(), data, seed) for seed in range(5)])
    contestants = [
        imagining(model, data, f"looped, {config.iterations} iterations", config),
        bare_cell(model, config),
        bare_loop(model, config),
        imagining(half, data, f"looped, {config.iterations} iterations, bf16", config),
        imagining(fresh_model(MLP(), data), data, "MLP 4x200", config),
        imagining(ensemble, data, "ensemble of 5 MLP 4x200", config),
        simulator(data),
        matmul(MATMUL_SIZE, torch.float32, f"matmul {MATMUL_SIZE}, fp32"),
        matmul(MATMUL_SIZE, torch.bfloat16, f"matmul {MATMUL_SIZE}, bf16"),
    ]
    foreign = mbrl_ensemble(data, config.batch, config.horizon)
    contestants += [] if foreign is None else [foreign]
    if config.compiled:
        name = f"looped, {config.iterations} iterations, compiled"
        contestants.append(compiled_imagine(model, data, name, config))
    return _rates(config, race(contestants, config.repeats))


def _rates(config: BenchConfig, timings: Sequence[Timing]) -> Sheet:
    bare = next(each for each in timings if each.name.startswith("bare cell"))
    loop = next(each for each in timings if each.name.startswith("bare loop"))
    machine = {each.name[-4:]: each.gflops for each in timings if each.name.startswith("matmul")}
    rows = []
    for each in timings:
        if each.name.startswith("matmul"):
            rows.append({"what": each.name, "gflops": each.gflops})
            continue
        peak = machine["bf16" if "bf16" in each.name else "fp32"]
        rows.append(
            {
                "what": each.name,
                "rate": each.rate,
                "cpu": each.cpu_rate,
                "bare": f"{100 * each.cpu_rate[0] / bare.cpu_rate[0]:.0f}%",
                "loop": f"{100 * each.cpu_rate[0] / loop.cpu_rate[0]:.0f}%",
                "gflops": each.gflops,
                "share": f"{100 * each.gflops / peak:.0f}%" if each.flops == each.flops else None,
            }
        )
    columns = (
        Column("what", "what"),
        Column("rate", "transitions/s [quartiles]"),
        Column("cpu", "per CPU second [quartiles]"),
        Column("bare", "of the bare cell"),
        Column("loop", "of the bare loop"),
        Column("gflops", "GFLOP/s"),
        Column("share", "of the matmul rate"),
    )
    title = f"{config.task}, batch {config.batch}, horizon {config.horizon}, one CPU thread"
    return Sheet(title, columns, tuple(rows))


def _growth_sheets(config: BenchConfig, data: RolloutDataset) -> list[Sheet]:
    series = {
        "iterations": (1, 2, 4, 8, 16),
        "batch": tuple(b for b in (1, 16, 64, 256, 1024, 4096) if b <= 4 * config.batch),
        "horizon": (1, 5, 15, 50),
    }
    sheets = []
    for name, values in series.items():
        contestants = [_varied(config, data, name, value) for value in values]
        timings = race(contestants, max(3, config.repeats // 2))
        rows = tuple(
            {"value": value, "rate": each.rate, "cpu": each.cpu_rate, "gflops": each.gflops}
            for value, each in zip(values, timings, strict=True)
        )
        columns = (
            Column("value", name),
            Column("rate", "transitions/s [quartiles]"),
            Column("cpu", "per CPU second [quartiles]"),
            Column("gflops", "GFLOP/s"),
        )
        sheets.append(Sheet(f"growth with {name}", columns, rows))
    return sheets


def _varied(config: BenchConfig, data: RolloutDataset, name: str, value: int) -> Contestant:
    changed = replace(config, **{name: value})
    return imagining(fresh_model(config.config, data), data, f"{name} {value}", changed)


def _inputs(data: RolloutDataset, config: BenchConfig) -> tuple[Tensor, Tensor]:
    rows = torch.arange(config.batch) % len(data)
    steps = (rows[:, None] + torch.arange(config.horizon)) % len(data)
    obs = torch.as_tensor(data.obs)[rows].float()
    actions = torch.as_tensor(data.action)[steps]
    return obs, actions.float() if actions.is_floating_point() else actions


def _latents(model: WorldModel, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    width = model.dynamics.width
    h, e = (torch.randn(batch, 1, width, generator=generator) for _ in range(2))
    return h, e


def _flops(run: Callable[[], object]) -> float:
    return float(count.matmul_flops(run))
