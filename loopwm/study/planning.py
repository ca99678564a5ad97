"""Whether a model ranks plans as the world does: `lw.evaluate_planning`."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from rich.console import Console

from loopwm.agent.lookahead import Lookahead, Quantile, discounted, imagined, with_fixed_depth
from loopwm.core.halt import Fixed, OutputDelta, StopRule
from loopwm.data.store import RolloutDataset
from loopwm.stats import bootstrap
from loopwm.study.candidates import Candidates, Trial, simulated_candidates
from loopwm.study.prediction import name_of
from loopwm.study.results import Column, Sheet, rich_table
from loopwm.study.score import spearman

if TYPE_CHECKING:
    from loopwm.world.protocol import WorldModelLike

# Predicted probability of having ended from which on a candidate counts as ending.
ENDS = 0.5

Ends = tuple[float, float, float]


@dataclass(frozen=True)
class PlanningReport:
    """Hold how well a model chooses among candidate plans; triples are (value, low, high).

    Intervals are 95% bootstrap ones over episodes. A quantity that is not defined, such as the
    recall of ends where nothing ends, is NaN.

    Attributes:
        name: What was evaluated.
        states: Number of held-out states.
        episodes: Number of episodes that they come from.
        candidates: Sequences scored at each state.
        horizon: Steps of each.
        rank_correlation: Spearman's correlation of predicted and true returns over the candidates
            of a state, mean over states.
        regret: What the candidate of the largest predicted return falls short of the truly best,
            over what a candidate drawn at random does: 0 is perfect, 1 is chance.
        shortfall: The same in units of the return, mean over states.
        recall: Share of the candidates that truly end the episode which the model says end it.
        false_alarm: Share of those that do not end it which the model says end it.
        ends: Number of candidates that truly end the episode.
        iterations: Mean iterations of the loop per imagined step.
        cpu_ms: Processor time to score the candidates of one state, in milliseconds.
        diverged: Share of candidates left out, as the simulator diverged under them.
    """

    name: str
    states: int
    episodes: int
    candidates: int
    horizon: int
    rank_correlation: Ends
    regret: Ends
    shortfall: Ends
    recall: Ends
    false_alarm: Ends
    ends: int
    iterations: float
    cpu_ms: float
    diverged: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values; what is not defined is None."""
        return {name: _jsonable(value) for name, value in asdict(self).items()}

    def to_json(self) -> str:
        """Return the numbers as a JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def __str__(self) -> str:
        """Lay the numbers out as a table."""
        file = StringIO()
        Console(file=file, width=150, color_system=None).print(
            rich_table(planning_sheet({self.name: self}))
        )
        return file.getvalue()


def evaluate_planning(
    model: "WorldModelLike",
    data: RolloutDataset | Candidates,
    trial: Trial = Trial(),
    *,
    halt: Fixed | StopRule | Quantile | None = None,
    feedback: Any = None,
) -> PlanningReport:
    """Score candidate plans at held-out states by the model and by the true simulator.

    Args:
        model: Anything with the verbs start, observe and step.
        data: Held-out experience of a MuJoCo task that can be restarted from its observations; or
            what `simulated_candidates` returned for it, which spares several models the
            simulation.
        trial: How many states and candidates, how long; not used if `data` are candidates.
        halt: How far the loop refines, as in planners; None for the model's default.
        feedback: "observation" or "latent"; None for the model's default.

    Returns:
        The report; print it for a table.

    Raises:
        DataError: If no episode is as long as the horizon.
        EnvironmentUnsupported: If the simulator cannot be set to an observation.
    """
    given = data if isinstance(data, Candidates) else simulated_candidates(data, trial)
    look = Lookahead(given.trial.horizon, given.trial.discount, halt=halt, feedback=feedback)
    clock = time.process_time()
    scored = [_scored(model, given, row, look) for row in range(len(given.obs))]
    spent = time.process_time() - clock
    returns, ended, iterations = (np.stack(each) for each in zip(*scored, strict=True))
    return _report(name_of(model), given, returns, ended, iterations, 1e3 * spent)


def depth_choices() -> dict[str, Fixed | StopRule | Quantile | None]:
    """Return ways to choose the depth while planning, by name."""
    return {
        "the model's default": None,
        "fixed, 2": Fixed(2),
        "fixed, 4": Fixed(4),
        "each row by OutputDelta": OutputDelta(),
        "its 90% quantile": Quantile(),
        "its median": Quantile(share=0.5),
    }


def planning_sheet(reports: Mapping[str, PlanningReport], title: str = "") -> Sheet:
    """Set reports side by side.

    Args:
        reports: What `evaluate_planning` returned, by the name to show, at least one.
        title: Heading; by default it says what was scored.
    """
    first = next(iter(reports.values()))
    usual = (
        f"{first.candidates} candidates of {first.horizon} steps at {first.states} states of "
        f"{first.episodes} episodes"
    )
    columns = (
        Column("name", "model"),
        Column("rank_correlation", "rank correlation [95%]"),
        Column("regret", "regret [95%]"),
        Column("recall", "recall of ends [95%]"),
        Column("false_alarm", "false alarms"),
        Column("iterations"),
        Column("cpu_ms", "CPU ms a state"),
    )
    rows = tuple(
        {
            "name": name,
            "rank_correlation": _defined(each.rank_correlation),
            "regret": _defined(each.regret),
            "recall": _defined(each.recall),
            "false_alarm": _jsonable(each.false_alarm[0]),
            "iterations": each.iterations,
            "cpu_ms": each.cpu_ms,
        }
        for name, each in reports.items()
    )
    return Sheet(title or usual, columns, rows)


def _scored(
    model: "WorldModelLike", given: Candidates, row: int, look: Lookahead
) -> tuple[Float[ndarray, " N"], Float[ndarray, " N"], float]:
    """Return predicted returns and probabilities of having ended, and mean iterations."""
    with torch.no_grad():
        obs, actions = (torch.as_tensor(each[row : row + 1]) for each in (given.obs, given.actions))
        state = model.start(obs)
        if isinstance(look.halt, Quantile):
            look = with_fixed_depth(model, state, actions[:, 1 : 1 + look.halt.probes], look)
        seen = imagined(model, state, actions, look)
        returns = discounted(seen.reward, seen.terminated, None, look.discount)
        ended = 1 - seen.terminated.neg().add(1).prod(1)
    return returns.cpu().numpy(), ended.cpu().numpy(), float(seen.n_iters.double().mean())


def _report(
    name: str,
    given: Candidates,
    returns: Float[ndarray, "W N"],
    ended: Float[ndarray, "W N"],
    iterations: Float[ndarray, " W"],
    spent: float,
) -> PlanningReport:
    usable = np.isfinite(given.returns)
    rank, missed, chance = np.array(
        [
            _judged(true[keep], said[keep])
            for true, said, keep in zip(given.returns, returns, usable, strict=True)
        ]
    ).T
    known = np.isfinite(rank)
    says, ends = ended >= ENDS, given.ends
    ones = np.ones(len(rank))
    over = given.episode
    return PlanningReport(
        name=name,
        states=len(rank),
        episodes=len(np.unique(over)),
        candidates=given.trial.candidates,
        horizon=given.trial.horizon,
        rank_correlation=_mean(np.where(known, rank, 0.0), known.astype(float), over),
        regret=_mean(missed, chance, over),
        shortfall=_mean(missed, ones, over),
        recall=_mean((says & ends).sum(1), ends.sum(1), over),
        false_alarm=_mean((says & ~ends & usable).sum(1), (~ends & usable).sum(1), over),
        ends=int(ends.sum()),
        iterations=float(iterations.mean()),
        cpu_ms=spent / len(rank),
        diverged=float(1 - usable.mean()),
    )


def _judged(true: Float[ndarray, " N"], said: Float[ndarray, " N"]) -> tuple[float, float, float]:
    """Return rank correlation, what the choice misses, and what chance would miss.

    Candidates of which the model says nothing finite come last in its ranking. Of those that it
    ranks alike it chooses any, with equal chances; one that ranks all alike knows nothing.
    """
    if not len(true):
        return np.nan, 0.0, 0.0
    said = np.where(np.isfinite(said), said, -np.inf)
    best = true.max()
    # Rounding takes the mean of equal returns beyond the best of them.
    chance = max(0.0, best - true.mean())
    rank = spearman(true, said)
    if np.isnan(rank) and true.min() < best:
        rank = 0.0
    return rank, best - true[said == said.max()].mean(), chance


def _mean(
    sums: Float[ndarray, " W"] | Int[ndarray, " W"],
    weights: Float[ndarray, " W"] | Int[ndarray, " W"],
    episode: Int[ndarray, " W"],
) -> Ends:
    """Return a weighted mean over states, with its interval over episodes."""
    _, index = np.unique(episode, return_inverse=True)
    total, weight = (np.bincount(index, each.astype(np.float64)) for each in (sums, weights))
    if not weight.sum() > 0:
        return np.nan, np.nan, np.nan
    ends = bootstrap(total, weight)
    return float(total.sum() / weight.sum()), float(ends.low), float(ends.high)


def _defined(ends: Ends) -> list[float] | None:
    return None if np.isnan(ends[0]) else list(ends)


def _jsonable(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_jsonable(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
