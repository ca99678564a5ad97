"""All that it takes to train something, as one value: what `run` is handed, and what comes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from loopwm.train.config import FitConfig
from loopwm.train.fit import LossFn, Sampler, Validate, run
from loopwm.train.history import History
from loopwm.train.log import Sink

Model = TypeVar("Model", covariant=True)


@dataclass(frozen=True)
class Course(Generic[Model]):
    """Hold what is trained, on what, by which loss.

    Attributes:
        module: What is trained, with whatever goes from one update to the next in its buffers.
        loss: See `loopwm.train.fit.run`, as the following ones.
        sampler: Draws batches.
        finish: Makes the trained model of the module, from the history of training.
        validate: Measures the module, if there is anything to measure it on.
        documents: What a continuation must share.
    """

    module: nn.Module
    loss: LossFn
    sampler: Sampler
    finish: Callable[[History], Model]
    validate: Validate | None = None
    documents: dict[str, Any] = field(default_factory=dict)

    def take(
        self,
        config: FitConfig,
        run_dir: str | Path | None = None,
        sinks: Sequence[Sink] = (),
    ) -> Model:
        """Train, or go on with a run that was stopped; see `loopwm.train.fit.run`.

        Args:
            config: How to train.
            run_dir: Where checkpoints and `metrics.jsonl` go; None writes nothing.
            sinks: Where the records go else.

        Returns:
            The trained model.
        """
        history = run(
            self.module,
            self.loss,
            self.sampler,
            config,
            run_dir=run_dir,
            validate=self.validate,
            documents=self.documents,
            sinks=sinks,
        )
        return self.finish(history)
