"""Tables of agents that learn: return against real steps, seed by seed, and what it cost."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from loopwm.agent.config import MPC, Algorithm, Dyna
from loopwm.agent.recipes import RECIPES, Recipe, Variant, variant_of
from loopwm.agent.score import Scoring
from loopwm.agent.train import train_agent
from loopwm.errors import ConfigError
from loopwm.files import write_file
from loopwm.stats import bootstrap, iqm
from loopwm.study.cells import finished_cells, run_cells, version
from loopwm.study.comparison import spread
from loopwm.study.curves import curve_of, plot_returns
from loopwm.study.recipe import Computed, Options
from loopwm.study.recipe import Recipe as Table
from loopwm.study.results import Column, Sheet

SEEDS = (0, 1, 2)
POINTS = 8
# What runs returned, by seed, of each variant; runs that were not made are missing.
Found = dict[Variant, dict[int, dict[str, Any]]]
_WORDS: dict[Variant, str] = {
    "looped": "looped model",
    "mlp": "ensemble of MLPs",
    "real": "imagination off",
    "sac": "SAC, default settings",
}


@dataclass(frozen=True)
class AgentCell:
    """Name one run: an environment, a variant of its recipe, a seed.

    Attributes:
        env_id: Gymnasium id with a recipe.
        variant: See `variant_of`.
        seed: Seed of the run.
    """

    env_id: str
    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the run's directory and of its result."""
        settings = version(repr(self.recipe), repr(self.algorithm))
        return f"{self.env_id.lower()}-{self.variant}-seed{self.seed}-{settings}"

    @property
    def recipe(self) -> Recipe:
        """Return the recipe that is followed."""
        return RECIPES[self.env_id]

    @property
    def algorithm(self) -> Algorithm:
        """Return the settings of this variant."""
        return variant_of(self.recipe.algorithm, self.variant)


def agents(env_id: str, variants: Sequence[Variant], options: Options) -> Computed:
    """Run the recipe of an environment and its variants, three seeds each, and tabulate them.

    Args:
        env_id: Gymnasium id with a recipe.
        variants: Which agents stand side by side, the recipe's own first.
        options: Where and how.
    """
    cells = [AgentCell(env_id, variant, seed) for variant in variants for seed in SEEDS]
    folder = options.work / "agent-cells"
    if options.finished:
        done = finished_cells(cells, folder)
    else:
        done = run_cells(cells, folder, _computing(options.work), options.report)
        if len(done) < len(cells):
            raise ConfigError("other processes work on the runs; repeat this when they are done")
    found: Found = {
        variant: {cell.seed: done[cell.name] for cell in cells if _is_of(cell, variant, done)}
        for variant in variants
    }
    if not done:
        raise ConfigError(f"no run of {env_id} is finished yet: leave out --finished")
    recipe = RECIPES[env_id]
    if options.figures is not None:
        _draw(env_id, found, recipe, options.figures)
    return SEEDS, _method(recipe), (_summary(found, recipe), _curves(found))


def _is_of(cell: AgentCell, variant: Variant, done: Mapping[str, Any]) -> bool:
    return cell.variant == variant and cell.name in done


