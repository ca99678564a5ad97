"""LoopWM's equation by itself beside the cells of this library, over many more iterations."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from loopwm.core.cell import BoundedCell
from loopwm.core.certificate import Bounds, Contracts
from loopwm.core.config import Bounded, CellConfig, Contractive
from loopwm.core.make import make_cell
from loopwm.data.normalise import Statistics
from loopwm.files import write_file
from loopwm.study.comparison import group_cells, spread
from loopwm.study.datasets import Experience, study_data
from loopwm.study.efficiency import Cell
from loopwm.study.loops import certificates, models_of
from loopwm.study.plan import Plan, run_plan
from loopwm.study.recipe import RATE, Computed, Options
from loopwm.study.results import Column, Sheet
from loopwm.world.build import build
from loopwm.world.config import WorldConfig
from loopwm.world.model import WorldModel

WIDTH, ROWS = 64, 8
ITERATIONS = 10_000
SCALES = (1.0, 2.0, 4.0)
SEEDS = (0, 1, 2)
SHOWN = 2.0  # scale of the figure's weights
AFTER = (10, 100, 10_000)

Refine = Callable[[Tensor], Tensor]

CELLS: Mapping[str, CellConfig] = {
    "BoundedCell (default)": Bounded(),
    "BoundedCell, gain 1": Bounded(gain=1.0),
    "ContractiveCell (default)": Contractive(),
    "ContractiveCell, gated": Contractive(gated=True),
}
TRAINED = {"looped": "BoundedCell (default)", "contractive-0.99": "ContractiveCell, rate 0.99"}
# Residuals that nothing bounds, of the weights that the default cell has.
ALONE = {"equation alone, gated residual": False, "equation alone, ReLU residual": True}

_METHOD = (
    "LoopWM's claim is about `h+ = abar*h + B e + R(h, e)` (arXiv 2606.18208, eq. 5): with abar "
    "below 1 the loop is called stable. The equation alone has the weights of a new default cell, "
    "and R sees h as it is: the gated layer of the default cell, or a rectified one. BoundedCell "
    "normalises what R sees; ContractiveCell is a contraction whatever its weights.",
    f"Width {WIDTH}, float64, {ROWS} injections of standard normal entries, each held for "
    f"{ITERATIONS:,} iterations from two states, standard normal and its negative. Weights are as "
    "they are initialised, times a scale, since training moves them. Largest norm and largest "
    "distance of the pair over the rows; mean over three seeds [lowest, highest]. `inf`: not "
    "finite any more. The proven bound holds for these injections and starts.",
    "Certificates of models: as configured, with random weights, and of the trained ones of the "
    "tables of `lw.Contractive` at several rates (`dial-`); norms and gains are measured at test "
    "observations.",
)


@dataclass(frozen=True)
class Course:
    """Hold what many iterations did to pairs of states.

    Attributes:
        norm: Largest norm of a state after 0, 1, 2, ... iterations; inf once it overflows.
        distance: Largest distance of a pair.
    """

    norm: Float[Tensor, " T"]
    distance: Float[Tensor, " T"]

    @property
    def overflow(self) -> int | None:
        """Return the first iteration after which a state is not finite, or None."""
        lost = (~self.norm.isfinite()).nonzero()
        return int(lost[0]) if len(lost) else None


def certificate(task: str, options: Options) -> Computed:
    """Show what holds for any number of iterations, and what only looks as if it did."""
    options.report(f"{ITERATIONS:,} iterations of each cell")
    sheets = [course_sheet()]
    if options.figures is not None:
        from loopwm.study.canvas import png
        from loopwm.study.stability import plot_courses

        options.figures.mkdir(parents=True, exist_ok=True)
        figure = plot_courses(courses(SHOWN, SEEDS[0]))
        write_file(options.figures / "certificates.png", png(figure))
    plan = Plan(Cell(task=task), tuple(TRAINED), (RATE,), updates=2_000, seeds=(0, 1))
    _, finals = run_plan(plan, options.work, threads=options.threads, report=options.report)
    data = study_data(Experience(task), options.work / "data")
    models: dict[str, Sequence[WorldModel]] = {
        f"{name}, untrained": [_untrained(config, data.train, seed) for seed in SEEDS]
        for name, config in CELLS.items()
    }
    models |= {
        f"{TRAINED[group.arm]}, {plan.updates:,} updates": models_of(group, options.work)
        for group in group_cells(finals)
    }
    sheets.append(certificates(models, data.test))
    return SEEDS, _METHOD, tuple(sheets)


def course_sheet(
    scales: Sequence[float] = SCALES,
    seeds: Sequence[int] = SEEDS,
    iterations: int = ITERATIONS,
) -> Sheet:
    """Make the table of norms and distances after many iterations, beside what is proven.

    Args:
        scales: What the weights are multiplied by.
        seeds: Seeds of weights, injections and starts.
        iterations: How far the loops run.
    """
    rows = []
    for scale in scales:
        found = [courses(scale, seed, iterations) for seed in seeds]
        proofs = [proven(scale, seed) for seed in seeds]
        for name in found[0]:
            each = [of_seed[name] for of_seed in found]
            row: dict[str, Any] = {"cell": name, "scale": f"{scale:g}"}
            row["norm"] = spread([float(one.norm.max()) for one in each])
            lost = [one.overflow for one in each if one.overflow is not None]
            row["overflow"] = spread(lost) if lost else None
            for after in AFTER:
                at = min(after, iterations)
                row[f"after_{after}"] = spread([float(one.distance[at]) for one in each])
            for what in ("bound", "rate"):
                found_of = [of_seed.get(name, {}).get(what) for of_seed in proofs]
                values = [value for value in found_of if value is not None]
                row[what] = spread(values) if values else None
            rows.append(row)
    columns = (
        Column("cell"),
        Column("scale", "weights times"),
        Column("norm", "largest norm met"),
        Column("bound", "proven bound"),
        Column("overflow", "overflows after"),
        *(Column(f"after_{n}", f"distance after {n:,}") for n in AFTER),
        Column("rate", "proven rate"),
    )
    return Sheet(f"up to {iterations:,} iterations", columns, tuple(rows))


def courses(scale: float, seed: int, iterations: int = ITERATIONS) -> dict[str, Course]:
    """Follow all cells from the same pairs of states, at the same injections.

    Args:
        scale: What the initial weights are multiplied by.
        seed: Seed of weights, injections and starts.
        iterations: How far the loops run.
    """
    e, first, second = _given(seed)
    cells = _cells(scale, seed)
    default = next(iter(cells.values()))
    assert isinstance(default, BoundedCell)
    with torch.no_grad():
        refines: dict[str, Refine] = {
            name: equation_alone(default, e, rectified) for name, rectified in ALONE.items()
        } | {name: _repeated(cell, e) for name, cell in cells.items()}
        return {name: follow(refine, first, second, iterations) for name, refine in refines.items()}


def equation_alone(cell: BoundedCell, e: Float[Tensor, "B D"], rectified: bool = False) -> Refine:
    """Return LoopWM's refinement (arXiv 2606.18208, eq. 5) with a cell's weights; an oracle.

    It differs from the cell in one thing: the residual sees h as it is, not normalised.

    Args:
        cell: Whose retention, injection and residual are taken.
        e: Injections.
        rectified: Whether the residual is a rectified layer, linear in size, or the cell's gated
            one, which grows with the square.
    """
    injected, shift = cell.condition(e)
    retention = cell.retention

    def refine(h: Float[Tensor, "B D"]) -> Tensor:
        gate, value = (h @ cell.from_state.T + shift).chunk(2, dim=1)
        hidden = F.relu(gate) if rectified else F.silu(gate) * value
        return retention * h + injected + hidden @ cell.leave.T

    return refine


def follow(
    refine: Refine,
    first: Float[Tensor, "B D"],
    second: Float[Tensor, "B D"],
    iterations: int,
) -> Course:
    """Refine pairs of states many times; one that overflows stays infinite.

    Args:
        refine: One iteration of 2 B rows, the first states above the second ones.
        first: One state of each pair.
        second: The other.
        iterations: How often.
    """
    h = torch.cat([first, second])
    norm, distance = (h.new_full((iterations + 1,), math.inf) for _ in range(2))
    for t in range(iterations + 1):
        h = refine(h) if t else h
        one, other = h.chunk(2)
        largest = h.norm(dim=1).max()
        if not bool(largest.isfinite()):
            break
        norm[t], distance[t] = largest, (one - other).norm(dim=1).max()
    return Course(norm, distance)


def proven(scale: float, seed: int) -> dict[str, dict[str, float | None]]:
    """Return the proven bound and rate of each cell, for the injections and starts of `courses`."""
    e, first, _ = _given(seed)
    injection = float(e.norm(dim=1).max())
    found = {}
    for name, cell in _cells(scale, seed).items():
        assert isinstance(cell, Bounds)
        rate = cell.proven_rate() if isinstance(cell, Contracts) else None
        # Bounds depend on a start through its size in each channel: that of a pair is the same.
        bound = max(cell.proven_bound(injection, start) for start in first)
        found[name] = {"bound": bound, "rate": rate}
    return found


def _given(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return injections, once for each state of a pair, and the pairs."""
    generator = torch.Generator().manual_seed(seed)
    e, first = (
        torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return torch.cat([e, e]), first, -first


def _cells(scale: float, seed: int) -> dict[str, nn.Module]:
    """Make the cells, new ones whose matrices are multiplied by the scale."""
    cells: dict[str, nn.Module] = {}
    for name, config in CELLS.items():
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            cell = make_cell(WIDTH, config).double()
        for parameter_name, parameter in cell.named_parameters():
            # `shares` divides a channel's rate, and is no matrix.
            if parameter.ndim == 2 and parameter_name != "shares":
                parameter.data.mul_(scale)
        cells[name] = cell
    return cells


def _repeated(cell: Any, e: Float[Tensor, "B D"]) -> Refine:
    conditioning, weights = cell.condition(e), cell.constrain()
    cell.eval()
    return lambda h: cell(h, conditioning, weights)


def _untrained(cell: CellConfig, data: Any, seed: int) -> WorldModel:
    model = build(WorldConfig(cell=cell), data.meta, Statistics.of(data), seed)
    return model.requires_grad_(False).eval()
