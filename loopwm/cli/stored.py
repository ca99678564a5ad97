"""Datasets and models that a command line names by path."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwm.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from loopwm.data.store import RolloutDataset

MINARI = "minari:"


def load_dataset(place: str | Path) -> "RolloutDataset":
    """Load a dataset from a directory, or by `minari:<id>` from Minari.

    Raises:
        StoreError: If there is none, saying how to collect one.
    """
    from loopwm.data.store import RolloutDataset

    if str(place).startswith(MINARI):
        return RolloutDataset.from_minari(str(place).removeprefix(MINARI))
    if not Path(place).exists():
        raise StoreError(f"there is no dataset {place}; make one: loopwm collect ENV --out {place}")
    return RolloutDataset.load(place)


def load_model(place: Path) -> Any:
    """Load a model from the directory that `loopwm train` or `model.save` wrote.

    Raises:
        StoreError: If there is none, saying how to train one.
    """
    from loopwm.world.build import load

    if not place.exists():
        raise StoreError(f"there is no model {place}; train one: loopwm train DATA --out {place}")
    return load(place)


def refuse_existing(place: Path, overwrite: bool) -> None:
    """Keep a command from replacing what is there.

    Raises:
        ConfigError: If something is there and `overwrite` is off.
    """
    if place.exists() and not overwrite:
        raise ConfigError(f"{place} is already there: add --overwrite, or choose another --out")
