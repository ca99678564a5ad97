"""Hand a dataset to Minari and take it back: not one bit differs."""

import argparse
import os
import tempfile

import numpy as np

import loopwm as lw


def main(smoke: bool) -> None:
    """Export, import and compare."""
    data = lw.collect("Hopper-v5", steps=500 if smoke else 20_000, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        exported = data.to_minari("loopwm/hopper-v0")
        back = lw.RolloutDataset.from_minari(exported)
    print(data)
    print(back)
    for name in ("obs", "next_obs", "action", "reward", "terminated", "truncated", "episode"):
        before, after = getattr(data, name), getattr(back, name)
        same = before.dtype == after.dtype and np.array_equal(before, after)
        print(f"{name:12} {before.dtype!s:8} {'equal' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
