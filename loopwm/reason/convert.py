"""Published TRM weights in and out: read without running code, checked by name and shape."""

import os
import tempfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from loopwm.core.settings import whole
from loopwm.errors import ConfigError, StoreError
from loopwm.files.single import damaged, make_directory, reported, sync_directory
from loopwm.reason.config import ReasonerConfig
from loopwm.reason.layout import (
    PREFIXES,
    TABLE,
    Layout,
    dictionary,
    published_names,
    reference_layout,
)
from loopwm.reason.model import Reasoner
from loopwm.reason.presets import PRESETS
from loopwm.reason.stored import note, noted

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_CHUNK = 2**16


def import_trm(
    path: str | Path,
    config: ReasonerConfig | None = None,
    *,
    puzzles: Literal["keep", "drop", "mean"] = "keep",
    num_puzzles: int | None = None,
) -> Reasoner:
    """Read a published TRM (arXiv 2510.04871): ARC, Sudoku and Maze, attention and perceptron.

    Files of `torch.save` and safetensors are read; neither may run code. What a published file does
    not say (heads, cycles, length) comes from the preset whose weights have its names and shapes,
    or from `config`; what `export_trm` wrote says it.

    Args:
        path: The file.
        config: Sizes, for models that no preset describes, or several; its number of puzzles is
            not used.
        puzzles: "keep" leaves what was learned of each puzzle in the file and maps it into
            memory; "drop" forgets it, "mean" gives every new puzzle the mean of the old.
        num_puzzles: Number of new puzzles, with "drop" and "mean" alone, at least 1; None makes 1.

    Returns:
        The model in evaluation mode, without gradients; `export_trm` writes it back.

    Raises:
        ConfigError: If `puzzles` or `num_puzzles` is out of range, or several presets describe the
            file.
        StoreError: If the file is damaged or no such model; unknown and missing names, wrong shapes
            and weights that are not finite are named. A table that is kept is not looked through.
    """
    if puzzles not in ("keep", "drop", "mean"):
        raise ConfigError(f'puzzles must be "keep", "drop" or "mean", got {puzzles!r}')
    if puzzles == "keep" and num_puzzles is not None:
        raise ConfigError(
            'num_puzzles needs puzzles="drop" or "mean": "keep" keeps those of the file'
        )
    count = 1 if num_puzzles is None else whole("num_puzzles", num_puzzles)
    if count < 1:
        raise ConfigError(f"num_puzzles must be at least 1, got {num_puzzles}")
    path = Path(path)
    stored, layout = _read(path)
    config = config or noted(layout.extra, str(path)) or _preset_for(path, stored)
    names = published_names(config)
    _check_names(path, stored, names)
    config = _sized(config, stored)
    model = _skeleton(config)
    ours = model.state_dict()
    for name, tensor in stored.items():
        _check_shape(path, name, tensor, ours[names[name]])
    table = stored.pop(TABLE)
    for name, tensor in stored.items():
        _check_finite(path, name, tensor)
    if puzzles != "keep":
        table = _new_rows(table, count, mean=puzzles == "mean")
        _check_finite(path, TABLE, table)
        model.config = replace(config, puzzles=count)
    # Copied, because a mapped file may change; the table is too large for that.
    weights = {names[name]: tensor.float().clone() for name, tensor in stored.items()}
    model.load_state_dict(weights, assign=True, strict=False)
    model.adapter.hold(table)
    model.layout = layout
    return model.requires_grad_(False).eval()


def export_trm(model: Reasoner, path: str | Path) -> None:
    """Write a model as published ones are stored, atomically.

    An imported model is written as its file was: names, their order, number formats and file
    format. If nothing has changed the tensors are equal byte for byte, and so is the whole file if
    its name is the same (`torch.save` stores the name) and the same versions wrote it. Another
    model is written as the reference saves one, or as safetensors if `path` ends so; its starts in
    float32 where the reference's bfloat16 would round them, and its sizes with it, so that it
    answers the same when it is imported again.

    Args:
        model: What to write.
        path: The file.

    Raises:
        ConfigError: If it is no TRM: without a mixer, or without a thinking latent (`inner=0`).
        StoreError: If the file system fails; what was there before is kept.
    """
    path = Path(path)
    if model.config.cell.mixer is None or not model.config.inner:
        raise ConfigError(
            "a TRM mixes its tokens and refines a thinking latent, and this reasoner has "
            f"mixer={model.config.cell.mixer}, inner={model.config.inner}: keep it by "
            "loopwm.reason.stored.save"
        )
    ours, names = model.state_dict(), published_names(model.config)
    layout = model.layout
    if layout is None:
        layout = reference_layout(model.config, ours)
        safe = path.suffix == ".safetensors"
        layout = replace(layout, safetensors=safe, extra=note(model.config))
    tensors = dictionary(layout)
    for name, dtype in layout.names.items():
        tensors[layout.prefix + name] = ours[names[name]].detach().cpu().to(dtype).contiguous()
    with reported("write", path):
        make_directory(path.parent)
        # In a folder of its own the temporary file can have the final name.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            if layout.safetensors:
                save_file(dict(tensors), temporary, metadata=layout.extra or None)
            else:
                torch.save(tensors, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        sync_directory(path.parent)


def _read(path: Path) -> tuple[dict[str, Tensor], Layout]:
    """Return the tensors of a file by name without prefix, and its layout."""
    with reported("read", path), path.open("rb") as file:
        head = file.read(9)
    try:
        if head[:4] == _ZIP:
            loaded: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            extra = dict(getattr(loaded, "__dict__", {}))
        elif head[8:] == b"{":
            with safe_open(path, framework="pt") as file:
                loaded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                extra = file.metadata() or {}
        elif head[:1] == _PICKLE:
            raise StoreError(
                f"{path} is a pickle, such as torch.save wrote before torch 1.6: torch.load it, if "
                "you trust it, and torch.save it again"
            )
        else:
            raise StoreError(f"{path} is neither a file of torch.save nor of safetensors")
    except StoreError:
        raise
    # torch raises whatever the file led it into: a refused pickle, a broken archive, a wrong type.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise damaged(path, f"{reason} (files that hold more than tensors are refused)") from error
    if not _are_tensors(loaded):
        entries = loaded.items() if isinstance(loaded, dict) else ()
        inside = next((name for name, each in entries if _are_tensors(each)), None)
        remedy = f"; under {inside!r} it does: torch.save that alone" if inside else ""
        raise StoreError(
            f"{path} does not hold tensors by name, but {type(loaded).__name__}{remedy}"
        )
    prefix = next(p for p in PREFIXES if all(name.startswith(p) for name in loaded))
    stored = {name.removeprefix(prefix): tensor for name, tensor in loaded.items()}
    layout = Layout(
        names={name: tensor.dtype for name, tensor in stored.items()},
        prefix=prefix,
        safetensors=head[:4] != _ZIP,
        ordered=isinstance(loaded, OrderedDict),
        extra=extra,
    )
    return stored, layout


def _are_tensors(loaded: Any) -> bool:
    return (
        isinstance(loaded, dict)
        and bool(loaded)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items())
    )


