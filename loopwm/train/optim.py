"""Which parameter is trained by which optimiser, and one guarded step of all of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from loopwm.errors import ConfigError
from loopwm.train import atan2, muon
from loopwm.train.config import AdamATan2, AdamW, FitConfig, SignSGD
from loopwm.train.rows import SignSGDRows, is_table, values

Ratios = Mapping[int, float]


class Abreast(nn.ModuleList):
    """Hold modules that train side by side, each with a loss of its own, of which the sum is given.

    Gradients are clipped by the norm of each module's; if one of them is not finite, the update is
    left out for all.

    Args:
        modules: The modules.
        ratios: Learning rate of each over that of the settings; by default 1.
    """

    def __init__(self, modules: Sequence[nn.Module], ratios: Sequence[float] | None = None) -> None:
        super().__init__(modules)
        self.ratios = [1.0] * len(modules) if ratios is None else list(ratios)


class Stepper:
    """Update the parameters of a module, or leave them alone when a gradient is not finite."""

    def __init__(self, module: nn.Module, config: FitConfig) -> None:
        """Make the optimisers for the trainable parameters of `module`."""
        modules, ratios = [module], [1.0]
        if isinstance(module, Abreast):
            modules, ratios = list(module), module.ratios
        self._parts = [[p for p in part.parameters() if p.requires_grad] for part in modules]
        self.parameters = [p for part in self._parts for p in part]
        pairs = zip(ratios, self._parts, strict=True)
        own = {id(p): ratio for ratio, part in pairs for p in part}
        self.optimizers = build_optimizers(self.parameters, config, own)
        self.dense = [p for p in self.parameters if not is_table(p)]
        self._clip = math.inf if config.clip is None else config.clip

    def step(self, loss: Tensor, lr: float) -> tuple[float, float, bool]:
        """Update the parameters from their gradients, then drop the gradients.

        Args:
            loss: The scalar whose backward pass has run.
            lr: Learning rate of this update.

        Returns:
            The loss, the global norm of its gradient before clipping, and whether both are
            finite. If not, neither the parameters nor the state of the optimisers have changed.
            Of modules abreast, the means over them.

        Raises:
            ConfigError: If no parameter has a gradient.
        """
        gradients = [[values(p.grad) for p in part if p.grad is not None] for part in self._parts]
        if not all(gradients):
            raise ConfigError("the loss depends on no parameter of the module that is trained")
        totals = [get_total_norm(part) for part in gradients]
        # One transfer, hence one synchronisation, for all numbers.
        value, *norms = torch.stack([each.detach().float() for each in (loss, *totals)]).tolist()
        value, norm = value / len(norms), sum(norms) / len(norms)
        finite = math.isfinite(value) and math.isfinite(norm)
        if finite:
            for part, own, total in zip(self._parts, norms, totals, strict=True):
                if own > self._clip:
                    # Tables step by the sign, which does not change with the length.
                    dense = [p for p in part if not is_table(p)]
                    clip_grads_with_norm_(dense, self._clip, total)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr * group.get("lr_ratio", 1)
                optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None
        return value, norm, finite

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the optimisers by name."""
        return {
            f"{which}.{index}.{key}": tensor
            for which, optimizer in enumerate(self.optimizers)
            for index, entry in optimizer.state_dict()["state"].items()
            for key, tensor in entry.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `tensors` returned."""
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.optimizers]
        for name, tensor in tensors.items():
            which, index, key = name.split(".", 2)
            states[int(which)].setdefault(int(index), {})[key] = tensor
        for optimizer, state in zip(self.optimizers, states, strict=True):
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})


def build_optimizers(
    parameters: Sequence[nn.Parameter], config: FitConfig, ratios: Ratios = MappingProxyType({})
) -> list[torch.optim.Optimizer]:
    """Return the optimisers that together hold every parameter once.

    Weight decay acts on parameters of two dimensions and more, unless they carry the attribute
    `_no_weight_decay`; AdamATan2 decays all. Muon takes matrices, unless they carry `_no_muon`.
    Tables, which carry `_sparse_rows`, are stepped by the sign of their touched rows' gradients.

    Args:
        parameters: What is to be trained.
        config: Settings; the learning rate is set anew at each step.
        ratios: Learning rate over that of the settings, by the `id` of a parameter, where not 1;
            tables have their own.

    Returns:
        One optimiser for each kind of parameter that there is.

    Raises:
        ConfigError: If nothing is to be trained.
    """
    if not parameters:
        raise ConfigError("the module has no parameter with requires_grad=True: nothing to train")
    dense = [p for p in parameters if not is_table(p)]
    tables = [p for p in parameters if is_table(p)]
    optimizers = _dense(dense, config, ratios) if dense else []
    return [*optimizers, _tables(tables, config)] if tables else optimizers


def _dense(
    parameters: Sequence[nn.Parameter], config: FitConfig, ratios: Ratios
) -> list[torch.optim.Optimizer]:
    choice = config.optimizer
    if isinstance(choice, AdamW):
        return [_adamw(parameters, choice, config, ratios)]
    if isinstance(choice, AdamATan2):
        groups = list(_groups(parameters, config.weight_decay, ratios, every=True))
        return [atan2.AdamATan2(groups, config.lr, choice.betas, config.weight_decay)]
    matrices = [p for p in parameters if p.ndim == 2 and not hasattr(p, "_no_muon")]
    taken = {id(p) for p in matrices}
    others = [p for p in parameters if id(p) not in taken]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        groups = list(_groups(matrices, config.weight_decay, ratios))
        optimizers.append(muon.Muon(groups, config.lr, choice.momentum))
    if others:
        optimizers.append(_adamw(others, choice.adamw, config, ratios))
    return optimizers


def _tables(tables: Sequence[nn.Parameter], config: FitConfig) -> SignSGDRows:
    choice = config.optimizer.rows if isinstance(config.optimizer, AdamATan2) else SignSGD()
    # The schedule shapes both learning rates; the ratio is what makes this one another.
    group = {"params": list(tables), "lr_ratio": choice.lr / config.lr}
    return SignSGDRows([group], choice.lr, choice.weight_decay)


def _adamw(
    parameters: Sequence[nn.Parameter], choice: AdamW, config: FitConfig, ratios: Ratios
) -> torch.optim.AdamW:
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    groups = list(_groups(parameters, config.weight_decay, ratios))
    return torch.optim.AdamW(
        groups, lr=config.lr, betas=choice.betas, eps=choice.eps, fused=fused or None
    )


def _groups(
    parameters: Sequence[nn.Parameter],
    weight_decay: float,
    ratios: Ratios,
    *,
    every: bool = False,
) -> Iterator[dict[str, object]]:
    """Group parameters by learning rate, and by whether they decay, unless `every` one does."""
    by_kind: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for p in parameters:
        free = not every and (p.ndim < 2 or hasattr(p, "_no_weight_decay"))
        by_kind.setdefault((free, ratios.get(id(p), 1.0)), []).append(p)
    for (free, ratio), alike in sorted(by_kind.items(), key=lambda item: item[0]):
        yield {"params": alike, "weight_decay": 0.0 if free else weight_decay, "lr_ratio": ratio}
