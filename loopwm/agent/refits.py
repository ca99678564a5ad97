"""The model that an agent learns while it acts: when it is trained anew, when it goes on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loopwm.agent.config import Refit
from loopwm.data.ending import can_terminate
from loopwm.data.store import RolloutDataset
from loopwm.seed import key
from loopwm.world.build import load
from loopwm.world.ensemble import Ensemble
from loopwm.world.fit import fit
from loopwm.world.model import WorldModel

TransitionFn = Callable[[Any, Any, Any], Any]


class Refits:
    """Keep a model and fit it again and again to a growing dataset.

    Args:
        config: The model and its schedule.
        seed: Seed of the fits.
        reward_fn: Replaces the learned reward (see `WorldModel.use`).
        termination_fn: Replaces the learned termination.

    Attributes:
        model: The present model, None before the first fit.
        count: Fits made.
    """

    def __init__(
        self,
        config: Refit,
        seed: int,
        reward_fn: TransitionFn | None = None,
        termination_fn: TransitionFn | None = None,
    ) -> None:
        self.config, self.seed = config, seed
        self.functions = {"reward_fn": reward_fn, "termination_fn": termination_fn}
        self.model: WorldModel | Ensemble | None = None
        self.count = 0
        self._rows = 0
        self._trained_anew = 0
        self._endless = False

    def fit(self, data: RolloutDataset) -> dict[str, float | None]:
        """Fit the model to all data so far.

        Every step is trained on: there are too few of them for a part to be set aside. What the
        model is worth is told by its error on the steps that came since the last fit.

        Args:
            data: All real steps so far.

        Returns:
            `model_error`: one-step RMSE, in standard deviations of the one-step change, of the
            earlier model on the steps since; None at the first fit.
        """
        error = None
        if self.model is not None and len(data) > self._rows:
            error = one_step_error(self.model, data, self._rows)
        anew = self.model is None or len(data) >= self.config.fresh * self._trained_anew
        # The run has a display of its own.
        word = key(self.seed, "refit", self.count).generate_state(1, np.uint32)[0]
        how = replace(self.config.fit, seed=int(word), progress=False)
        if anew:
            how = replace(how, validate_every=how.updates)
            self._trained_anew = len(data)
            model, init = self.config.model, None
        else:
            updates = self.config.updates
            how = replace(how, updates=updates, horizon_warmup=0.0, validate_every=updates)
            model, init = None, self.model
        self._endless = not can_terminate(data).any()
        valid = newest_long_enough(data, self.config.model.objective.context)
        self.model = self._told(
            fit(data, model, how, members=self.config.members, init=init, valid=valid)
        )
        self.count += 1
        self._rows = len(data)
        return {"model_error": error}

    def save(self, path: Path) -> dict[str, int]:
        """Write the model; return what `restore` needs beside it."""
        if self.model is not None:
            self.model.save(path)
        return {
            "count": self.count,
            "rows": self._rows,
            "anew": self._trained_anew,
            "endless": int(self._endless),
        }

    def restore(self, path: Path, counters: dict[str, int]) -> None:
        """Continue from what `save` wrote."""
        self.count, self._rows = counters["count"], counters["rows"]
        self._trained_anew, self._endless = counters["anew"], bool(counters["endless"])
        if self.count:
            self.model = self._told(load(path, config=self.config.model))

    def _told(self, model: WorldModel | Ensemble) -> WorldModel | Ensemble:
        functions = dict(self.functions)
        if self._endless and functions["termination_fn"] is None:
            functions["termination_fn"] = _never
        return model.use(**functions)


def _never(obs: Any, action: Any, next_obs: Any) -> Any:
    """Tell what no data of an environment that ends no episode could teach."""
    del obs, action
    return next_obs.new_zeros(next_obs.shape[:-1])


def newest_long_enough(data: RolloutDataset, length: int) -> RolloutDataset:
    """Return the newest episode of so many steps, or all data where none has as many.

    An episode that has just begun, or ended at once, may be too short to validate on.

    Args:
        data: All real steps so far.
        length: Least number of steps.
    """
    enough = np.flatnonzero(np.diff(data.bounds) >= length)
    return data.select_episodes([int(enough[-1])]) if len(enough) else data


def one_step_error(model: WorldModel | Ensemble, data: RolloutDataset, first: int) -> float:
    """Return the RMSE of one step, in standard deviations of the one-step change.

    Args:
        model: What predicts.
        data: Real steps.
        first: The row at which they begin.
    """
    predicted = model.predict(data.obs[first:], data.action[first:])
    wrong = (predicted.next_obs - data.next_obs[first:]) / model.stats.change_std
    return float(np.sqrt(np.square(wrong).mean()))
