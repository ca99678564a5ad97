"""The tables of docs/results.md by name, each with what recomputes it."""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from loopwm.errors import ConfigError
from loopwm.study.agents import AGENT_STUDIES
from loopwm.study.certificates import certificate
from loopwm.study.compare.conduct import QUESTION, TITLE, compared
from loopwm.study.comparison import (
    costs,
    group_cells,
    medians,
    otherwise,
    over_seeds,
    ratios,
    spreads,
)
from loopwm.study.efficiency import Cell
from loopwm.study.flows import flow
from loopwm.study.gradients import gradients
from loopwm.study.headline import ample, horizon, longer, prediction
from loopwm.study.joint import joint
from loopwm.study.loops import dial, halting
from loopwm.study.plan import Plan, run_plan
from loopwm.study.plans import planning
from loopwm.study.provenance import provenance
from loopwm.study.recipe import (
    DATA,
    HORIZONS,
    RATE,
    UNITS,
    Computed,
    Options,
    Recipe,
    training,
)
from loopwm.study.registry import find_recipe
from loopwm.study.results import Study, save_study
from loopwm.study.speeds import collection, speed


def rerun(name: str, results: Path, options: Options = Options()) -> Study:
    """Recompute one table and write its file; what is finished is not computed again.

    Args:
        name: Name of the study.
        results: Folder of the studies' JSON files.
        options: Where and how.

    Raises:
        ConfigError: If there is no study of that name (the message lists them all), or if it needs
            all of its cells and only the finished ones are asked for.
    """
    recipe = find_recipe(name, RECIPES | _of_reasoners())
    if options.finished and not recipe.partial:
        raise ConfigError(f"{name} needs all of its cells: run it without --finished")
    options = replace(options, figures=options.figures or results.parent / "figures")
    seeds, method, sheets = recipe.compute(options)
    source = provenance(f"loopwm results --rerun {name}{' --finished' * options.finished}", seeds)
    study = Study(name, recipe.title, recipe.question, method, sheets, source, recipe.order)
    save_study(study, results)
    return study


def _of_reasoners() -> dict[str, Recipe]:
    """Return the studies of the reasoner; none where it has been left out."""
    if find_spec("loopwm.reason") is None:
        return {}
    from loopwm.study.reasoner import on_gpu, trainings

    return trainings.RECIPES | on_gpu.RECIPES


def _partial(task: str, options: Options) -> Computed:
    base = Cell(task=task, observation="positions", context=16, batch=64)
    arms = ("looped", "no-carry", "stack", "gru")
    plan = Plan(base, arms=arms, rates=(RATE,), updates=1_500)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    method = (
        "Velocities are removed from the observations. Every model takes in 16 real observations "
        "before it imagines; what it can know of velocities, it knows from those.",
        *(DATA, UNITS, training(plan)),
    )
    sheets = (
        over_seeds(groups, HORIZONS),
        ratios(groups, HORIZONS),
        medians(groups, HORIZONS),
        costs(groups),
    )
    return plan.seeds, method, sheets


def _feedback(task: str, options: Options) -> Computed:
    plan = Plan(Cell(task=task), arms=("looped", "masked", "latent"), rates=(RATE,), updates=2_000)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    by_latent = otherwise(groups, "latent")
    method = (
        "Fed back is each decoded observation, or nothing but the latent state, the observation "
        "hidden. The same models both ways; they differ in what training fed back.",
        *(DATA, UNITS, training(plan)),
    )
    shown = [each for each in groups if each.arm != "latent"]
    sheets = (
        over_seeds(shown, HORIZONS, title="observations fed back"),
        over_seeds(by_latent, HORIZONS, title="latent state carried"),
        medians(shown, HORIZONS, title="observations fed back: median window [quartiles]"),
        medians(by_latent, HORIZONS, title="latent state carried: median window [quartiles]"),
    )
    return plan.seeds, method, sheets


def _uncertainty(task: str, options: Options) -> Computed:
    arms = ("gaussian", "ensemble", "mlp-ensemble")
    plan = Plan(Cell(task=task), arms=arms, rates=(RATE,), updates=1_200)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    method = (
        "NLL is the mean negative log density of a normal with the stated mean and spread, in "
        "standard deviations of the observation; coverage that of its central 90%. The spread "
        "stated is that of one step: beyond the first, coverage says how much it understates.",
        *(DATA, UNITS, training(plan)),
    )
    sheets = (spreads(groups, (1, 5, 15)), over_seeds(groups, HORIZONS), costs(groups))
    return plan.seeds, method, sheets


# Name, heading, question, place on the page, what computes it for a task.
_OF_A_TASK = (
    (
        "prediction",
        "looped against not looped",
        "Does applying the same cell again and again predict better, at what cost?",
        10,
        prediction,
    ),
    (
        "horizon",
        "trained on sixteen steps",
        "Does a loss that looks further ahead change who wins?",
        15,
        horizon,
    ),
    (
        "ample",
        "sixteen steps, four times the data",
        "Who gains from more data?",
        17,
        ample,
    ),
    (
        "longer",
        "twice the updates",
        "Does what looping gains shrink as training goes on?",
        12,
        longer,
    ),
    (
        "partial",
        "without velocities, does the latent state earn its place?",
        "Is what a carried state remembers worth more than a stack of frames?",
        20,
        _partial,
    ),
    (
        "feedback",
        "observations fed back, or the latent state alone",
        "What does it cost to imagine without decoding?",
        25,
        _feedback,
    ),
    (
        "uncertainty",
        "does the stated spread fit the error?",
        "Can one tell from the model when it is wrong?",
        30,
        _uncertainty,
    ),
    (
        "dial",
        "what does a proof cost?",
        "How much accuracy, and how much of the range of iterations, is a proven rate worth?",
        34,
        dial,
    ),
    (
        "halting",
        "does stopping early pay?",
        "Do rows stop where it costs nothing, and does it save time?",
        36,
        halting,
    ),
    (
        "flow",
        "the loop in continuous time",
        "What does solving the loop as a differential equation gain, and what does it cost?",
        32,
        flow,
    ),
    (
        "gradients",
        "how gradients flow through the loop",
        "What do the gradient modes cost in time and memory, and what accuracy do they leave?",
        38,
        gradients,
    ),
    (
        "planning",
        "does the model rank plans as the world does?",
        "Which model chooses well among plans, and how deep must it refine for that?",
        44,
        planning,
    ),
)
RECIPES = {
    f"{name}-{short}": Recipe(
        f"{task}: {heading}",
        question,
        place + order,
        partial(make, task),
        partial=make in (horizon, ample, longer),
    )
    for order, (short, task) in enumerate(
        (("hopper", "Hopper-v5"), ("halfcheetah", "HalfCheetah-v5"))
    )
    for name, heading, question, place, make in _OF_A_TASK
}
RECIPES |= {
    "compare": Recipe(TITLE, QUESTION, 5, compared),
    "bench": Recipe(
        "Speed of imagination", "How many transitions per second, and what limits them?", 40, speed
    ),
    "collection": Recipe(
        "Speed of collection", "How fast is real experience gathered?", 41, collection
    ),
    "joint": Recipe(
        "One core for both domains",
        "Can a world model and a reasoner share a core, and what does either gain or lose?",
        60,
        partial(joint, "Hopper-v5"),
    ),
    "certificates": Recipe(
        "What holds for any number of iterations",
        "Is a retention below one enough for a loop to be stable, and what is proven of ours?",
        42,
        partial(certificate, "Hopper-v5"),
    ),
}
RECIPES |= AGENT_STUDIES
