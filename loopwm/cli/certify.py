"""`loopwm certify`: what is proven of a model's loop, and what is measured of it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from loopwm.cli.screen import say
from loopwm.cli.stored import load_dataset, load_model, refuse_other_spaces

if TYPE_CHECKING:
    from loopwm.core.certificate import Certificate

# States measured at, spread evenly over the rows of the dataset.
ROWS = 256


@dataclass(frozen=True)
class Certify:
    """Print what is proven of a model's loop from its weights, beside what is measured.

    Proven are a contraction rate and a bound on the state, where the cell has them; measured, the
    largest local gain and the largest norm at some states.

    Examples:
      loopwm certify runs/hopper
      loopwm certify runs/hopper --data data/test --json certificate.json

    Args:
        model: The model; of an ensemble, each member.
        data: Dataset whose observations and actions are measured at; by default random ones.
        json: File to write all numbers to.
    """

    model: Annotated[Positional[Path], arg(metavar="MODEL")]
    data: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    json: Annotated[Path | None, arg(metavar="FILE")] = None

    def run(self) -> None:
        """Certify, print, and write what was asked for."""
        found = self.certificates()
        for index, each in enumerate(found):
            if len(found) > 1:
                say(f"member {index}")
            say(str(each))
        if self.json is not None:
            from loopwm.files import write_json

            write_json(self.json, [asdict(each) for each in found])
            say(f"wrote {self.json}")

    def certificates(self) -> "list[Certificate]":
        """Certify the model, or each member of an ensemble."""
        model = load_model(self.model)
        at: tuple[Any, ...] = ()
        if self.data is not None:
            import numpy as np

            data = load_dataset(self.data)
            refuse_other_spaces(model, data)
            rows = np.linspace(0, len(data) - 1, min(ROWS, len(data))).astype(int)
            at = (data.obs[rows], data.action[rows])
        return [each.certificate(*at) for each in getattr(model, "members", [model])]
