"""One set of weights, many depths: how the error falls as the loop refines for longer.

The same cell trained without a loop stands beside it.
"""

import argparse

from rich.console import Console
from rich.table import Table

import loopwm as lw


def main(smoke: bool) -> None:
    """Train both models and evaluate one of them at many depths."""
    steps, updates = (2_000, 20) if smoke else (50_000, 3_000)
    depths = (1, 4) if smoke else (1, 2, 4, 6, 8, 12, 16)
    data = lw.collect("HalfCheetah-v5", steps=steps + 2_000, seed=0)
    train, test = data.split(0.8, seed=0)
    fit = lw.FitConfig(updates=updates)
    looped = lw.fit(train, lw.WorldConfig(depth=lw.depth.Poisson(6)), fit)
    once = lw.fit(train, lw.WorldConfig(depth=lw.depth.Fixed(1)), fit)

    table = Table("model", "iterations", "1 step", "15 steps", title="RMSE, standard deviations")
    rows = [("looped", looped, lw.Fixed(depth)) for depth in depths]
    rows += [("looped, until it settles", looped, lw.OutputDelta(tol=0.02))]
    rows += [("the same cell, not looped", once, None)]
    for name, model, halt in rows:
        report = lw.evaluate(model, test, horizons=(1, 15), train=train, halt=halt)
        errors = [f"{report.rmse[k]:.3f}" for k in (1, 15)]
        table.add_row(name, f"{report.iterations[1]:.1f}", *errors)
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
