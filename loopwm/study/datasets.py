"""The experience that studies share: collected once, kept on disk, split the same everywhere."""

from dataclasses import dataclass
from pathlib import Path

from loopwm.data.collect import collect
from loopwm.data.standard import collect_standard
from loopwm.data.store import RolloutDataset
from loopwm.errors import ConfigError, DataError

VALID_ROWS, TEST_ROWS = 20_000, 40_000
SEEDS = {"train": 0, "valid": 2, "test": 1}


@dataclass(frozen=True)
class Experience:
    """Say what a study is trained and tested on.

    Attributes:
        task: Gymnasium id.
        rows: Transitions of training and validation together.
        observation: "full", or "positions" for observations without velocities.
        mixture: "standard" (`loopwm.data.standard`), or "excitation" alone.
    """

    task: str = "Hopper-v5"
    rows: int = 100_000
    observation: str = "full"
    mixture: str = "standard"

    def __post_init__(self) -> None:
        """Check the choices.

        Raises:
            ConfigError: If one is unknown.
        """
        for name, known in (
            ("observation", ("full", "positions")),
            ("mixture", ("standard", "excitation")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {known}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Split:
    """Hold the parts of a study's experience.

    Attributes:
        train: What models are trained on.
        held: What training is watched by: other episodes of the same policies.
        valid: What learning rates, shapes and tolerances are chosen by: episodes of a policy from
            another training seed.
        test: What is reported: episodes of a policy from yet another one.
        shifted: What is reported beside it, unlike what is trained on; None where nothing is.
    """

    train: RolloutDataset
    held: RolloutDataset
    valid: RolloutDataset
    test: RolloutDataset
    shifted: RolloutDataset | None = None


def study_data(experience: Experience, folder: Path) -> Split:
    """Load a study's experience, or collect and keep it.

    Args:
        experience: What is wanted.
        folder: Where it is kept.

    Returns:
        The four parts; 5% of the training episodes are held.
    """
    sizes = {"train": experience.rows, "valid": VALID_ROWS, "test": TEST_ROWS}
    parts = {name: _kept(experience, rows, name, folder) for name, rows in sizes.items()}
    if experience.observation == "positions":
        parts = {name: each.keep_obs(position_dims(each)) for name, each in parts.items()}
    train, held = parts["train"].split(0.95, seed=0)
    return Split(train, held, parts["valid"], parts["test"])


def position_dims(dataset: RolloutDataset) -> list[int]:
    """List the observation dimensions that are not velocities.

    Raises:
        DataError: If the dimensions have no names, or none is a velocity.
    """
    names = dataset.meta.obs_names
    if names is None:
        raise DataError(
            f"the observations of {dataset.meta.env_id} have no names, so velocities cannot be "
            "told from positions; use keep_obs with indices of your own"
        )
    kept = [index for index, name in enumerate(names) if not is_velocity(name)]
    if len(kept) in (0, len(names)):
        raise DataError(f"the observations of {dataset.meta.env_id} are all alike: {names}")
    return kept


def velocity_dims(dataset: RolloutDataset) -> list[int]:
    """List the observation dimensions that are named velocities; none where they have no names."""
    return [index for index, name in enumerate(dataset.meta.obs_names or ()) if is_velocity(name)]


def is_velocity(name: str) -> bool:
    """Say whether the name of an observation dimension is that of a velocity."""
    return name.startswith("d ") and name.endswith("/dt")


def _kept(experience: Experience, rows: int, split: str, folder: Path) -> RolloutDataset:
    seed = SEEDS[split]
    path = folder / f"{experience.task}-{experience.mixture}-{rows}-{split}"
    if not path.exists():
        # Two processes may both collect it: the rows are the same, and saving is atomic.
        if experience.mixture == "standard":
            collect_standard(experience.task, rows, seed, split).save(path)
        else:
            collect(experience.task, rows, seed).save(path)
    return RolloutDataset.load(path)
