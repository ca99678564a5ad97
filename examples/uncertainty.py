"""Ask a model how sure it is: the spread of Gaussian heads, the disagreement of an ensemble.

A good spread covers 90% of the errors where it says 90%, and is larger where errors are larger,
also on actions that the training data never held.
"""

import argparse

import loopwm as lw
from loopwm.data.policy import OrnsteinUhlenbeck, Uniform


def main(smoke: bool) -> None:
    """Train an ensemble on calm actions and ask it about wild ones."""
    steps, updates, members = (2_000, 20, 2) if smoke else (30_000, 2_000, 4)
    calm = lw.collect("HalfCheetah-v5", steps, seed=0, policy=OrnsteinUhlenbeck(0.1, 0.05))
    train, test = calm.split(0.5, seed=0)
    wild = lw.collect("HalfCheetah-v5", steps=2_000, seed=1, policy=Uniform())
    model = lw.fit(
        train,
        lw.WorldConfig(head=lw.Gaussian()),
        lw.FitConfig(updates=updates),
        members=members,
    )
    print("                      k   error   90% covers   correlation of error with spread")
    for name, data in (("actions as in training", test), ("wilder actions", wild)):
        report = lw.evaluate(model, data, horizons=(1, 5, 15), train=train)
        for k, score in report.uncertainty.items():
            print(
                f"{name:22} {k:2} {report.rmse[k]:7.3f} {score.coverage:10.0%} "
                f"{score.spearman:14.2f}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
