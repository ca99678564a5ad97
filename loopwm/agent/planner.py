"""What a planner is: it looks ahead in a model and returns the next action."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Planner(Protocol):
    """Choose actions by looking ahead.

    What a planner found for one step is where its search begins at the next one, so it must be
    told where episodes begin.

    Attributes:
        model: What the planner looks ahead in; a model that was trained further may replace it
            between two calls.
    """

    model: Any

    def plan(self, obs: Any) -> Any:
        """Return an action [A] for an observation [O], or actions [B, A] for [B, O].

        An action of a Discrete space is an int64 without an axis.
        """
        ...

    def reset(self, mask: Any = None) -> None:
        """Forget where the search stood, of all rows or of those where mask [B] is True."""
        ...
