"""Does depth follow contact? Label every step by exact replay, see what iterations go with."""

import argparse

import gymnasium as gym
from rich.console import Console

import loopwm as lw
from loopwm.study.depth import depth_report
from loopwm.study.results import rich_table
from loopwm_envs import TransitionDifficulty


def labelled_cheetah() -> gym.Env:
    """Make HalfCheetah with labels; what each step would be without contact is one of them."""
    return TransitionDifficulty(gym.make("HalfCheetah-v5"), without=("contact",))


def main(smoke: bool) -> None:
    """Train on plain rollouts, then report depth on labelled ones."""
    steps, updates = (1_000, 20) if smoke else (50_000, 3_000)
    model = lw.fit(
        lw.collect("HalfCheetah-v5", steps=steps, seed=0), fit_config=lw.FitConfig(updates=updates)
    )
    labelled = lw.collect(labelled_cheetah, steps=200 if smoke else 5_000, seed=1)
    report = depth_report(model, labelled, halt=lw.OutputDelta(tol=0.05))
    for sheet in report.sheets():
        Console().print(rich_table(sheet))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
