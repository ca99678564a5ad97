"""The tables of docs/results.md by name, each with what recomputes it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from loopwm.errors import ConfigError
from loopwm.files import write_file
from loopwm.study.comparison import (
    Group,
    costs,
    group_cells,
    heads,
    medians,
    otherwise,
    over_seeds,
    ratios,
    spreads,
)
from loopwm.study.datasets import Experience, study_data
from loopwm.study.efficiency import Cell
from loopwm.study.plan import Plan, run_plan
from loopwm.study.provenance import provenance
from loopwm.study.recipe import Computed, Options, Recipe
from loopwm.study.results import Study, save_study

HORIZONS = (1, 15, 50)
_PARTS = ("excitation", "early", "middle", "late")
_UNITS = (
    "Errors are open-loop RMSE after k steps in standard deviations of each observation dimension "
    "in the training set, and (change) in those of its change over k steps, RMS over dimensions; "
    "mean over seeds [lowest, highest]. All windows count, diverged ones too; evaluation clamps "
    "nothing. An angle without limit is shown to every model as its sine and cosine. Every model "
    "holds what it feeds back to the range of its training data and a tenth "
    "beyond (`margin`); the table without that is given too."
)
_DATA = (
    "The standard mixture: a quarter of the rows each from excitation and from policies early, "
    "middle and late in their training, half of the policy episodes with action noise. Policies "
    "of one training seed make the validation set, on which everything is chosen, policies of "
    "another the test set, and policies of four others the training set."
)

# What looping is held against first: the same cell once, and MLPs of four times the parameters.
_HEADLINE = ("looped", "once", "mlp-4x208", "mlp-3x256", "mlp-2x384")

# From free to proven: bounded, contractive at falling rates, and what may win back what is lost.
DIAL = (
    *("looped", "contractive-0.99", "contractive-0.95", "contractive-0.8"),
    *("contractive-gated", "contractive-wide", "settling"),
)

_FREE = "all parts, imagination held to no range"


def rerun(name: str, results: Path, options: Options = Options()) -> Study:
    """Recompute one table and write its file; what is finished is not computed again.

    Args:
        name: Name of the study.
        results: Folder of the studies' JSON files.
        options: Where and how.

    Raises:
        ConfigError: If there is no study of that name; the message lists them.
    """
    if name not in RECIPES:
        raise ConfigError(f"name must be one of {', '.join(RECIPES)}, got {name!r}")
    recipe = RECIPES[name]
    options = replace(options, figures=options.figures or results.parent / "figures")
    seeds, method, sheets = recipe.compute(options)
    source = provenance(f"loopwm results --rerun {name}", seeds)
    study = Study(name, recipe.title, recipe.question, method, sheets, source, recipe.order)
    save_study(study, results)
    return study


def _prediction(task: str, options: Options) -> Computed:
    plan = Plan(Cell(task=task), arms=_HEADLINE)
    tried, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    sheets = [over_seeds(groups, HORIZONS), ratios(groups, HORIZONS)]
    sheets += [medians(groups, HORIZONS), costs(groups, tried), heads(groups, HORIZONS)]
    sheets += [over_seeds(otherwise(groups, "free"), HORIZONS, title=_FREE)]
    sheets += [over_seeds(groups, HORIZONS, part) for part in _PARTS]
    if options.figures is not None:
        _draw(task, groups, options.figures)
    return plan.seeds, (_DATA, _UNITS, _training(plan)), tuple(sheets)


def _draw(task: str, groups: Sequence[Group], folder: Path) -> None:
    """Draw error against horizon, the first seed of each arm."""
    from loopwm.study.canvas import png
    from loopwm.study.plot import plot_error

    first = {group.label: group.reports[0] for group in groups}
    figure = plot_error(first, title=f"{task}: open-loop error, first seed")
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / f"{task.lower()}.png", png(figure))


def _partial(task: str, options: Options) -> Computed:
    base = Cell(task=task, observation="positions", context=16, batch=64)
    arms = ("looped", "no-carry", "stack", "gru")
    plan = Plan(base, arms=arms, rates=(4e-3,), updates=1_500)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    method = (
        "Velocities are removed from the observations. Every model takes in 16 real observations "
        "before it imagines; what it can know of velocities, it knows from those.",
        *(_DATA, _UNITS, _training(plan)),
    )
    sheets = (
        over_seeds(groups, HORIZONS),
        ratios(groups, HORIZONS),
        medians(groups, HORIZONS),
        costs(groups),
    )
    return plan.seeds, method, sheets


def _feedback(task: str, options: Options) -> Computed:
    plan = Plan(Cell(task=task), arms=("looped", "masked", "latent"), rates=(4e-3,), updates=2_000)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    by_latent = otherwise(groups, "latent")
    method = (
        "Fed back is each decoded observation, or nothing but the latent state, the observation "
        "hidden. The same models both ways; they differ in what training fed back.",
        *(_DATA, _UNITS, _training(plan)),
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
    plan = Plan(Cell(task=task), arms=arms, rates=(4e-3,), updates=1_200)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    method = (
        "NLL is the mean negative log density of a normal with the stated mean and spread, in "
        "standard deviations of the observation; coverage that of its central 90%. The spread "
        "stated is that of one step: beyond the first, coverage says how much it understates.",
        *(_DATA, _UNITS, _training(plan)),
    )
    sheets = (spreads(groups, (1, 5, 15)), over_seeds(groups, HORIZONS), costs(groups))
    return plan.seeds, method, sheets


def _dial(task: str, options: Options) -> Computed:
    from loopwm.study.loops import certificates, models_of, ranges

    plan = Plan(Cell(task=task), arms=DIAL, rates=(4e-3,), updates=2_000)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    groups = group_cells(finals)
    models = {group.label: models_of(group, options.work) for group in groups}
    test = study_data(Experience(task), options.work / "data").test
    method = (
        "The default cell bounds the state and proves no rate. Contractive cells prove that one "
        "iteration brings any two states closer by the rate, whatever the weights; the closer to "
        "1, the freer. Everything else is the same.",
        *(_DATA, _UNITS, _training(plan)),
    )
    sheets = (over_seeds(groups, HORIZONS), ratios(groups, HORIZONS), medians(groups, HORIZONS))
    sheets += (certificates(models, test), ranges(models, test), costs(groups))
    return plan.seeds, method, sheets


def _halting(task: str, options: Options) -> Computed:
    from loopwm.study.calibrate import calibrate
    from loopwm.study.halting import equal_depth, outcome_sheet, outcomes, speed_sheet
    from loopwm.study.loops import models_of

    plan = Plan(Cell(task=task), arms=_HEADLINE)
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    looped = next(group for group in group_cells(finals) if group.arm == "looped")
    models = models_of(looped, options.work)
    data = study_data(Experience(task), options.work / "data")
    found = []
    for seed, model in enumerate(models):
        options.report(f"seed {seed}: rules and controls")
        found.append(outcomes(model, data))
    options.report("seconds")
    equal = equal_depth(found[0], models[0].depth.typical)
    speed = speed_sheet(models[0], data.test, calibrate(models[0], data.valid), equal)
    method = (
        "The looped models of the first table. Tolerances are calibrated on validation episodes "
        "for a loss of at most 1% at k = 1 and 15; errors are those of the test set. Random: "
        "OutputDelta's numbers of iterations dealt to other rows at each step. Oracle: the least "
        "error that any choice of depths with OutputDelta's mean reaches, knowing the truth.",
        "Seconds: imagining 15 steps on one thread, contestants in turns, first seed; equal error "
        "is the fewest fixed iterations within 1% of the rule at both horizons.",
    )
    return plan.seeds, method, (outcome_sheet(found), speed)


def _speed(options: Options) -> Computed:
    from loopwm.study.bench import BenchConfig, bench_imagine

    config = BenchConfig()
    options.report("imagination: a few minutes, most of them for torch.compile")
    method = (
        "Contestants take turns, so that a busy machine slows all of them alike; rates per CPU "
        "second are what a core to itself would give. All heads are decoded; weights are random.",
        "The bare cell is `core.refine` alone, as often as imagination applies it; the bare loop "
        "computes what depends on the injection once a step, as imagination does.",
    )
    return (), method, tuple(bench_imagine(config))


def _collection(options: Options) -> Computed:
    from loopwm.study.collection import collection_sheet

    method = (
        "Uniform actions drawn beforehand, one process, the tasks that the fast path takes. The "
        "same rows by SyncVectorEnv: stepped, checked and made a dataset like those of `collect`. "
        "Keeping nothing: SyncVectorEnv is stepped and what it returns is dropped. The three take "
        "turns.",
    )
    return (), method, (collection_sheet(options.report),)


def _training(plan: Plan) -> str:
    rates = ", ".join(f"{rate:g}" for rate in plan.rates)
    chosen = f"learning rate {rates} for all. "
    if plan.tries:
        chosen = (
            f"learning rates (and the shape of the MLP) chosen among {rates} and further ones, "
            "until the best lies between two others, by whole runs of the first seed and the "
            "geometric mean of their errors after 1 and 15 steps on the validation set. "
        )
    return (
        f"{plan.base.rows:,} transitions, batches of {plan.base.batch} windows, {plan.updates:,} "
        f"updates, loss over {plan.base.horizon} steps; {chosen}"
        "Gain in the last quarter: by how much the validation error still fell; below 1% is "
        "taken as a plateau."
    )


# Name, heading, question, place on the page, what computes it for a task.
_OF_A_TASK = (
    (
        "prediction",
        "looped against not looped",
        "Does applying the same cell again and again predict better, at what cost?",
        10,
        _prediction,
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
        _dial,
    ),
    (
        "halting",
        "does stopping early pay?",
        "Do rows stop where it costs nothing, and does it save time?",
        36,
        _halting,
    ),
)
RECIPES = {
    f"{name}-{short}": Recipe(f"{task}: {heading}", question, place + order, partial(make, task))
    for order, (short, task) in enumerate(
        (("hopper", "Hopper-v5"), ("halfcheetah", "HalfCheetah-v5"))
    )
    for name, heading, question, place, make in _OF_A_TASK
} | {
    "bench": Recipe(
        "Speed of imagination", "How many transitions per second, and what limits them?", 40, _speed
    ),
    "collection": Recipe(
        "Speed of collection", "How fast is real experience gathered?", 41, _collection
    ),
}
