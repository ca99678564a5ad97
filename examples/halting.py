"""Let the loop stop by itself: which steps get more iterations, and what stopping early costs."""

import argparse

import numpy as np

import loopwm as lw


def main(smoke: bool) -> None:
    """Train, then predict at several tolerances."""
    steps, updates = (2_000, 50) if smoke else (50_000, 3_000)
    data = lw.collect("Hopper-v5", steps=steps, seed=0, unclipped=True)
    train, test = data.split(0.8, seed=0)
    model = lw.fit(train, lw.WorldConfig(), lw.FitConfig(updates=updates))
    scale = model.stats.change_std

    def error(prediction: lw.Prediction) -> float:
        return float(np.sqrt((((prediction.next_obs - test.next_obs) / scale) ** 2).mean()))

    print("tolerance  iterations  settled  one-step error (standard deviations of the change)")
    for tol in (0.2, 0.1, 0.05, 0.02, 0.01):
        out = model.predict(test.obs, test.action, halt=lw.OutputDelta(tol), max_iters=24)
        print(f"{tol:9} {out.n_iters.mean():11.2f} {out.settled.mean():8.0%} {error(out):10.3f}")
    full = model.predict(test.obs, test.action, halt=lw.Fixed(24))
    print(f"{'none':>9} {24:11} {'':8} {error(full):10.3f}")

    print("\nwhat 1% of accuracy is worth")
    print(lw.calibrate(model, test, regret=0.01))

    out = model.predict(test.obs, test.action, halt=lw.OutputDelta(0.02), max_iters=24)
    speed = np.sqrt((((test.next_obs - test.obs) / scale) ** 2).mean(axis=1))
    print("\nquarter of the steps   mean iterations   by how much the observation changed")
    for quarter, rows in enumerate(np.array_split(speed.argsort(), 4), start=1):
        print(f"{quarter:20} {out.n_iters[rows].mean():17.2f} {speed[rows].mean():17.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
