"""The standard mixture: excitation and policies of three strengths, in equal parts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loopwm.core.settings import whole
from loopwm.data.actor import STAGES, Actor, shipped_actors
from loopwm.data.collect import at_least_one, collect
from loopwm.data.concat import concat
from loopwm.data.policy import Excitation, PolicyLike, WithNoise
from loopwm.data.store import RolloutDataset
from loopwm.data.unclipped import CLIPPED_IDS
from loopwm.errors import ConfigError
from loopwm.seed import key

PARTS = ("excitation", *STAGES)
NOISE = 0.15


@dataclass(frozen=True)
class Piece:
    """Say what one piece of the mixture is collected with.

    Attributes:
        part: The part that it belongs to.
        rows: Number of rows.
        policy: What chooses the actions.
        noise: Standard deviation of the noise on a policy's actions, as a share of half the range.
        env_kwargs: Arguments for the environment.
    """

    part: str
    rows: int
    policy: PolicyLike
    noise: float
    env_kwargs: Mapping[str, Any]


def collect_standard(
    env_id: str,
    steps: int,
    seed: int = 0,
    split: str = "train",
    *,
    actors: Path | str | None = None,
    progress: bool | None = None,
) -> RolloutDataset:
    """Collect the standard mixture of a task: data that no single behaviour could give.

    A quarter of the rows each comes from excitation and from policies early, middle and late in
    their training. Half of the rows of every policy have Gaussian noise on the actions. On
    Hopper-v5 and Walker2d-v5 velocities are unclipped, and half of the rows of everything are
    collected with `terminate_when_unhealthy`, half without. The policies of the three splits
    come from different training seeds, and their episodes are different ones for the same seed.

    Args:
        env_id: Gymnasium id of a task that has actors.
        steps: Number of rows, at least a few for every policy and setting.
        seed: Non-negative integer.
        split: `train`, `valid` or `test`: whose policies to use.
        actors: Directory of actors; those that ship with the package by default.
        progress: Show a progress bar; by default where stderr is a terminal.

    Returns:
        A dataset of exactly `steps` rows. `meta.parts` names the parts, and the column `part`
        indexes them. The column `can_terminate` says whether the environment ended episodes in
        terminal states (False only with `terminate_when_unhealthy` off), `noise` the standard
        deviation of the noise as a share of half the range of the actions.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If the task has no actors; the message says how to train them.
    """
    steps, seed = at_least_one("steps", steps), whole("seed", seed)
    if seed < 0:
        raise ConfigError(f"seed must not be negative, got {seed}")
    found = shipped_actors(env_id, split, root=actors)
    pieces = plan(steps, found)
    datasets = []
    with _progress(env_id, steps, progress) as advance:
        for index, piece in enumerate(pieces):
            own = int(key(seed, "standard", split, index).generate_state(1)[0])
            datasets.append(_collect(env_id, piece, own, found[0].info.unclipped))
            advance(piece.rows)
    mixture = concat(datasets, [piece.part for piece in pieces])
    meta = replace(mixture.meta, seed=seed, policy=f"standard mixture, {split} policies")
    return replace(mixture, meta=meta)


def plan(steps: int, actors: Sequence[Actor]) -> list[Piece]:
    """Divide the rows of a mixture among the policies and the settings of the environment.

    Args:
        steps: Number of rows.
        actors: Actors of one task, of every stage.

    Returns:
        Pieces in the order of `PARTS`; the rows of a part are divided evenly.

    Raises:
        ConfigError: If some piece would have no rows.
    """
    ends = (True, False) if actors[0].info.env_id in CLIPPED_IDS else ()
    settings = [{"terminate_when_unhealthy": each} for each in ends] or [{}]
    grids = {
        part: [(*way, kwargs) for way in _ways(part, actors) for kwargs in settings]
        for part in PARTS
    }
    needed = len(PARTS) * max(map(len, grids.values()))
    if steps < needed:
        raise ConfigError(
            f"steps must be at least {needed}, so that every policy and setting has a row, "
            f"got {steps}"
        )
    return [
        Piece(part, share, *how)
        for (part, grid), rows in zip(grids.items(), shares(steps, len(PARTS)), strict=True)
        for share, how in zip(shares(rows, len(grid)), grid, strict=True)
    ]


def _ways(part: str, actors: Sequence[Actor]) -> list[tuple[PolicyLike, float]]:
    if part not in STAGES:
        return [(Excitation(), 0.0)]
    stage = [actor for actor in actors if actor.info.stage == part]
    quiet: list[tuple[PolicyLike, float]] = [(actor, 0.0) for actor in stage]
    return quiet + [(WithNoise(actor, NOISE), NOISE) for actor in stage]


def shares(total: int, count: int) -> list[int]:
    """Divide a number of rows among `count` pieces, as evenly as whole rows can be."""
    return [total * (i + 1) // count - total * i // count for i in range(count)]


def _collect(env_id: str, piece: Piece, seed: int, unclipped: bool) -> RolloutDataset:
    dataset = collect(
        env_id,
        piece.rows,
        seed,
        piece.policy,
        env_kwargs=piece.env_kwargs,
        unclipped=unclipped,
        progress=False,
    )
    can_terminate = bool(piece.env_kwargs.get("terminate_when_unhealthy", True))
    info = {
        "can_terminate": np.full(piece.rows, can_terminate),
        "noise": np.full(piece.rows, piece.noise, np.float32),
    }
    return replace(dataset, info={**dataset.info, **info})


@contextmanager
def _progress(env_id: str, steps: int, show: bool | None) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    shown = console.is_terminal if show is None else show
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        line = bar.add_task(f"collecting {env_id}", total=steps)
        yield lambda rows: bar.advance(line, rows)
