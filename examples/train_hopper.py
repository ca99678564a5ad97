"""Train a looped world model of Hopper and see how far its imagination can be trusted."""

import argparse

import loopwm as lw


def main(smoke: bool) -> None:
    """Collect, train, save and evaluate."""
    steps, updates, out = (
        (2_000, 20, "runs/hopper-smoke") if smoke else (50_000, 3_000, "runs/hopper")
    )
    # Unclipped velocities make the observation Markov; without termination episodes are long.
    data = lw.collect(
        "Hopper-v5",
        steps=steps,
        seed=0,
        unclipped=True,
        env_kwargs={"terminate_when_unhealthy": False},
    )
    train, test = data.split(0.9, seed=0) if data.num_episodes > 1 else (data, data)
    model = lw.fit(train, lw.WorldConfig(), lw.FitConfig(updates=updates), run_dir=out)
    model.save(out)
    print(f"{model.num_parameters:,} parameters, saved in {out}")
    print(lw.evaluate(model, test, horizons=(1, 5, 15, 50), train=train))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="run at a tiny size")
    main(parser.parse_args().smoke)
