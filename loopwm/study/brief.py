"""Several models in few characters: a table that fits a terminal of eighty columns."""

from rich.table import Table
from rich.text import Text

from loopwm.study.accuracy import PredictionReport
from loopwm.study.table import UNITS, columns_of, number


def brief_table(reports: dict[str, PredictionReport], unit: str = "obs") -> Table:
    """Set several reports side by side, without intervals.

    The references of the first report stand below the models.

    Args:
        reports: At least one, by the name to show; the horizons of the first are shown.
        unit: "obs" or "change".

    Raises:
        ConfigError: If the unit is unknown.
    """
    first = next(iter(reports.values()))
    table = Table(title=f"Open-loop RMSE in {UNITS.get(unit, unit)}", box=None, pad_edge=False)
    table.add_column("steps")
    for k in first.horizons:
        table.add_column(str(k), justify="right", no_wrap=True)
    for name, each in (reports | first.references).items():
        rmse, _ = columns_of(each, unit)
        table.add_row(Text(name), *(number(rmse.get(k)) for k in first.horizons))
    return table
