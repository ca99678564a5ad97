"""What a training run has to say for itself when it is over."""

from dataclasses import dataclass, field

from rich.table import Table

from loopwm.train.log import Record


@dataclass(frozen=True, slots=True)
class History:
    """Hold the record of a finished run.

    Attributes:
        records: One dictionary per logged interval and per validation, in order; None stands
            for a number that was not finite.
        updates: Updates made, the skipped ones included.
        skipped: Updates left out because the loss or its gradient was not finite.
        seconds: Time in the training loop, earlier parts of a resumed run included.
        resumed_from: The update at which this run took up an earlier one; 0 if it did not.
    """

    records: list[Record] = field(repr=False)
    updates: int
    skipped: int
    seconds: float
    resumed_from: int = 0

    @property
    def best(self) -> Record | None:
        """The record of the lowest validation value, the earliest of equals."""
        found = [r for r in self.records if r.get("validation") is not None]
        return min(found, key=lambda r: r["validation"] or 0.0) if found else None

    @property
    def last(self) -> Record | None:
        """The record of the last validation."""
        found = [r for r in self.records if "validation" in r]
        return found[-1] if found else None

    def summary(self) -> dict[str, int | float | None]:
        """Return the run in a few numbers, ready for JSON."""
        losses = [r["loss"] for r in self.records if "loss" in r]
        result: dict[str, int | float | None] = {
            "updates": self.updates,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
            "updates_per_second": round(self.updates / max(self.seconds, 1e-9), 3),
            "resumed_from": self.resumed_from,
            "loss": losses[-1] if losses else None,
        }
        if self.last is not None:
            result["validation"] = self.last["validation"]
        if self.best is not None:
            result["best_validation"] = self.best["validation"]
            result["best_update"] = self.best["update"]
        return result

    def table(self) -> Table:
        """Return the summary as a table for the terminal."""
        table = Table("training", "", show_edge=False)
        for name, value in self.summary().items():
            text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else value
            table.add_row(name.replace("_", " "), str(text))
        return table
