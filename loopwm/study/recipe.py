"""What a table of the record is made by, and what all of them say of their method."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopwm.study.arms import arm_of
from loopwm.study.plan import Plan
from loopwm.study.results import Sheet
from loopwm.train.config import OPTIMIZERS

HORIZONS = (1, 15, 50)
UNITS = (
    "Errors are open-loop RMSE after k steps in standard deviations of each observation dimension "
    "in the training set, and (change) in those of its change over k steps, RMS over dimensions; "
    "mean over seeds [lowest, highest], unless stated otherwise. All windows count, diverged ones "
    "too; evaluation clamps nothing. An angle without limit is shown to every model as its sine "
    "and cosine. Every model holds what it feeds back to the range of its training data and a "
    "tenth beyond (`margin`); the table without that is given too."
)
DATA = (
    "The standard mixture: a quarter of the rows each from excitation and from policies early, "
    "middle and late in their training, half of the policy episodes with action noise. Policies "
    "of one training seed make the validation set, on which everything is chosen, policies of "
    "another the test set, and policies of four others the training set."
)

# What looping is held against first: the same cell once, and MLPs of four times the parameters.
HEADLINE = ("looped", "once", "mlp-4x208", "mlp-3x256", "mlp-2x384")
# Of models that are given one rate untried: Hopper's best, where every arm's was bracketed.
RATE = 5e-3
# The best of these shapes by the validation set.
BEST_MLP = {"Hopper-v5": "mlp-4x208", "HalfCheetah-v5": "mlp-4x208"}

# Where trials on the same data (docs/results.md, four steps) chose another rate than that.
CHOSEN_RATES: Mapping[str, Mapping[str, float]] = {
    "Hopper-v5": {},
    "HalfCheetah-v5": dict.fromkeys(
        ("looped", "once", "mlp-4x208", "mlp-3x256", "mlp-ensemble"), 1e-2
    ),
}


# Seeds, paragraphs on the method, tables.
Computed = tuple[Sequence[int], tuple[str, ...], tuple[Sheet, ...]]


@dataclass(frozen=True)
class Options:
    """Say how a table is recomputed.

    Attributes:
        work: Where cells, data and checkpoints are kept between runs.
        threads: CPU threads.
        report: Receives a line about each piece of work begun.
        figures: Where figures go, or None for none.
        finished: Compute nothing: publish what is finished, the rest shown as not run.
    """

    work: Path = Path("runs/study")
    threads: int = 1
    report: Callable[[str], None] = lambda line: None
    figures: Path | None = None
    finished: bool = False


@dataclass(frozen=True)
class Recipe:
    """Name a study and say how it is computed.

    Attributes:
        title: Heading.
        question: What is asked.
        order: Place on the page.
        compute: Returns seeds, method and tables.
        partial: Whether its tables can show some of its cells as not run.
    """

    title: str
    question: str
    order: int
    compute: Callable[[Options], Computed]
    partial: bool = False


def training(plan: Plan) -> str:
    """Say how the models of a plan were trained."""
    rates = ", ".join(f"{rate:g}" for rate in plan.rates)
    own = {arm: rate for arm, rate in plan.own.items() if arm in plan.arms}
    others = [f"{rate:g} for {arm_of(arm).label}" for arm, rate in own.items()]
    chosen = f"learning rate {', '.join([rates, *others])}, not chosen here. "
    if plan.tries:
        chosen = (
            f"learning rates (and the shape of the MLP) chosen among {rates} and further ones, "
            "until the best lies between two others, by whole runs of the first seed and the "
            "geometric mean of their errors after 1 and 15 steps on the validation set. "
        )
    by = type(OPTIMIZERS[plan.base.optimizer]).__name__
    return (
        f"{plan.base.rows:,} transitions, batches of {plan.base.batch} windows, {plan.updates:,} "
        f"updates by {by}, loss over {plan.base.horizon} steps; {chosen}"
        "Gain in the last quarter: by how much the validation error still fell; below 1% is "
        "taken as a plateau."
    )
