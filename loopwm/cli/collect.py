"""`loopwm collect`: real experience into a dataset on disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from loopwm.cli.screen import say
from loopwm.cli.stored import refuse_existing, refuse_unwritable
from loopwm.errors import ConfigError
from loopwm.files import refuse_other_kind

PolicyName = Literal["mixture", "uniform", "ou", "sines", "standard"]


@dataclass(frozen=True)
class Collect:
    """Collect real experience in a Gymnasium environment.

    Examples:
      loopwm collect Hopper-v5 --out data/hopper
      loopwm collect Hopper-v5 --policy standard --out data/train
      loopwm collect Hopper-v5 --policy standard --split test --seed 1 --steps 20000 --out data/test
      loopwm collect CartPole-v1 --policy uniform --steps 20000 --out data/cartpole
      loopwm collect Hopper-v5 --unclipped --env-kwargs '{"terminate_when_unhealthy": false}' \
--out data/hopper

    Args:
        env_id: Gymnasium id; "module:Name-v0" imports the module that registers it.
        out: Directory of the dataset.
        steps: Transitions.
        seed: Seed of the environment and of the actions.
        policy: Excitation ("uniform", "ou" for Ornstein-Uhlenbeck noise, "sines", or all three in
            a "mixture"), or the "standard" mixture of excitation and trained policies.
        split: Whose policies the standard mixture uses; each has its own. Of other policies,
            another --seed gives data to test on.
        unclipped: Observe velocities as simulated, where Hopper-v5 and Walker2d-v5 clip them.
        env_kwargs: Arguments for the environment, a JSON object.
        workers: Processes that collect.
        overwrite: Replace a dataset that is already there.
    """

    env_id: Annotated[Positional[str], arg(metavar="ENV_ID")]
    out: Path
    steps: int = 100_000
    seed: int = 0
    policy: PolicyName = "mixture"
    split: Literal["train", "valid", "test"] = "train"
    unclipped: bool = False
    env_kwargs: Annotated[str, arg(metavar="JSON")] = "{}"
    workers: int = 1
    overwrite: bool = False

    def run(self) -> None:
        """Collect and save."""
        env_kwargs = read_object(self.env_kwargs, "--env-kwargs")
        refuse_existing(self.out, self.overwrite)
        refuse_other_kind(self.out, ["dataset"])
        self._refuse_unused(env_kwargs)
        refuse_unwritable(self.out)
        if self.policy == "standard":
            from loopwm.data.standard import collect_standard

            data = collect_standard(self.env_id, self.steps, self.seed, self.split)
        else:
            from loopwm.data.collect import collect

            data = collect(
                self.env_id,
                self.steps,
                self.seed,
                excitation(self.policy),
                env_kwargs=env_kwargs,
                unclipped=self.unclipped,
                workers=self.workers,
            )
        data.save(self.out)
        cut = "".join(f", {count} cut: {why}" for why, count in data.meta.dropped.items())
        say(f"{data!r}{cut}\nsaved in {self.out}")

    def _refuse_unused(self, env_kwargs: dict[str, Any]) -> None:
        if self.policy != "standard" and self.split != "train":
            raise ConfigError(
                f"--split {self.split} chooses among trained policies, and --policy {self.policy} "
                "has none: leave it out, and give another --seed for other episodes"
            )
        used = env_kwargs or self.unclipped or self.workers != 1
        if self.policy == "standard" and used:
            raise ConfigError(
                "--policy standard sets the environment's arguments itself and runs in one "
                "process: leave out --env-kwargs, --unclipped and --workers"
            )


def excitation(name: str) -> Any:
    """Return the excitation of that name."""
    from loopwm.data import excitation as kinds

    return {
        "mixture": kinds.Excitation,
        "uniform": kinds.Uniform,
        "ou": kinds.OrnsteinUhlenbeck,
        "sines": kinds.Sines,
    }[name]()


def read_object(text: str, option: str) -> dict[str, Any]:
    """Read a JSON object given as an option.

    Raises:
        ConfigError: If it is no JSON object, showing how one is written.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"""{option} is no JSON ({error}): write '{{"key": true}}'""") from error
    if not isinstance(value, dict):
        raise ConfigError(f"""{option} must be a JSON object like '{{"key": true}}', got {text}""")
    return value
