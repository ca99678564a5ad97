"""A tiny linear world, terms for it, and results that were made up of known errors."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import loopwm as lw
from loopwm.data.meta import DatasetMeta
from loopwm.data.store import RolloutDataset
from loopwm.study.accuracy import PredictionReport
from loopwm.study.compare.report import MEASURES
from loopwm.study.compare.terms import Terms
from loopwm.study.compare.trial import Scene, Trial, run_bundle

TERMS = Terms(
    sizes=(2_000, 4_000),
    rates=(2e-3, 4e-3),
    seeds=(0, 1),
    horizons=(1, 3),
    fit=lw.FitConfig(updates=3, batch_size=8, horizon=2, progress=False),
    windows=30,
)


def linear_world(seed: int, episodes: int = 8, length: int = 20) -> RolloutDataset:
    """Roll out x' = x + A x + B a."""
    rng = np.random.default_rng(seed)
    drift, push = np.array([[-0.1, 0.2], [-0.2, -0.1]]), np.array([[0.5], [0.2]])
    obs, following, action = [], [], rng.uniform(-1, 1, (episodes * length, 1))
    for start in range(0, episodes * length, length):
        x = rng.normal(size=2)
        for row in range(start, start + length):
            obs.append(x)
            x = x + drift @ x + push @ action[row]
            following.append(x)
    return RolloutDataset.from_arrays(
        obs=np.array(obs),
        next_obs=np.array(following),
        action=action,
        reward=action[:, 0],
        terminated=np.zeros(len(obs), bool),
        episode=np.repeat(np.arange(episodes), length),
        meta=DatasetMeta(env_id="linear", action_low=(-1.0,), action_high=(1.0,), dt=0.1),
    )


def result(
    trial: Trial,
    error: float,
    *,
    audit: dict[str, Any] | None = None,
    shifted: float | None = None,
) -> dict[str, Any]:
    """Make the result of a trial whose error is the same in every window of ten episodes."""
    report = made_report(trial.arm, error)
    cost: dict[str, float] = {name: float(trial.width) for name in MEASURES}
    cost |= {"flops": 10.0 * trial.width, "training_flops": 1e3 * trial.width}
    beyond = {} if shifted is None else {"shifted": made_report(trial.arm, shifted)}
    return {
        **{"trial": asdict(trial), "label": trial.arm, "members": 1, "validation": error},
        **{"seconds": 1.0, "plateau": 0.001, "report": report, "audit": audit or {"x": 1}},
        **{"repeated_parameters": 0.5 * trial.width, **cost, **beyond},
    }


def made_report(name: str, error: float) -> dict[str, Any]:
    """Make a report of an error one step ahead, twice that three ahead, alike in ten episodes."""
    single = ("rmse_change", "median", "reward", "diverged", "iterations", "settled")
    double = ("interval", "interval_change", "quartiles", "dimensions")
    values: dict[str, Any] = {name: {1: 0.0, 3: 0.0} for name in single}
    values |= {name: {1: (0.0, 0.0), 3: (0.0, 0.0)} for name in double}
    values |= {"name": name, "horizons": (1, 3), "dt": None, "windows": {1: 50, 3: 50}}
    values |= {"episodes": {1: 10, 3: 10}, "rmse": {1: error, 3: 2 * error}}
    squares = {k: 5 * each**2 for k, each in values["rmse"].items()}
    values["by_episode"] = {
        k: tuple((e, 5, each) for e in range(10)) for k, each in squares.items()
    }
    return PredictionReport(**values).to_dict()


def trials(arm: str, sizes: tuple[int, ...], seeds: tuple[int, ...] = (0, 1, 2)) -> list[Trial]:
    return [Trial("", arm, 0, n, n, 1e-3, seed, 10, "0") for n in sizes for seed in seeds]


def run_trial(trial: Trial, scene: Scene, folder: Path | None = None) -> dict[str, Any]:
    """Train and measure one model."""
    return dict(run_bundle([trial], scene, folder))[trial.name]
