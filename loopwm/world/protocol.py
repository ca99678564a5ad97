"""The verbs of a world model, which planners, environments and evaluation build on."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from loopwm.world.prediction import Prediction

State = tuple[Tensor, ...]


@runtime_checkable
class WorldModelLike(Protocol):
    """Say what planners, imagination, evaluation and comparison need of a model.

    The state is a tuple of tensors with leading axis B that can be indexed by rows. Observations
    and actions come in environment units: from training and evaluation as float32 tensors on the
    model's device, from planners as tensors of the caller's type, from imagined environments as
    numpy arrays; indices of discrete actions are int64. A model of your own that computes in
    float32 brings them there by `torch.as_tensor(obs, dtype=torch.float32)`.
    """

    def start(self, obs: Any) -> State:
        """Return the state of rows whose first observation is obs [B, O]."""
        ...

    def observe(self, state: State, action: Any, obs: Any) -> State:
        """Take in the action [B, A] and the real observation [B, O] that followed it."""
        ...

    def step(self, state: State, action: Any) -> tuple[State, Prediction]:
        """Imagine one step under the action [B, A]."""
        ...
