"""How long a plan takes, on the looped model and on an ensemble of MLPs."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from loopwm.agent.cem import CEM
from loopwm.agent.icem import ICEM
from loopwm.agent.lookahead import Quantile
from loopwm.agent.mppi import MPPI
from loopwm.agent.planner import SequencePlanner
from loopwm.core.halt import Fixed, OutputDelta
from loopwm.data.collect import collect
from loopwm.errors import ConfigError
from loopwm.study.bench import fresh_model
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import Contestant, Timing, race
from loopwm.world.config import MLP, WorldConfig
from loopwm.world.ensemble import Ensemble

# CPU seconds per action of peers with their default settings, measured once on another machine.
_PEERS = {
    "mbrl-lib: PETS, CEM 400 x 30 x 5, 20 particles": 7.5,
    "TD-MPC2 5M: MPPI 512 x 3 x 6": 0.8,
}


@dataclass(frozen=True)
class PlanBench:
    """Say what is timed.

    Attributes:
        task: Gymnasium id; it sets the dimensions.
        candidates: Sequences in each iteration.
        horizon: Steps of each.
        iterations: Iterations of the search.
        loops: Iterations of the loop per step, where they are fixed.
        threads: CPU threads.
        repeats: Timed rounds.
        config: The looped model.

    Raises:
        ConfigError: If a number is below 1.
    """

    task: str = "HalfCheetah-v5"
    candidates: int = 512
    horizon: int = 12
    iterations: int = 3
    loops: int = 4
    threads: int = 2
    repeats: int = 9
    config: WorldConfig = WorldConfig()

    def __post_init__(self) -> None:
        """Check the numbers."""
        names = ("candidates", "horizon", "iterations", "loops", "threads", "repeats")
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"PlanBench.{name} must be at least 1, got {getattr(self, name)}")


def bench_plan(config: PlanBench = PlanBench()) -> Sheet:
    """Time one action of each planner; weights are random.

    Contestants take turns, as in `bench_imagine`. CPU time is what counts on a busy machine: with
    one thread, a plan takes as long on a core of its own.

    Args:
        config: What is timed.

    Returns:
        A table of times, peers' figures below.
    """
    data = collect(config.task, 2048, seed=0, progress=False)
    looped = fresh_model(config.config, data)
    ensemble = Ensemble([fresh_model(MLP(), data, seed) for seed in range(5)])
    fixed, name = Fixed(config.loops), f"looped, {config.loops} iterations"
    obs = data.obs[0].astype(np.float32)
    contestants = [
        _planning(
            config, f"{kind.__name__}, {name}", kind(looped, halt=fixed, **_sizes(config)), obs
        )
        for kind in (CEM, ICEM, MPPI)
    ]
    for label, halt in (
        (f"CEM, looped, {looped.depth.typical} iterations (default)", None),
        ("CEM, looped, each row by OutputDelta", OutputDelta()),
        ("CEM, looped, 90% quantile of OutputDelta", Quantile()),
    ):
        planner = CEM(looped, halt=halt, **_sizes(config))
        contestants.append(_planning(config, label, planner, obs))
    for label, model in (("MLP 4x200", ensemble.members[0]), ("ensemble of 5 MLP 4x200", ensemble)):
        contestants.append(_planning(config, f"CEM, {label}", CEM(model, **_sizes(config)), obs))
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        timings = race(contestants, config.repeats)
    finally:
        torch.set_num_threads(before)
    return _sheet(config, timings)


def _sizes(config: PlanBench) -> dict[str, Any]:
    elites = max(1, config.candidates // 10)
    return {
        "candidates": config.candidates,
        "iterations": config.iterations,
        "elites": elites,
        "horizon": config.horizon,
    }


def _planning(
    config: PlanBench, name: str, planner: SequencePlanner, obs: np.ndarray
) -> Contestant:
    return Contestant(
        name, partial(planner.plan, obs), config.candidates * config.horizon * config.iterations
    )


def _sheet(config: PlanBench, timings: list[Timing]) -> Sheet:
    rows = [
        {
            "what": each.name,
            "wall": _milliseconds(each.wall),
            "cpu": _milliseconds(each.cpu),
        }
        for each in timings
    ]
    rows += [
        {"what": f"{name}, one thread, elsewhere", "cpu": 1e3 * s} for name, s in _PEERS.items()
    ]
    columns = (
        Column("what", "planner"),
        Column("wall", "ms an action [quartiles]"),
        Column("cpu", "CPU ms [quartiles]"),
    )
    title = (
        f"{config.task}: {config.candidates} candidates x {config.horizon} steps x "
        f"{config.iterations} iterations, {config.threads} threads"
    )
    return Sheet(title, columns, tuple(rows))


def _milliseconds(seconds: tuple[float, ...]) -> list[float]:
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75)) * 1e3
    return [float(middle), float(low), float(high)]
