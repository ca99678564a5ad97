"""From the choice of a cell to the cell."""

from loopwm.core.cell import BoundedCell
from loopwm.core.config import CellConfig, Contractive, PostNorm
from loopwm.core.contractive import ContractiveCell
from loopwm.core.post_norm import PostNormCell


def make_cell(width: int, config: CellConfig) -> BoundedCell | ContractiveCell | PostNormCell:
    """Return a new cell of the given width, for a state of one token, with random weights."""
    match config:
        case Contractive():
            return ContractiveCell(width, config)
        case PostNorm():
            return PostNormCell(width, config)
        case _:
            return BoundedCell(width, config)
