"""The exponential moving average of weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Hold the moving average of parameters: `average <- d * average + (1 - d) * parameter`.

    The decay d rises from 1/10 to its final value as `(1 + n) / (10 + n)`, n counting updates,
    so that a short run is not held back by its random start.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        """Start at the present value of `parameters`."""
        self.decay = decay
        self.tensors = [p.detach().clone() for p in parameters]
        self._parameters = [p.detach() for p in parameters]

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Take in the present parameters after `count` earlier updates."""
        decay = min(self.decay, (1 + count) / (10 + count))
        get_ema_multi_avg_fn(decay)(self.tensors, self._parameters, count)

    def apply(self) -> None:
        """Overwrite the parameters with their average."""
        _copy(self._parameters, self.tensors)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters be their average inside a `with` block."""
        kept = [p.clone() for p in self._parameters]
        self.apply()
        try:
            yield
        finally:
            _copy(self._parameters, kept)


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
