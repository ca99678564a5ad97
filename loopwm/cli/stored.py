"""Datasets and models that a command line names by path."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwm.errors import ConfigError, StoreError
from loopwm.files.single import make_directory, reported, write_temporary

if TYPE_CHECKING:
    from loopwm.data.meta import DatasetMeta
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


def refuse_other_spaces(model: Any, data: "RolloutDataset") -> None:
    """Keep a model from data of another environment than the one that it was trained on.

    Raises:
        ConfigError: If observations or actions have other sizes.
    """
    meta = model.meta
    sizes = {
        "observations": (f"{len(model.stats.obs_mean)} numbers", f"{data.obs_dim} numbers"),
        "actions": (_actions(meta), _actions(data.meta)),
    }
    for name, (ours, theirs) in sizes.items():
        if ours != theirs:
            raise ConfigError(
                f"the model has {name} of {ours} (it was trained on {meta.env_id}), the data of "
                f"{theirs} ({data.meta.env_id}): give data of the same environment"
            )


def _actions(meta: "DatasetMeta") -> str:
    if meta.num_actions is not None:
        return f"{meta.num_actions} kinds"
    return f"{len(meta.action_low or ())} numbers"


def refuse_existing(place: Path, overwrite: bool) -> None:
    """Keep a command from replacing what is there.

    Raises:
        ConfigError: If something is there and `overwrite` is off.
    """
    if place.exists() and not overwrite:
        raise ConfigError(f"{place} is already there: add --overwrite, or choose another --out")


def refuse_unwritable(place: Path) -> None:
    """Find out before the work, rather than by losing it, that a directory cannot be written.

    What is missing above it is made; the directory itself is not.

    Raises:
        StoreError: If nothing can be written there.
    """
    with reported("write", place):
        # A link that leads nowhere is in the way, too.
        folder = place if place.exists() or place.is_symlink() else place.parent
        make_directory(folder)
        write_temporary(folder / "probe", b"").unlink()
