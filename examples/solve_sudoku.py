"""Teach a small reasoner sudoku of 4 x 4, then watch it think.

The puzzles that it is tested on have solutions that no symmetry makes of those that it was
trained on. Needs the extra of the puzzles: pip install "loopwm[arc]".
"""

import argparse
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from loopwm.reason.answer import Noise
from loopwm.reason.evaluate import accuracy
from loopwm.reason.fit import fit
from loopwm.reason.lessons import lesson
from loopwm.reason.stop import Sure, Unchanged
from loopwm.study.reasoner.story import panels, tell


def main(smoke: bool) -> None:
    """Train, ask in several ways, and show one puzzle."""
    taught = lesson("sudoku-4x4")
    updates, steps = (5, 2) if smoke else (taught.training.updates, 16)
    material = taught.make()
    training = replace(taught.training, updates=updates)
    minimal = material.tests["minimal"]
    model = fit(material.source, taught.model, training, halting=taught.halting, valid=minimal)

    console = Console()
    table = Table("asked for", "right", "mean steps", title="sudokus with as few clues as can be")
    ways = {
        "one step": {"steps": 1},
        f"{steps} steps": {"steps": steps},
        "until it is sure": {"steps": steps, "stop": Sure()},
        "until it says the same twice": {"steps": steps, "stop": Unchanged()},
        "four tries with noise": {"steps": steps, "noise": Noise(samples=4)},
    }
    for name, way in ways.items():
        score = accuracy(model, minimal, **way)
        low, high = score.exact.interval
        right = f"{score.exact.value:.1%} [{low:.1%}, {high:.1%}]"
        table.add_row(name, right, f"{score.steps:.1f}")
    console.print(table)

    puzzle, solution = minimal.tokens[0].tolist(), minimal.labels[0].tolist()
    story = tell(model, taught.look, puzzle, steps=steps, labels=solution)
    console.print(panels(story))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