def run_cell(cell: AgentCell, work: Path, progress: bool | None = None) -> dict[str, Any]:
    """Run one cell, or go on with it.

    Args:
        cell: What to run.
        work: Where runs are kept.
        progress: Show a progress bar; by default on a terminal.

    Returns:
        Evaluations, what ended episodes while learning, parameters and CPU seconds.
    """
    recipe = cell.recipe
    agent = train_agent(
        cell.env_id,
        cell.algorithm,
        recipe.steps,
        seed=cell.seed,
        run_dir=work / "agents" / cell.name,
        unclipped=recipe.unclipped,
        scoring=Scoring(recipe.every or max(1, recipe.steps // POINTS), recipe.episodes),
        progress=progress,
    )
    return {
        "history": agent.history,
        "parameters": None if agent.model is None else agent.model.num_parameters,
        "seconds": agent.history[-1]["seconds"],
    }


def first_reached(curve: Sequence[tuple[int, float]], target: float) -> int | None:
    """Return the first real step from which on every evaluation is at the target or above.

    Args:
        curve: Points (real steps, return) in order.
        target: The return.
    """
    reached = None
    for step, value in curve:
        if value < target:
            reached = None
        elif reached is None:
            reached = step
    return reached


def _computing(work: Path) -> Callable[[AgentCell], dict[str, Any]]:
    return lambda cell: run_cell(cell, work)


def _last(results: Sequence[dict[str, Any]]) -> Float[ndarray, "S E"]:
    """Return the returns of the last evaluation of each seed."""
    return np.array([result["history"][-1]["returns"] for result in results])


def _summary(found: Found, recipe: Recipe) -> Sheet:
    rows = [
        _row(variant, found[variant], recipe)
        if found[variant]
        else {"agent": _WORDS[variant], "seeds": "not run"}
        for variant in found
    ]
    columns = (
        Column("agent"),
        Column("mean", f"return after {recipe.steps:,} steps [95%]", 4),
        Column("iqm", "interquartile mean", 4),
        Column("seeds", "seeds"),
        Column("first", f"steps from which on {recipe.target:g} holds"),
        Column("updates", "policy updates per step"),
        Column("parameters", "parameters of the model"),
        Column("hours", "CPU hours [range]"),
    )
    return Sheet("what is reached, and at what cost", columns, tuple(rows))


def _row(variant: Variant, runs: Mapping[int, dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    results = list(runs.values())
    returns = _last(results)
    means = returns.mean(axis=1)
    ends = bootstrap(means)
    curves = [curve_of(result["history"]) for result in results]
    firsts = [first_reached(curve, recipe.target) for curve in curves]
    algorithm = variant_of(recipe.algorithm, variant)
    missing = "".join(f", seed {seed} not run" for seed in SEEDS if seed not in runs)
    return {
        "agent": _WORDS[variant],
        "mean": [float(means.mean()), float(ends.low), float(ends.high)],
        "iqm": iqm(returns.reshape(-1)),
        "seeds": ", ".join(f"{mean:.5g}" for mean in means) + missing,
        "first": ", ".join("never" if first is None else f"{first:,}" for first in firsts),
        "updates": algorithm.learner.updates if isinstance(algorithm, Dyna) else None,
        "parameters": results[0]["parameters"],
        "hours": spread([result["seconds"] / 3600 for result in results]),
    }


def _curves(found: Found) -> Sheet:
    rows = [
        {
            "agent": _WORDS[variant],
            "seed": str(seed),
            **{str(step): value for step, value in curve_of(result["history"])},
        }
        for variant, runs in found.items()
        for seed, result in runs.items()
    ]
    steps = sorted({int(key) for row in rows for key in row if key.isdigit()})
    columns = (Column("agent"), Column("seed"), *(Column(str(k), f"{k:,}", 4) for k in steps))
    return Sheet("mean return of an evaluation, by real steps", columns, tuple(rows))


def _method(recipe: Recipe) -> tuple[str, ...]:
    method = (
        f"{type(recipe.algorithm).__name__}, settings in `loopwm/agent/recipes.py`, chosen on "
        f"seed {recipe.chosen_on}. Every step of the learning environment counts as a real step, "
        "the first random ones too; evaluations are episodes of their own, without exploration, "
        f"which teach nothing: {recipe.episodes} fixed beginnings, the same for all agents and "
        "steps. Intervals resample seeds; those of three hold the true mean in three cases of "
        "four. CPU hours are those of one thread, evaluations included.",
    )
    if isinstance(recipe.algorithm, MPC):
        return method
    others = (
        "Imagination off: the same policy with as many updates, all from real steps. SAC, "
        "default settings: Stable-Baselines3's own settings, one update for each step.",
    )
    return method + others


def _draw(env_id: str, found: Found, recipe: Recipe, folder: Path) -> None:
    """Write the figure, and every evaluated episode as CSV."""
    from loopwm.study.canvas import png

    runs = {
        _WORDS[variant]: [result["history"] for result in runs.values()]
        for variant, runs in found.items()
        if runs
    }
    figure = plot_returns(runs, target=recipe.target, title=f"{env_id}: return against real steps")
    write_file(folder / f"agents-{env_id.lower()}.png", png(figure))
    text = io.StringIO()
    text.write("agent,seed,step,episode,return\n")
    for variant, seeds in found.items():
        for seed, result in seeds.items():
            for record in result["history"]:
                for episode, value in enumerate(record.get("returns", [])):
                    text.write(f"{variant},{seed},{record['step']},{episode},{value!r}\n")
    write_file(folder / f"agents-{env_id.lower()}.csv", text.getvalue().encode())


_DYNA: tuple[Variant, ...] = ("looped", "mlp", "real", "sac")
_MPC: tuple[Variant, ...] = ("looped", "mlp")
AGENT_STUDIES = {
    f"agents-{short}": Table(
        f"{task}: learning in imagination",
        "What return do how many real steps buy, and what part has the model in it?",
        place,
        partial(agents, task, variants),
        partial=True,
    )
    for place, (short, task, variants) in enumerate(
        (
            ("pendulum", "Pendulum-v1", _DYNA),
            ("inverted-pendulum", "InvertedPendulum-v5", _DYNA),
            ("cartpole", "CartPole-v1", _MPC),
            ("reacher", "Reacher-v5", _MPC),
            ("halfcheetah", "HalfCheetah-v5", _DYNA),
            ("hopper", "Hopper-v5", _DYNA),
        ),
        start=50,
    )
}
