"""One dataset from several: episodes one after another, parts and variants recorded."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwm.data.ending import can_terminate
from loopwm.data.meta import DatasetMeta
from loopwm.errors import DataError

if TYPE_CHECKING:
    from loopwm.data.store import RolloutDataset

# Type of the columns that index parts and variants; files of earlier versions have int8.
INDEX = np.int32
_UNNAMED = "other"
_SAME = ("env_id", "unclipped", "obs_kept", "angles", "dt")
# How each is widened to hold several.
_BOUNDS = {"action_low": np.min, "action_high": np.max, "num_actions": np.max}


def concat(
    datasets: "Sequence[RolloutDataset]", parts: Sequence[str] | None = None
) -> "RolloutDataset":
    """Put the episodes of several datasets into one.

    Arguments of the environment that differ become `meta.variants` with the column `variant`.
    Bounds of actions must be the same, unless those of all were taken from their data: then they
    are widened to hold all.
    Columns of `info` that hold floats and that some datasets lack are NaN there: not reported.

    Args:
        datasets: Datasets of the same environment, at least one.
        parts: A name for each dataset, recorded in `meta.parts` and in the column `part`; names may
            repeat. Without it, parts that the datasets have already are kept, and what has none
            among others that do is the part "other".

    Returns:
        A dataset with the episodes in the given order.

    Raises:
        DataError: If the datasets do not belong together, naming what differs.
    """
    if not datasets:
        raise DataError("concat needs at least one dataset, got none")
    if parts is not None and len(parts) != len(datasets):
        raise DataError(f"parts names {len(parts)} of {len(datasets)} datasets")
    first = datasets[0]
    derived = all(dataset.meta.bounds_derived for dataset in datasets)
    for other in datasets[1:]:
        if not derived:
            _check_bounds(first.meta, other.meta)
        _check_alike(first, other)
    names, part = _parts(datasets, parts)
    shared, variants, variant = _variants(datasets)
    info = _infos(datasets)
    for name, column, made in (("part", part, names), ("variant", variant, variants)):
        if made and name in info:
            raise DataError(
                f"info has a column {name!r} of the user's own in one dataset, and another has "
                f"{name}s, which need that name: rename the column"
            )
        info |= {name: column} if made else {}
    offsets = np.cumsum([0, *(dataset.num_episodes for dataset in datasets)])
    columns = {
        name: np.concatenate([getattr(dataset, name) for dataset in datasets])
        for name in ("obs", "next_obs", "action", "reward", "terminated", "truncated")
    }
    episode = np.concatenate(
        [d.episode + offset for d, offset in zip(datasets, offsets[:-1], strict=True)]
    )
    meta = _meta(datasets, parts=names, env_kwargs=shared, variants=variants)
    return replace(first, **columns, episode=episode, info=info, meta=meta)


def _infos(datasets: "Sequence[RolloutDataset]") -> dict[str, np.ndarray]:
    """Join the columns that mean the same everywhere: not the indices of parts and variants."""
    own = [
        {
            name: column
            for name, column in each.info.items()
            if not (name == "part" and each.meta.parts)
            and not (name == "variant" and each.meta.variants)
        }
        for each in datasets
    ]
    names = dict.fromkeys(name for info in own for name in info)
    joined = {}
    for name in names:
        kinds = {info[name].dtype.kind for info in own if name in info}
        lacking = [i for i, info in enumerate(own) if name not in info]
        if lacking and name != "can_terminate" and kinds != {"f"}:
            raise DataError(
                f"info has no column {name!r} in dataset {lacking[0]} of {len(datasets)}, and one "
                "that does not hold floats cannot say that it was not reported: add it"
            )
        like = next(info[name] for info in own if name in info)
        columns = [
            info[name] if name in info else _absent(name, each, like)
            for each, info in zip(datasets, own, strict=True)
        ]
        joined[name] = np.concatenate(columns)
    return joined


def _absent(name: str, dataset: "RolloutDataset", like: np.ndarray) -> np.ndarray:
    if name == "can_terminate":
        return can_terminate(dataset)
    return np.full((len(dataset), *like.shape[1:]), np.nan, like.dtype)


def _check_bounds(first: DatasetMeta, other: DatasetMeta) -> None:
    for name in _BOUNDS:
        one, two = getattr(first, name), getattr(other, name)
        if one != two:
            raise DataError(
                f"the datasets differ in {name}: {one} and {two}; if from_arrays took it from the "
                f"rows of one, give it that of the environment, meta=DatasetMeta({name}=...)"
            )


def _check_alike(first: "RolloutDataset", other: "RolloutDataset") -> None:
    for name in _SAME:
        one, two = getattr(first.meta, name), getattr(other.meta, name)
        if one != two:
            raise DataError(f"the datasets differ in {name}: {one} and {two}")
    for name in ("obs", "action"):
        one, two = getattr(first, name), getattr(other, name)
        if one.shape[1:] != two.shape[1:] or one.dtype != two.dtype:
            raise DataError(
                f"{name} has {one.shape[1:]} {one.dtype} in one dataset "
                f"and {two.shape[1:]} {two.dtype} in another"
            )


def _parts(
    datasets: "Sequence[RolloutDataset]", given: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray]:
    if given is not None:
        names = tuple(dict.fromkeys(given))
        columns = [np.full(len(d), names.index(n)) for d, n in zip(datasets, given, strict=True)]
        return names, np.concatenate(columns).astype(INDEX)
    known = [dataset.meta.parts if "part" in dataset.info else () for dataset in datasets]
    if not any(known):
        return (), np.zeros(0, INDEX)
    own = [each or (_UNNAMED,) for each in known]
    names = tuple(dict.fromkeys(name for each in own for name in each))
    columns = [
        np.array([names.index(name) for name in each])[
            dataset.info["part"] if has else np.zeros(len(dataset), INDEX)
        ]
        for dataset, each, has in zip(datasets, own, known, strict=True)
    ]
    return names, np.concatenate(columns).astype(INDEX)


def _variants(
    datasets: "Sequence[RolloutDataset]",
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...], np.ndarray]:
    """Separate the arguments that all episodes share from those that differ."""
    settings = [
        [dataset.meta.settings(index) for index in range(max(1, len(dataset.meta.variants)))]
        for dataset in datasets
    ]
    everything = [each for one in settings for each in one]
    shared = {
        name: value
        for name, value in everything[0].items()
        if all(name in each and each[name] == value for each in everything)
    }
    own = [[{k: v for k, v in each.items() if k not in shared} for each in one] for one in settings]
    variants: list[dict[str, Any]] = []
    for each in (each for one in own for each in one):
        if each not in variants:
            variants.append(each)
    if variants == [{}]:
        return shared, (), np.zeros(0, INDEX)
    columns = [
        np.array([variants.index(each) for each in one])[
            dataset.info["variant"]
            if dataset.meta.variants and "variant" in dataset.info
            else np.zeros(len(dataset), INDEX)
        ]
        for dataset, one in zip(datasets, own, strict=True)
    ]
    return shared, tuple(variants), np.concatenate(columns).astype(INDEX)


def _meta(datasets: "Sequence[RolloutDataset]", **changes: Any) -> DatasetMeta:
    metas = [dataset.meta for dataset in datasets]
    dropped: dict[str, int] = {}
    for meta in metas:
        for reason, count in meta.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    policies = dict.fromkeys(meta.policy for meta in metas)
    seeds = {meta.seed for meta in metas}
    versions = {
        name: " + ".join(dict.fromkeys(m.versions[name] for m in metas if name in m.versions))
        for name in dict.fromkeys(name for meta in metas for name in meta.versions)
    }
    return replace(
        metas[0],
        **_bounds(metas),
        seed=seeds.pop() if len(seeds) == 1 else None,
        policy=" + ".join(policies),
        versions=versions,
        dropped=dropped,
        **changes,
    )


def _bounds(metas: Sequence[DatasetMeta]) -> dict[str, Any]:
    """Return the narrowest bounds that hold those of all."""
    found: dict[str, Any] = {"bounds_derived": all(meta.bounds_derived for meta in metas)}
    for name, widest in _BOUNDS.items():
        values = [getattr(meta, name) for meta in metas]
        if None not in values:
            wide = widest(values, axis=0).tolist()
            found[name] = tuple(wide) if isinstance(wide, list) else wide
    return found
