"""`loopwm evaluate`: models side by side on experience they have not seen."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from loopwm.cli.choice import Refinement
from loopwm.cli.screen import console, say
from loopwm.cli.stored import load_dataset, load_model, refuse_other_spaces
from loopwm.errors import ConfigError

# Columns of text that a table with intervals needs.
WIDE = 120

if TYPE_CHECKING:
    from loopwm.data.store import RolloutDataset
    from loopwm.study.accuracy import PredictionReport


@dataclass(frozen=True)
class Evaluate:
    """Measure the open-loop errors of models on real experience, beside what any must beat.

    The last path is the dataset, all before it are models.

    Examples:
      loopwm evaluate runs/hopper data/test
      loopwm evaluate runs/looped runs/once runs/mlp data/test --train data/train --plots figures
      loopwm evaluate runs/hopper data/test --horizons 1 10 100 --context 16 --json report.json
      loopwm evaluate runs/hopper data/test --tol 0.02
      loopwm evaluate runs/hopper data/labelled --depth --tol 0.05 --plots figures

    Args:
        paths: One or more models, then the dataset.
        horizons: Open-loop steps at which errors are measured.
        context: Real observations that a model sees before it imagines.
        refinement: How far the loop refines.
        train: Training set, for the linear reference and the units of change.
        max_windows: Most windows for each horizon.
        depth: Report instead how iterations go with difficulty, one step ahead: error by depth, who
            takes how many, and rank correlations with error, speed and the columns difficulty/...
            of the dataset. Horizons, context and training set play no part in it.
        json: File to write all numbers to.
        plots: Directory to draw error against horizon into.
    """

    paths: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="MODEL [MODEL ...] DATA", help_behavior_hint="(required)"),
    ]
    horizons: tuple[int, ...] = (1, 5, 15, 50)
    context: int = 1
    refinement: Annotated[Refinement, arg(name="")] = Refinement()
    train: Annotated[str | None, arg(metavar="DATA")] = None
    max_windows: int = 2000
    depth: bool = False
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    plots: Annotated[Path | None, arg(metavar="DIR")] = None

    def run(self) -> None:
        """Evaluate, print, and write what was asked for."""
        if self.depth:
            self._depth()
            return
        reports = self.reports()
        screen = console()
        if len(reports) == 1 and screen.width >= WIDE:
            screen.print(str(*reports.values()), markup=False, highlight=False)
        else:
            from loopwm.study.brief import brief_table
            from loopwm.study.notes import one_unit
            from loopwm.study.table import compare_table

            table = compare_table if screen.width >= WIDE else brief_table
            for unit in ("obs", "change"):
                screen.print(table(reports, unit))
            if not one_unit(reports.values()):
                say(
                    "Each model's errors are in units of its own training set; --train DATA puts "
                    "them into one."
                )
            if table is brief_table:
                say(f"A terminal of {WIDE} columns, or --json, shows intervals and notes too.")
        if self.json is not None:
            from loopwm.files import write_json

            write_json(self.json, {n: each.to_dict() for n, each in reports.items()})
            say(f"wrote {self.json}")
        if self.plots is not None:
            self._plot(reports, self.plots)

    def _read(self) -> "tuple[dict[str, Any], RolloutDataset]":
        if len(self.paths) < 2:
            raise ConfigError("evaluate needs a model and a dataset: loopwm evaluate MODEL DATA")
        *places, place = self.paths
        models = {name: load_model(each) for name, each in names_of(places).items()}
        data = load_dataset(place)
        for model in models.values():
            refuse_other_spaces(model, data)
        return models, data

    def _depth(self) -> None:
        from dataclasses import asdict

        from loopwm.files import write_file, write_json
        from loopwm.study.depth import depth_report
        from loopwm.study.results import rich_table
        from loopwm.study.strict import plain
        from loopwm.study.windows import Sampling

        rule = self.refinement.rule()
        models, data = self._read()
        sampling = Sampling(max_windows=self.max_windows)
        reports = {
            name: depth_report(model, data, rule, sampling=sampling)
            for name, model in models.items()
        }
        for name, report in reports.items():
            say(name)
            for sheet in report.sheets():
                console().print(rich_table(sheet))
            if self.plots is not None:
                from loopwm.study.canvas import png
                from loopwm.study.plot import plot_depth

                path = self.plots / f"depth-{name}.png"
                write_file(path, png(plot_depth(report, title=name)))
                say(f"wrote {path}")
        if self.json is not None:
            # A correlation with a column that never changes is NaN, which JSON has no number for.
            write_json(self.json, plain({name: asdict(each) for name, each in reports.items()}))
            say(f"wrote {self.json}")

    def reports(self) -> "dict[str, PredictionReport]":
        """Evaluate every model on the same windows.

        Raises:
            ConfigError: If a model or the dataset is missing from the command line.
        """
        rule = self.refinement.rule()
        models, test = self._read()
        train = None if self.train is None else load_dataset(self.train)
        from loopwm.study.prediction import evaluate
        from loopwm.study.windows import Sampling

        sampling = Sampling(max_windows=self.max_windows)
        options = {"context": self.context, "train": train, "halt": rule, "sampling": sampling}
        return {
            name: replace(evaluate(model, test, self.horizons, **options), name=name)
            for name, model in models.items()
        }

    def _plot(self, reports: "dict[str, PredictionReport]", folder: Path) -> None:
        from loopwm.files import write_file
        from loopwm.study.canvas import png
        from loopwm.study.plot import plot_error

        for unit in ("obs", "change"):
            figure = plot_error(reports, unit=unit)
            path = folder / f"error-{unit}.png"
            write_file(path, png(figure))
            say(f"wrote {path}")


def names_of(places: list[Path]) -> dict[str, Path]:
    """Name models by their directory, or by their whole path where two would share a name."""
    short = [each.resolve().name for each in places]
    return {
        name if short.count(name) == 1 else str(each): each
        for name, each in zip(short, places, strict=True)
    }
