"""A reasoner on disk: safetensors and JSON, checksummed; nothing in the files is executed."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loopwm.core.config import Attend, MixTokens, PostNorm
from loopwm.core.shared import stored_weights
from loopwm.errors import ConfigError, StoreError
from loopwm.files import read_tree, write_tree
from loopwm.files.single import damaged
from loopwm.reason.config import ReasonerConfig
from loopwm.reason.model import Reasoner

SCHEMA = 1
# Under this name the sizes stand in a published file.
_NOTE = "loopwm"
_MIXERS = {"attend": Attend, "mix_tokens": MixTokens}


def save(model: Reasoner, path: str | Path) -> None:
    """Write a reasoner to a directory, atomically and checksummed.

    Args:
        model: What to write.
        path: The directory.

    Raises:
        StoreError: If the file system fails; what was there before is kept.
    """
    write_tree(Path(path), *contents(model))


def contents(model: Reasoner) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays and the documents that `save` writes, by name."""
    document = {"schema": SCHEMA, "config": encode(model.config), "lesson": model.lesson}
    return {"reasoner": weights(model)}, {"reasoner": document, "history": model.history}


def weights(model: Reasoner) -> dict[str, np.ndarray]:
    """Return the weights by name; a table that was imported in bfloat16 as the same in float32."""
    values = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    # Numpy has no bfloat16.
    return {n: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for n, v in values.items()}


def load(path: str | Path) -> Reasoner:
    """Read a reasoner that `save` wrote.

    Args:
        path: The directory.

    Returns:
        The reasoner in evaluation mode, without gradients.

    Raises:
        StoreError: If it is missing, damaged, no reasoner, or of another version.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(
            f"there is no reasoner {path}; train one: loopwm arc train TASK --out {path}"
        )
    tree = read_tree(path)
    document = tree.documents.get("reasoner")
    if not isinstance(document, dict):
        raise StoreError(f"{path} holds no reasoner; world models are read by lw.load")
    if document.get("schema") != SCHEMA:
        raise StoreError(
            f"{path} has schema {document.get('schema')}, this version reads {SCHEMA}; "
            "it needs another version of loopwm"
        )
    model = Reasoner(decode(document["config"], str(path)))
    try:
        model.load_state_dict(stored_weights(tree, "reasoner", "core.cell"))
    except RuntimeError as error:
        raise StoreError(f"the weights in {path} do not fit its configuration: {error}") from error
    model.history, model.lesson = tree.documents["history"], document["lesson"]
    return model.requires_grad_(False).eval()


def encode(config: ReasonerConfig) -> dict[str, Any]:
    """Return a configuration as JSON values; the mixer names its type."""
    mixer = config.cell.mixer
    kind = next((name for name, each in _MIXERS.items() if isinstance(mixer, each)), None)
    result = asdict(config)
    result["cell"]["mixer"] = None if kind is None else {"type": kind, **result["cell"]["mixer"]}
    return result


def decode(value: dict[str, Any], path: str = "the file") -> ReasonerConfig:
    """Return the configuration that `encode` wrote.

    Raises:
        StoreError: If it names a mixer or a setting that this version does not know.
    """
    try:
        cell = dict(value["cell"])
        mixer = cell.pop("mixer")
        if mixer is not None:
            mixer = _MIXERS[mixer["type"]](**{k: v for k, v in mixer.items() if k != "type"})
        return ReasonerConfig(**{**value, "cell": PostNorm(mixer=mixer, **cell)})
    except (KeyError, TypeError, ConfigError) as error:
        raise StoreError(
            f"{path} holds settings that this version does not take: {error}"
        ) from error


def note(config: ReasonerConfig) -> dict[str, str]:
    """Return what a published file is told of the sizes that its weights do not say."""
    return {_NOTE: json.dumps(encode(config))}


def noted(extra: Mapping[str, Any], path: str) -> ReasonerConfig | None:
    """Return the sizes that `note` told a file; None where it was told none.

    Raises:
        StoreError: If they are damaged.
    """
    if _NOTE not in extra:
        return None
    try:
        return decode(json.loads(extra[_NOTE]), path)
    except (TypeError, ValueError) as error:
        raise damaged(Path(path), f"what it says of its sizes is no JSON ({error})") from error
