"""`loopwm policies`: the trained actors behind the standard mixture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from loopwm.cli.screen import console, say
from loopwm.cli.stored import refuse_unwritable


@dataclass(frozen=True)
class TrainPolicies:
    """Train policies of a task by SAC and keep each early, middle and late in its return.

    Needs Stable-Baselines3: pip install "loopwm[agent]".

    Examples:
      loopwm policies train Hopper-v5 --out actors
      loopwm policies train Hopper-v5 --seeds 0 2 --steps 50000 --out actors

    Args:
        env_id: Gymnasium id of a task with a Box observation and a bounded Box action.
        out: Directory; the actors of a task go to a folder of its own below it.
        seeds: Training seeds; 2 and 3 of every four are for testing.
        steps: Environment steps of each training.
    """

    env_id: Annotated[Positional[str], arg(metavar="ENV_ID")]
    out: Path = Path("actors")
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    steps: int = 80_000

    def run(self) -> None:
        """Train and save."""
        from loopwm.agent.policies import train_policies

        refuse_unwritable(self.out)
        paths = train_policies(self.env_id, self.seeds, self.steps, self.out)
        say("\n".join(f"wrote {path}" for path in paths))


@dataclass(frozen=True)
class ListPolicies:
    """List the trained actors of a task with their returns; without a task, of all that have some.

    Examples:
      loopwm policies list
      loopwm policies list Hopper-v5

    Args:
        env_id: Gymnasium id of the task.
        root: Directory of actors; by default those that ship with loopwm.
    """

    env_id: Annotated[Positional[str | None], arg(metavar="[ENV_ID]", help_behavior_hint="")] = None
    root: Annotated[Path | None, arg(metavar="DIR")] = None

    def run(self) -> None:
        """Print a table for each task.

        Raises:
            DataError: If the task has no actors.
        """
        from loopwm.data.actor import tasks_with_actors

        tasks = [self.env_id] if self.env_id else tasks_with_actors(self.root)
        if not tasks:
            say(f"{self.root} holds no actors; train some: loopwm policies train ENV_ID --out DIR")
        for task in tasks:
            self._show(task)

    def _show(self, task: str) -> None:
        from rich.table import Table

        from loopwm.data.actor import SPLITS, shipped_actors

        table = Table("seed", "for", "stage", "return", "steps of training")
        for split in SPLITS:
            for info in (a.info for a in shipped_actors(task, split, root=self.root)):
                table.title = info.env_id
                returns = f"{info.mean_return:.0f} ± {info.return_std:.0f}"
                row = (str(info.seed), split, info.stage, returns, f"{info.step:,}")
                table.add_row(*row)
        console().print(table)
