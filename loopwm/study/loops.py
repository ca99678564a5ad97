"""Tables about the loop itself: what is proven of it, and how far it goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loopwm.core.halt import Fixed, OutputDelta
from loopwm.data.store import RolloutDataset
from loopwm.study.comparison import Group, Result, spread
from loopwm.study.efficiency import Cell
from loopwm.study.openloop import Imagination, imagine_windows
from loopwm.study.results import Column, Sheet
from loopwm.study.windows import Sampling, window_rows
from loopwm.world.build import load
from loopwm.world.model import WorldModel

# Fine enough that rows which settle fast stop long before the last iteration.
TOL, MOST = 0.05, 24


def models_of(group: Group, work: Path) -> list[WorldModel]:
    """Read the trained models of a group's cells, in the order of its seeds."""
    models = [load(work / "models" / _cell(result).name) for result in group.results]
    return [model for model in models if isinstance(model, WorldModel)]


def certificates(models: Mapping[str, Sequence[WorldModel]], test: RolloutDataset) -> Sheet:
    """Make the table of certificates, mean over seeds [lowest, highest].

    Args:
        models: Models of several seeds by label.
        test: Real experience at which the loops are measured.
    """
    rows = []
    at = np.linspace(0, len(test) - 1, 256).astype(int)
    for label, seeds in models.items():
        found = [model.certificate(test.obs[at], test.action[at]) for model in seeds]
        row: dict[str, Any] = {"model": label}
        for name in ("rate", "local_gain", "state_bound", "state_norm"):
            values = [getattr(each, name) for each in found]
            row[name] = None if None in values else spread(values)
        rows.append(row)
    columns = (
        Column("model"),
        Column("rate", "proven rate"),
        Column("local_gain", "largest local gain met"),
        Column("state_bound", "proven bound on the state"),
        Column("state_norm", "largest norm met"),
    )
    return Sheet("certificates", columns, tuple(rows))


def ranges(models: Mapping[str, Sequence[WorldModel]], test: RolloutDataset) -> Sheet:
    """Make the table of how many iterations inputs take, and of what too many do.

    Args:
        models: Models of several seeds by label.
        test: Real experience.
    """
    rows = []
    for label, seeds in models.items():
        found = [_range(model, test) for model in seeds]
        rows.append(
            {"model": label} | {name: spread([f[name] for f in found]) for name in found[0]}
        )
    columns = (
        Column("model"),
        Column("low", "iterations, 5% of the rows below"),
        Column("mean", "mean"),
        Column("high", "95% below"),
        Column("twice", "RMSE at twice the depth over that at the depth, k=1"),
        Column("thrice", "at three times"),
        Column("far", "at twice, k=15"),
    )
    title = f"range of iterations, OutputDelta({TOL:g}), at most {MOST}"
    return Sheet(title, columns, tuple(rows))


def _range(model: WorldModel, test: RolloutDataset) -> dict[str, float]:
    rows = {k: window_rows(test, k, 0, Sampling()) for k in (1, 15)}
    settling = Imagination(halt=OutputDelta(TOL), max_iters=MOST)
    counts = imagine_windows(model, test, rows[1], 1, settling).n_iters[:, 0]

    def error(horizon: int, times: int) -> float:
        how = Imagination(halt=Fixed(times * model.depth.typical))
        seen = imagine_windows(model, test, rows[horizon], horizon, how).obs[:, -1]
        miss = (seen - test.next_obs[rows[horizon] + horizon - 1]) / model.stats.obs_std
        return float(np.sqrt(np.square(miss, dtype=np.float64).mean()))

    return {
        "low": float(np.quantile(counts, 0.05)),
        "mean": float(counts.mean()),
        "high": float(np.quantile(counts, 0.95)),
        "twice": error(1, 2) / error(1, 1),
        "thrice": error(1, 3) / error(1, 1),
        "far": error(15, 2) / error(15, 1),
    }


def _cell(result: Result) -> Cell:
    return Cell(**result["cell"])
