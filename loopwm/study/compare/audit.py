"""Was every arm given the same? What each training really had is recorded, and compared."""

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loopwm.data.normalise import Statistics
from loopwm.data.store import COLUMNS, RolloutDataset
from loopwm.study.compare.terms import REFERENCE, Terms, shared
from loopwm.world.terms import Objective

Record = Mapping[str, Any]

# What a record says of one model alone; everything else must be equal.
_OWN = frozenset({"before", "copy"})
# An untrained model that errs less than this share of what copying the observation errs has seen
# data. Chance takes off a tenth, and a prior such as position plus velocity a third.
_SUSPICIOUS = 0.5


@dataclass(frozen=True)
class Difference:
    """Say in what an arm differs from the others.

    Attributes:
        arm: Name of the arm.
        what: What differs.
        has: What the arm had.
        others: What most arms had.
    """

    arm: str
    what: str
    has: Any
    others: Any

    def __str__(self) -> str:
        """Return the difference as a sentence."""
        return f"{self.arm}: {self.what} {self.has} instead of {self.others}"


def digest(data: RolloutDataset) -> str:
    """Return what tells datasets apart: rows, and a checksum of columns and description."""
    check = zlib.crc32(json.dumps(data.meta.to_json(), sort_keys=True).encode())
    columns = {name: getattr(data, name) for name in COLUMNS} | dict(data.info)
    return f"{len(data)}-{checksum(columns, check)}"


def checksum(arrays: Mapping[str, Any], check: int = 0) -> str:
    """Return what tells arrays apart, by name and content, going on from an earlier sum."""
    for name in sorted(arrays):
        check = zlib.crc32(name.encode(), check)
        check = zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes(), check)
    return f"{check:08x}"


def record(
    train: RolloutDataset,
    terms: Terms,
    objective: Objective,
    margin: float | None,
    histories: Sequence[Sequence[Mapping[str, Any]]],
    stats: Statistics | None = None,
) -> dict[str, Any]:
    """Record what a training had, from what it was handed and from what it did.

    Args:
        train: The data that the training was handed.
        terms: The terms that it was given.
        objective: The loss that it had.
        margin: Range that the model's imagination is held to.
        histories: The metrics that each member's training left: its updates, and the windows that
            it drew, are counted there.
        stats: Statistics that the model took of the data that it was trained on; None if it has
            none.
    """
    fit = terms.fit
    taken = {} if stats is None else asdict(stats)
    known = {name: each for name, each in taken.items() if each is not None}
    return {
        "data": digest(train),
        **({"statistics": checksum(known)} if known else {}),
        "updates": _counted(histories, "update"),
        "windows": _counted(histories, "samples"),
        "steps": f"{fit.horizon}, rising over {fit.horizon_warmup:g} of the updates",
        "loss": shared(objective),
        "margin": margin,
        "optimiser": {
            name: value
            for name, value in fit.fingerprint().items()
            if name in ("optimizer", "weight_decay", "clip", "ema", "warmup", "final_lr")
        },
    }


def _counted(histories: Sequence[Sequence[Mapping[str, Any]]], what: str) -> str:
    """Return the last count of every member's training, once where all are the same."""
    last = {max((int(r[what]) for r in each if what in r), default=0) for each in histories}
    return "/".join(map(str, sorted(last)))


def evaluation(test: RolloutDataset, valid: RolloutDataset, terms: Terms) -> dict[str, Any]:
    """Record what a model is measured on."""
    return {
        "test": digest(test),
        "valid": digest(valid),
        "measured": f"at {terms.horizons} steps, {terms.windows} windows, context {terms.context}",
    }


def differences(records: Mapping[str, Sequence[Record]]) -> list[Difference]:
    """Find the arms that were not given what the others were given.

    Args:
        records: The records of each arm's models, by the name of the arm.

    Returns:
        One for each arm and kind of thing. What most models of the reference have counts as what
        all should have; without one, what most models of any arm have.
    """
    every = [each for several in records.values() for each in several]
    names = dict.fromkeys(name for each in every for name in each if name not in _OWN)
    found = []
    for name in names:
        norm = records.get(REFERENCE) or every
        usual = Counter(_text(each.get(name)) for each in norm).most_common(1)[0][0]
        for arm, several in records.items():
            # Modules of the user's own take no statistics that could be compared.
            told = [each for each in several if name in each or name != "statistics"]
            other = [each.get(name) for each in told if _text(each.get(name)) != usual]
            if other:
                found.append(Difference(arm, name, other[0], usual))
    return found + _knowing(records)


def _knowing(records: Mapping[str, Sequence[Record]]) -> list[Difference]:
    """Find arms whose models predict before they were trained: they have seen other data."""
    found = []
    for arm, several in records.items():
        for each in several:
            before, copy = each.get("before"), each.get("copy")
            if before is not None and copy is not None and before < _SUSPICIOUS * copy:
                what, least = "before any update an error of", _SUSPICIOUS * copy
                found.append(Difference(arm, what, f"{before:.3g}", f"at least {least:.3g}"))
                break
    return found


def _text(value: Any) -> str:
    """Compare by value, whether it comes from memory or from a file of JSON."""
    if isinstance(value, Mapping):
        return str({key: _text(value[key]) for key in sorted(value)})
    if isinstance(value, list | tuple):
        return str([_text(each) for each in value])
    return f"{float(value):g}" if isinstance(value, int | float) else str(value)
