"""From configuration to model and back: the only registry, and the files of a trained model."""

import re
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from loopwm.core import depth, grad
from loopwm.core.config import Attend, Bounded, Contractive, PostNorm
from loopwm.core.shared import stored_weights
from loopwm.data.meta import DatasetMeta
from loopwm.data.normalise import Statistics
from loopwm.errors import ConfigError, StoreError
from loopwm.files import Tree, read_tree, write_tree
from loopwm.world import config as configs
from loopwm.world.baseline import GRUDynamics, MLPDynamics, UntiedDynamics
from loopwm.world.config import GRU, MLP, RSSM, ModelConfig, Untied, WorldConfig
from loopwm.world.ensemble import Ensemble
from loopwm.world.latent import action_width
from loopwm.world.looped import LoopedDynamics
from loopwm.world.model import WorldModel
from loopwm.world.rssm import RSSMDynamics
from loopwm.world.terms import Objective

SCHEMA = 4
_DYNAMICS = {
    WorldConfig: LoopedDynamics,
    MLP: MLPDynamics,
    Untied: UntiedDynamics,
    GRU: GRUDynamics,
    RSSM: RSSMDynamics,
}
# Every type that a saved configuration may name; a file cannot ask for anything else.
_TYPES = {
    f"{module}.{kind.__name__}": kind
    for module, kinds in {
        "world": (
            *(WorldConfig, MLP, Untied, GRU, RSSM),
            *(configs.Mean, configs.Gaussian, Objective),
        ),
        "core": (Bounded, Contractive, PostNorm, Attend),
        "depth": (depth.Fixed, depth.Uniform, depth.Poisson, depth.Flow),
        "grad": (grad.Full, grad.Checkpointed, grad.LastK, grad.Phantom, grad.Implicit),
    }.items()
    for kind in kinds
}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_CUSTOM = "custom"


def build(config: ModelConfig, meta: DatasetMeta, statistics: Statistics, seed: int) -> WorldModel:
    """Build a model with random weights.

    Args:
        config: Configuration of the looped model or of a baseline.
        meta: Description of the data: spaces, environment.
        statistics: Statistics of the training data.
        seed: Seed of the weights; torch's global generator is left as it was.
    """
    make = _DYNAMICS.get(type(config))
    if make is None:
        known = ", ".join(kind.__name__ for kind in _DYNAMICS)
        raise ConfigError(
            f"config must be one of {known}, got {type(config).__name__}; "
            "for a model of your own, implement lw.WorldModelLike"
        )
    # An angle is shown as its sine and cosine.
    shown = len(statistics.obs_mean) + len(meta.angles)
    encoded = config.width if getattr(config, "encoder", None) is not None else shown
    actions = action_width(meta)
    inputs = encoded + (getattr(config, "frames", 1) - 1) * shown + actions + 1
    # Only a model that infers its latent must tell observations from actions.
    apart = {"actions": actions} if isinstance(config, RSSM) else {}
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds the generators of all GPUs too.
        torch.default_generator.manual_seed(seed)
        dynamics: nn.Module = make(inputs, config, **apart)  # type: ignore[arg-type]
        model = WorldModel(config, meta, statistics, dynamics)
    _keep_from_muon(model)
    return model.float()  # Whatever torch's default type is: batches are float32.


def save(model: WorldModel | Ensemble, path: Path) -> None:
    """Write a model, or an ensemble's members, to a directory, atomically and checksummed.

    Code is not written: what `use` was given, and `core.solver`, are to be given again.

    Raises:
        StoreError: If the file system fails; what was there before is kept.
    """
    write_tree(path, *contents(model))


