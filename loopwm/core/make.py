"""From the choice of a cell to the cell."""

from loopwm.core.cell import BoundedCell
from loopwm.core.config import CellConfig, Contractive
from loopwm.core.contractive import ContractiveCell


def make_cell(width: int, config: CellConfig) -> BoundedCell | ContractiveCell:
    """Return a new cell of the given width with random weights."""
    if isinstance(config, Contractive):
        return ContractiveCell(width, config)
    return BoundedCell(width, config)
