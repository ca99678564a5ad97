"""How published files name and store the weights of a TRM."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from loopwm.core.config import Attend
from loopwm.reason.config import ReasonerConfig

# As the reference saves: the compiled loss head around the model, or the same not compiled.
COMPILED = "_orig_mod.model.inner."
PREFIXES = (COMPILED, "model.inner.", "inner.", "")
TABLE = "puzzle_emb.weights"


@dataclass(frozen=True, eq=False)
class Layout:
    """Remember of a file what its weights do not say, so that it can be written again.

    Args:
        names: Names of the tensors in the file's order, without prefix, and how each is stored.
        prefix: What every name begins with.
        safetensors: Whether the file is of that format; else of `torch.save`.
        ordered: Whether the dictionary was an OrderedDict.
        extra: Attributes of that dictionary, or the text of the safetensors header.
    """

    names: dict[str, torch.dtype]
    prefix: str = COMPILED
    safetensors: bool = False
    ordered: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


def published_names(config: ReasonerConfig) -> dict[str, str]:
    """Return, for each published name without prefix, the name of the same tensor here."""
    mixer = "self_attn" if isinstance(config.cell.mixer, Attend) else "mlp_t"
    enter, leave = ("qkv_proj", "o_proj") if mixer == "self_attn" else ("gate_up_proj", "down_proj")
    names = {
        "H_init": "start_answer",
        "L_init": "start_thought",
        "embed_tokens.embedding_weight": "adapter.token",
        "lm_head.weight": "decode.weight",
        "q_head.weight": "judge.weight",
        "q_head.bias": "judge.bias",
        TABLE: "adapter.puzzle",
    }
    for index in range(config.cell.layers):
        theirs, ours = f"L_level.layers.{index}", f"core.cell.blocks.{index}"
        names |= {
            f"{theirs}.{mixer}.{enter}.weight": f"{ours}.mix.enter.weight",
            f"{theirs}.{mixer}.{leave}.weight": f"{ours}.mix.leave.weight",
            f"{theirs}.mlp.gate_up_proj.weight": f"{ours}.transform.enter.weight",
            f"{theirs}.mlp.down_proj.weight": f"{ours}.transform.leave.weight",
        }
    return names


def reference_layout(config: ReasonerConfig, weights: Mapping[str, torch.Tensor]) -> Layout:
    """Return the layout of the reference's own files: compiled, starts in bfloat16.

    A start that bfloat16 would round, as most that are drawn here, is stored in float32: every
    answer depends on it.

    Args:
        config: Sizes of the model.
        weights: Its weights, by their names here.
    """
    names = published_names(config)
    formats = dict.fromkeys(names, torch.float32)
    for start in ("H_init", "L_init"):
        value = weights[names[start]]
        if torch.equal(value.bfloat16().to(value.dtype), value):
            formats[start] = torch.bfloat16
    return Layout(formats)


def dictionary(layout: Layout) -> dict[str, torch.Tensor]:
    """Return an empty dictionary of the kind that the file held."""
    if not layout.ordered:
        return {}
    ordered: OrderedDict[str, torch.Tensor] = OrderedDict()
    ordered.__dict__.update(layout.extra)
    return ordered