def contents(model: WorldModel | Ensemble) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays and the documents that `save` writes, by name."""
    members = model.members if isinstance(model, Ensemble) else [model]
    dtype = str(members[0].normaliser.obs_mean.dtype).removeprefix("torch.")
    tensors, documents = {}, {}
    for index, member in enumerate(members):
        tensors[f"weights-{index}"] = {
            # numpy has no bfloat16, of whose numbers float32 holds each.
            name: (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
            for name, value in member.state_dict().items()
        }
        tensors[_statistics_name(index)] = {
            f.name: np.asarray(getattr(member.stats, f.name))
            for f in fields(member.stats)
            if getattr(member.stats, f.name) is not None
        }
        documents[f"history-{index}"] = member.history
    first = members[0]
    documents["model"] = {
        "schema": SCHEMA,
        "kind": "ensemble" if isinstance(model, Ensemble) else "model",
        "members": len(members),
        "dtype": dtype,
        "config": encode(first.config),
        "margin": getattr(first, "margin", None),
        "meta": first.meta.to_json(),
    }
    return tensors, documents


def load(path: str | Path, *, config: ModelConfig | None = None) -> WorldModel | Ensemble:
    """Read a model that `save` wrote; nothing in the files is ever executed.

    Args:
        path: Directory of the model.
        config: The configuration, needed only if it held an encoder, heads or a gradient mode of
            your own: those are code, which a file does not carry.

    Returns:
        The model in evaluation mode, or the ensemble.

    Raises:
        StoreError: If the files are missing, damaged, of a newer schema, or do not fit `config`.
    """
    tree = read_tree(path)
    document = tree.documents.get("model")
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise StoreError(
            f"{path} holds no model of schema {SCHEMA}; it was saved by another version of loopwm "
            "or is a dataset or a checkpoint"
        )
    if config is not None and encode(config) != document["config"]:
        raise StoreError(f"config= differs from the one that {path} was saved with")
    chosen: ModelConfig = config or decode(document["config"], str(path))
    meta = DatasetMeta.from_json(document["meta"])
    members = [_load_member(tree, i, chosen, meta, path) for i in range(document["members"])]
    return Ensemble(members) if document["kind"] == "ensemble" else members[0]


# Where in memory an object lies, which its `repr` tells.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}


def _load_member(
    tree: Tree,
    index: int,
    config: ModelConfig,
    meta: DatasetMeta,
    path: str | Path,
) -> WorldModel:
    name = _statistics_name(index)
    # Earlier versions wrote those of the first member alone.
    name = name if name in tree.arrays else _statistics_name(0)
    model = build(config, meta, Statistics(**tree.tensors(name)), seed=0)
    # Earlier versions wrote models in float32 alone.
    dtype = tree.documents["model"].get("dtype", "float32")
    if dtype not in _DTYPES:
        raise StoreError(f"the model in {path} is in {dtype!r}, not one of {', '.join(_DTYPES)}")
    model.to(_DTYPES[dtype])
    # Earlier versions kept that of the configuration alone.
    model.margin = tree.documents["model"].get("margin", model.margin)
    try:
        model.load_state_dict(stored_weights(tree, f"weights-{index}", "dynamics.core.cell"))
    except RuntimeError as error:
        raise StoreError(f"the weights in {path} do not fit its configuration: {error}") from error
    model.history = tree.documents[f"history-{index}"]
    return model.requires_grad_(False).eval()


def _statistics_name(index: int) -> str:
    return f"statistics-{index}" if index else "statistics"


def encode(value: Any) -> Any:
    """Return a configuration as JSON values; each dataclass names its type."""
    if is_dataclass(value) and type(value) in _NAMES:
        inner = {f.name: encode(getattr(value, f.name)) for f in fields(value)}
        return {"type": _NAMES[type(value)], **inner}
    if isinstance(value, dict):
        return {key: encode(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [encode(each) for each in value]
    if isinstance(value, str | int | float | None):
        return value
    return {_CUSTOM: _called(value)}  # Code of the user's own.


def _called(code: Any) -> str:
    """Return the name of a callable, with what is bound to it."""
    if isinstance(code, partial):
        bound = [_bound(each) for each in code.args]
        bound += [f"{name}={_bound(each)}" for name, each in code.keywords.items()]
        return f"{_called(code.func)}({', '.join(bound)})"
    if is_dataclass(code) and not isinstance(code, type):
        # With its settings, which tell it from others of its kind.
        settings = [f"{f.name}={_bound(getattr(code, f.name))}" for f in fields(code)]
        return f"{type(code).__qualname__}({', '.join(settings)})"
    return getattr(code, "__qualname__", type(code).__name__)


def _bound(value: Any) -> str:
    """Return what is bound to a callable, in words that are the same in every process."""
    if callable(value) or is_dataclass(value):
        return _called(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_bound(each)}' for key, each in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_bound, value))})"
    return _ADDRESS.sub("", repr(value))


def decode(value: Any, path: str = "the file") -> Any:
    """Return the configuration that `encode` wrote.

    Raises:
        StoreError: If it names an unknown type, or code that the file does not carry.
    """
    if isinstance(value, list):
        return tuple(decode(each, path) for each in value)
    if not isinstance(value, dict):
        return value
    if _CUSTOM in value:
        raise StoreError(
            f"{path} was saved with code of your own ({value[_CUSTOM]}): "
            "pass the same configuration as lw.load(path, config=...)"
        )
    inner = {key: decode(each, path) for key, each in value.items() if key != "type"}
    if "type" not in value:
        return inner
    kind = _TYPES.get(value["type"])
    if kind is None:
        raise StoreError(
            f"{path} names the unknown configuration {value['type']!r}; "
            "it needs a newer version of loopwm"
        )
    try:
        return kind(**inner)
    except (TypeError, ConfigError) as error:
        raise StoreError(
            f"{path} holds settings of {value['type']} that this version does not take: {error}"
        ) from error


def _keep_from_muon(model: WorldModel) -> None:
    """Leave inputs and outputs of the network to AdamW (see `train.config.Muon`)."""
    enter: nn.Module | None = getattr(model.dynamics, "enter", None)
    ends = getattr(model.dynamics, "ends", () if enter is None else (enter,))
    for module in (*ends, model.heads):
        for parameter in module.parameters():
            parameter._no_muon = True  # type: ignore[attr-defined]