def _preset_for(path: Path, stored: dict[str, Tensor]) -> ReasonerConfig:
    """Return the one preset with the names and shapes of the file.

    Where none has, it is the first with its vocabulary and mixer, for the error to tell where the
    file differs.
    """
    attends = any(".self_attn." in name for name in stored)
    mixer = "self_attn" if attends else "mlp_t"
    embedding = stored.get("embed_tokens.embedding_weight")
    near = {
        name: config
        for name, config in PRESETS.items()
        if embedding is not None
        and len(embedding) == config.vocabulary
        and any(f".{mixer}." in each for each in published_names(config))
    }
    fitting = [name for name, config in near.items() if _fits(config, stored)]
    if len(fitting) > 1:
        raise ConfigError(
            f"{path} fits the presets {' and '.join(fitting)}, which differ in what a file does "
            f'not say: pass config=preset("{fitting[0]}"), or --preset {fitting[0]}'
        )
    if near:
        return near[fitting[0] if fitting else next(iter(near))]
    size = "no vocabulary" if embedding is None else f"a vocabulary of {len(embedding)}"
    raise StoreError(
        f"{path} has {size}, which no preset has with this mixer; "
        f"its names begin with {sorted(stored)[:3]}; pass config= for a model of other sizes"
    )


def _fits(config: ReasonerConfig, stored: dict[str, Tensor]) -> bool:
    """Say whether the file has all names and shapes of a model of these sizes."""
    names = published_names(config)
    if stored.keys() != names.keys() or stored[TABLE].ndim != 2:
        return False
    try:
        ours = _skeleton(_sized(config, stored)).state_dict()
    except ConfigError:
        return False
    return all(tensor.shape == ours[names[name]].shape for name, tensor in stored.items())


def _sized(config: ReasonerConfig, stored: dict[str, Tensor]) -> ReasonerConfig:
    """Return the sizes with as many puzzles as the file has, each as wide."""
    return replace(config, puzzles=len(stored[TABLE]), puzzle_width=stored[TABLE].shape[1])


def _check_names(path: Path, stored: dict[str, Tensor], names: dict[str, str]) -> None:
    unknown, missing = sorted(stored.keys() - names.keys()), sorted(names.keys() - stored.keys())
    if unknown or missing:
        raise StoreError(
            f"{path} is not such a model: unknown names {unknown}, missing names {missing}; "
            "pass config= if it has another mixer or other layers"
        )
    if stored[TABLE].ndim != 2 or not len(stored[TABLE]):
        raise StoreError(f"{path}: {TABLE} must have two axes, got {tuple(stored[TABLE].shape)}")


def _check_shape(path: Path, name: str, tensor: Tensor, ours: Tensor) -> None:
    if tensor.shape != ours.shape or not tensor.is_floating_point():
        raise StoreError(
            f"{path}: {name} has shape {tuple(tensor.shape)} of {tensor.dtype}, and must have "
            f"{tuple(ours.shape)} of floating-point numbers; pass config= for other sizes"
        )


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    wrong = int((~tensor.isfinite()).sum())
    if wrong:
        raise StoreError(f"{path}: {wrong} numbers of {name} are NaN or infinite: no answer is")


def _skeleton(config: ReasonerConfig) -> Reasoner:
    """Return a model whose weights take no memory."""
    with torch.device("meta"):
        return Reasoner(config)


def _new_rows(table: Tensor, count: int, mean: bool) -> Tensor:
    row = torch.zeros(table.shape[1], dtype=torch.float64)
    if mean:
        # In parts, so that the whole table is never in memory.
        for part in table.split(_CHUNK):
            row += part.double().sum(0)
        row /= len(table)
    return row.float().expand(count, -1).clone()
