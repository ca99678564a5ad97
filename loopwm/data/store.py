"""Rollouts in memory: rows of transitions, whole episodes, and where they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwm.data.check import check_columns, check_meta
from loopwm.data.concat import INDEX, concat
from loopwm.data.meta import DatasetMeta
from loopwm.data.rows import completed, divided, whole_numbers
from loopwm.data.shards import SHARD_BYTES, read_shards, write_shards
from loopwm.errors import ConfigError, DataError, StoreError
from loopwm.seed import numpy_rng

if TYPE_CHECKING:
    import gymnasium
    import minari

COLUMNS = ("obs", "next_obs", "action", "reward", "terminated", "truncated", "episode")


@dataclass(frozen=True, eq=False, repr=False)
class RolloutDataset:
    """Hold transitions as columns, in row order and episode after episode.

    Attributes:
        obs: Observation before each step [N,O], in the environment's own type and units.
        next_obs: Observation after each step [N,O].
        action: Action of each step: floats [N,A], or int64 [N] for discrete actions.
        reward: Reward of each step [N], float64.
        terminated: Whether the step reached a terminal state [N].
        truncated: Whether the episode was cut after the step [N].
        episode: Episode of each row [N], int64, counting 0, 1, 2, ... in row order.
        info: Further columns [N,...] by name; NaN there means "not reported".
        meta: Where the rows come from and what the columns mean.
    """

    obs: np.ndarray
    next_obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    episode: np.ndarray
    info: Mapping[str, np.ndarray] = field(default_factory=dict)
    meta: DatasetMeta = field(default_factory=DatasetMeta)

    def __post_init__(self) -> None:
        """Check the columns, and what `meta` says of them.

        Raises:
            DataError: If shapes, types, numbers or episode ends are wrong, naming column and row,
                or if `meta` contradicts the columns.
        """
        check_columns({name: getattr(self, name) for name in COLUMNS}, self.info)
        check_meta(self.obs, self.action, self.info, self.meta)

    def __len__(self) -> int:
        """Return the number of rows N."""
        return len(self.reward)

    def __repr__(self) -> str:
        """Say what the dataset holds, in one line."""
        action = f"{self.action_dim} actions" if self.discrete else f"action[{self.action_dim}]"
        return (
            f"RolloutDataset({self.meta.env_id or 'arrays'}: {len(self)} steps, "
            f"{self.num_episodes} episodes, obs[{self.obs_dim}], {action})"
        )

    @property
    def env_id(self) -> str:
        """Gymnasium id of the environment, "" where the rows come from elsewhere."""
        return self.meta.env_id

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """Arguments that the environment was made with."""
        return self.meta.env_kwargs

    @property
    def seed(self) -> int | None:
        """Seed of the collection, None where it is not known."""
        return self.meta.seed

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that the rows were made with."""
        return self.meta.versions

    @property
    def obs_dim(self) -> int:
        """Number of observation dimensions O."""
        return self.obs.shape[1]

    @property
    def discrete(self) -> bool:
        """Whether actions are indices rather than vectors."""
        return self.action.ndim == 1

    @property
    def action_dim(self) -> int:
        """Number of action dimensions A, or of discrete actions."""
        if not self.discrete:
            return self.action.shape[1]
        return self.meta.num_actions or int(self.action.max()) + 1

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return int(self.episode[-1]) + 1

    @property
    def bounds(self) -> np.ndarray:
        """First row of each episode, and the number of rows at the end [num_episodes + 1]."""
        starts = np.flatnonzero(np.diff(self.episode, prepend=-1))
        return np.append(starts, len(self))

    @classmethod
    def from_arrays(
        cls,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray | None = None,
        next_obs: np.ndarray | None = None,
        episode: np.ndarray | None = None,
        meta: DatasetMeta | None = None,
    ) -> "RolloutDataset":
        """Build a dataset from columns of consecutive steps.

        Args:
            obs: Observations before each step [N,O].
            action: Actions [N,A], or integers [N].
            reward: Rewards [N].
            terminated: Whether each step reached a terminal state [N].
            truncated: Whether the episode was cut after the step [N]; none was if left out.
            next_obs: Observations after each step [N,O]. Without them the next row of `obs` serves,
                and the last step of every episode is left out and counted in `meta.dropped`; was
                one of them terminal, then `info["can_terminate"]` is False in all rows, since those
                that are left tell nothing of how episodes end.
            episode: A number for each row's episode [N], equal within it; without it an episode
                ends at every terminated or truncated step. The last step of an episode that ends
                otherwise is marked as truncated.
            meta: What is known of the origin (`loopwm.data.meta`). Where it does not say the bounds
                of continuous actions, the least and the largest of the data take their place.

        Raises:
            DataError: If the columns do not fit together.
        """
        columns = {"obs": obs, "next_obs": next_obs, "action": action, "reward": reward}
        columns |= {"terminated": terminated, "truncated": truncated, "episode": episode}
        return cls(**completed(columns, meta or DatasetMeta()))

    def save(self, path: str | Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Write the dataset as a directory of checksummed shards, atomically.

        Args:
            path: The directory to make; an earlier dataset there is replaced.
            shard_bytes: Most bytes of tensors in one file.

        Raises:
            StoreError: If it cannot be written.
        """
        columns = {name: getattr(self, name) for name in COLUMNS}
        columns |= {f"info.{name}": column for name, column in self.info.items()}
        write_shards(Path(path), columns, self.meta.to_json(), shard_bytes)

    @classmethod
    def load(cls, path: str | Path) -> "RolloutDataset":
        """Read a dataset written by `save`, verifying every byte.

        Raises:
            StoreError: If it is missing, damaged, or of a newer format.
            DataError: If its columns and its description contradict each other.
        """
        columns, meta = read_shards(Path(path))
        info = {n[5:]: columns.pop(n) for n in [*columns] if n.startswith("info.")}
        if set(columns) != set(COLUMNS):
            raise StoreError(f"{path} has the columns {sorted(columns)}, not {sorted(COLUMNS)}")
        return cls(**columns, info=info, meta=DatasetMeta.from_json(meta))

    def select_episodes(self, episodes: Sequence[int] | np.ndarray) -> "RolloutDataset":
        """Return the given episodes, in the given order and numbered anew.

        Args:
            episodes: Episode numbers, at least one, each at most once.
        """
        chosen = whole_numbers("episodes", episodes)
        if len(chosen) == 0 or len(np.unique(chosen)) < len(chosen):
            raise DataError(f"episodes must be one or more different numbers, got {episodes}")
        if chosen.min() < 0 or chosen.max() >= self.num_episodes:
            raise DataError(
                f"episodes must lie in 0..{self.num_episodes - 1}, "
                f"got {chosen.min()}..{chosen.max()}"
            )
        bounds = self.bounds
        lengths = np.diff(bounds)[chosen]
        first = np.repeat(bounds[chosen] - np.append(0, np.cumsum(lengths)[:-1]), lengths)
        rows = first + np.arange(lengths.sum())
        taken = {name: getattr(self, name)[rows] for name in COLUMNS}
        taken["episode"] = np.repeat(np.arange(len(chosen)), lengths)
        info = {name: column[rows] for name, column in self.info.items()}
        return replace(self, **taken, info=info)

    def split(
        self, fraction: float = 0.9, seed: int = 0
    ) -> tuple["RolloutDataset", "RolloutDataset"]:
        """Split by episode, never inside one; every part and variant is split alike.

        Args:
            fraction: Share of the episodes in the first dataset, in (0, 1).
            seed: Chooses the episodes.

        Returns:
            Two datasets with at least one episode each.

        Raises:
            DataError: If there are fewer than two episodes.
        """
        if not 0 < fraction < 1:
            raise ConfigError(f"fraction must lie between 0 and 1, got {fraction}")
        if self.num_episodes < 2:
            raise DataError(f"a split needs at least 2 episodes, got {self.num_episodes}")
        starts = self.bounds[:-1]
        groups = [self.info[name][starts] for name in ("part", "variant") if name in self.info]
        order = numpy_rng(seed, "split").permutation(self.num_episodes)
        first, second = divided(order, groups, fraction)
        return self.select_episodes(first), self.select_episodes(second)

    def extend(self, *others: "RolloutDataset") -> "RolloutDataset":
        """Return a dataset with the episodes of `others` after those of this one."""
        return concat([self, *others])

    def keep_obs(self, indices: Sequence[int] | np.ndarray) -> "RolloutDataset":
        """Return the dataset with some of the observation dimensions, in the given order.

        Args:
            indices: Dimensions to keep, in 0..O-1.
        """
        kept = whole_numbers("indices", indices).tolist()
        if not kept or min(kept) < 0 or max(kept) >= self.obs_dim or len({*kept}) < len(kept):
            last = self.obs_dim - 1
            raise ConfigError(f"indices must be different numbers in 0..{last}, got {kept}")
        meta = self.meta.keep_obs(kept)
        return replace(self, obs=self.obs[:, kept], next_obs=self.next_obs[:, kept], meta=meta)

    def part(self, name: str) -> "RolloutDataset":
        """Return the episodes of one part of a mixture.

        Raises:
            DataError: If there is no such part, or it has no episodes here.
        """
        if name not in self.meta.parts:
            raise DataError(f"there is no part {name!r}; parts: {', '.join(self.meta.parts)}")
        of_part = self.info["part"][self.bounds[:-1]] == self.meta.parts.index(name)
        if not of_part.any():
            raise DataError(f"part {name!r} has no episodes in this dataset")
        return self.select_episodes(np.flatnonzero(of_part))

    def where(self, **settings: Any) -> "RolloutDataset":
        """Return the episodes whose environment was made with the given arguments.

        Args:
            settings: Arguments of the environment, such as `terminate_when_unhealthy=True`.

        Raises:
            DataError: If no episode was collected with them.
            ConfigError: If one is nothing that a dataset can record.
        """
        variant = self.info.get("variant", np.zeros(len(self), INDEX))[self.bounds[:-1]]
        chosen = np.flatnonzero(np.isin(variant, self.meta.variants_with(settings)))
        if len(chosen) == 0:
            raise DataError(
                f"no episode was collected with {settings}; "
                f"arguments: {self.meta.env_kwargs}, {list(self.meta.variants)}"
            )
        return self.select_episodes(chosen)

    def make_env(self, **overrides: Any) -> "gymnasium.Env":
        """Make the environment that the rows come from (see `loopwm.data.environment.make_env`)."""
        from loopwm.data.environment import make_env

        return make_env(self.meta, **overrides)

    @staticmethod
    def from_minari(source: "str | minari.MinariDataset") -> "RolloutDataset":
        """Import a Minari dataset, bit for bit (see `loopwm.data.minari.from_minari`)."""
        from loopwm.data.minari import from_minari

        return from_minari(source)

    def to_minari(self, dataset_id: str, **options: Any) -> "minari.MinariDataset":
        """Export to Minari, bit for bit (see `loopwm.data.minari.to_minari`)."""
        from loopwm.data.minari import to_minari

        return to_minari(self, dataset_id, **options)
