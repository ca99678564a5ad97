"""Hide the velocities: what one observation no longer shows, the carried latent can remember.

Three models see positions alone: one carries its latent state, one has no memory, one is shown the
last four observations instead. All are warmed up on 16 real observations before they imagine.
"""

import argparse

import loopwm as lw
from loopwm.study.windows import Sampling

CONTEXT = 16


def main(smoke: bool) -> None:
    """Train the three models and compare them with and without context."""
    steps, updates = (3_000, 20) if smoke else (50_000, 3_000)
    data = lw.collect("HalfCheetah-v5", steps=steps, seed=0)
    names = data.meta.obs_names or ()
    positions = [index for index, name in enumerate(names) if not name.startswith("d ")]
    train, test = data.keep_obs(positions).split(0.7, seed=0)
    print(f"{len(positions)} of {len(names)} dimensions are left")

    # A longer horizon lets the loss reach what must be remembered.
    fit = lw.FitConfig(updates=updates, horizon=4 if smoke else 8)
    models = {
        "carries its latent state": lw.fit(train, lw.WorldConfig(), fit),
        "no memory": lw.fit(train, lw.WorldConfig(carry=False), fit),
        "four stacked observations": lw.fit(train, lw.WorldConfig(carry=False, frames=4), fit),
    }
    # The same windows for every context, so that only the memory differs.
    sampling = Sampling(history=CONTEXT - 1)
    for name, model in models.items():
        for context in (1, CONTEXT):
            report = lw.evaluate(
                model, test, (1, 15), context=context, train=train, sampling=sampling
            )
            print(f"{name:26} {context:3} real observations: {report.rmse[15]:.3f} at 15 steps")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
