"""`loopwm agent`: agents that learn in a real environment by imagining it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from loopwm.cli.screen import say
from loopwm.errors import ConfigError, LoopwmError, MissingExtra

if TYPE_CHECKING:
    from loopwm.agent.agent import Agent
    from loopwm.data.meta import DatasetMeta

_SEED = 1_000
_STEPS = 2_000


@dataclass(frozen=True)
class AgentTrain:
    """Train an agent in a real environment, every step of which is counted.

    "mpc" plans in a model that is refitted on the way; "dyna" lets a soft actor-critic practise in
    imagined rollouts (needs Stable-Baselines3: pip install "loopwm[agent]"). Writes checkpoints,
    metrics.jsonl, a plot of return against real steps and, where it can be drawn, a video.
    Repeating the command after a stop goes on where the run was.

    Examples:
      loopwm agent train --env InvertedPendulum-v5 --out runs/pole
      loopwm agent train --algo mpc --env CartPole-v1 --steps 3000 --out runs/cartpole
      loopwm agent train --algo dyna --env Pendulum-v1 --steps 2000 --seed 1 --out runs/swing
      loopwm agent train --algo mpc --env Reacher-v5 --out runs/reach \
--settings '{"planning": {"horizon": 12}, "noise": 0.2}'
      loopwm agent train --env Pendulum-v1 --out runs/mlps \
--settings '{"refit": {"model": {"type": "MLP", "width": 128}, "members": 4}}'

    Args:
        env: Gymnasium id.
        out: Directory of the run.
        algo: How it learns; by default what was chosen for the environment, else "mpc".
        steps: Real steps; by default what was chosen for the environment, else 2000.
        seed: Seed of everything.
        every: Real steps between evaluations.
        episodes: Episodes of each evaluation.
        env_kwargs: Arguments for the environment, a JSON object.
        unclipped: Observe velocities as simulated, where Hopper-v5 and Walker2d-v5 clip them; so
            do the settings that were chosen for Hopper-v5.
        settings: Settings of the algorithm that differ, a JSON object; where there is a choice, of
            models or optimisers, "type" names another one.
        no_video: Film no episode at the end.
    """

    env: str
    out: Path
    algo: Annotated[Literal["mpc", "dyna"] | None, arg(metavar="{mpc,dyna}")] = None
    steps: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    seed: int = 0
    every: int = 500
    episodes: int = 10
    env_kwargs: Annotated[str, arg(metavar="JSON")] = "{}"
    unclipped: bool = False
    settings: Annotated[str, arg(metavar="JSON")] = "{}"
    no_video: bool = False

    def run(self) -> None:
        """Train, evaluate, draw."""
        from loopwm.agent.recipes import algorithm_for, recipe_for, with_settings
        from loopwm.agent.score import Scoring
        from loopwm.agent.train import train_agent
        from loopwm.cli.collect import read_object

        settings = read_object(self.settings, "--settings")
        recipe = recipe_for(self.env, self.algo)
        usual = _STEPS if recipe is None else recipe.steps
        agent = train_agent(
            self.env,
            with_settings(algorithm_for(self.env, self.algo), settings),
            usual if self.steps is None else self.steps,
            seed=self.seed,
            run_dir=self.out,
            env_kwargs=read_object(self.env_kwargs, "--env-kwargs"),
            unclipped=self.unclipped or (recipe is not None and recipe.unclipped),
            scoring=Scoring(every=self.every, episodes=self.episodes, seed=_SEED),
        )
        self._say(agent)
        self._draw(agent)
        if not self.no_video:
            film(agent, self.out / "video.mp4")

    def _say(self, agent: "Agent") -> None:
        last = agent.history[-1]
        real = last.get("real_return")
        score = "" if real is None else f": mean return {real:.5g} in {self.episodes} episodes"
        kind = type(agent.algorithm).__name__
        say(f"{kind}, {last['step']:,} real steps, {last['seconds']:.0f} s of one core{score}")
        say(f"saved in {self.out}")

    def _draw(self, agent: "Agent") -> None:
        if not any("real_return" in record for record in agent.history):
            return
        from loopwm.files import write_file
        from loopwm.study.canvas import png
        from loopwm.study.curves import plot_returns

        try:
            figure = plot_returns({f"seed {self.seed}": [agent.history]}, title=self.env)
        except MissingExtra as error:
            say(str(error))
            return
        write_file(self.out / "returns.png", png(figure))
        say(f"wrote {self.out / 'returns.png'}")


@dataclass(frozen=True)
class AgentEvaluate:
    """Evaluate trained agents in their real environment: mean, interquartile mean, interval.

    Of several runs, which should differ in their seed alone, the interval is over runs.

    Examples:
      loopwm agent evaluate --run runs/pole
      loopwm agent evaluate --run runs/seed0 runs/seed1 runs/seed2 --episodes 50
      loopwm agent evaluate --run runs/pole --episodes 1 --video pole.mp4

    Args:
        run_dir: Directories of runs.
        episodes: Episodes of each agent.
        seed: Seed of the episodes.
        json: File for everything that was found.
        video: Film an episode of the first agent into this file.
    """

    run_dir: Annotated[tuple[Path, ...], arg(name="run", metavar="DIR [DIR ...]")]
    episodes: int = 10
    seed: int = 0
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    video: Annotated[Path | None, arg(metavar="FILE")] = None

    def run(self) -> None:
        """Evaluate and print."""
        if not self.run_dir:
            raise ConfigError("--run needs at least one directory")
        from loopwm.agent.evaluate import evaluate_agent
        from loopwm.agent.train import load_agent

        agents = [load_agent(path) for path in self.run_dir]
        meta = self._same_environment([each.data.meta for each in agents])
        report = evaluate_agent(
            agents if len(agents) > 1 else agents[0],
            meta.env_id,
            self.episodes,
            self.seed,
            env_kwargs=meta.env_kwargs,
            unclipped=meta.unclipped,
        )
        low, high = report.interval
        say(
            f"{meta.env_id}, {len(agents)} agents, {self.episodes} episodes each: mean return "
            f"{report.mean:.5g} [{low:.5g}, {high:.5g}], interquartile mean {report.iqm:.5g}"
            + "".join(f", {count} cut: {why}" for why, count in report.faults.items())
        )
        if self.json is not None:
            from loopwm.files import write_json

            write_json(self.json, report.to_json())
            say(f"wrote {self.json}")
        if self.video is not None:
            film(agents[0], self.video)

    def _same_environment(self, metas: "list[DatasetMeta]") -> "DatasetMeta":
        first, *others = metas
        for place, other in zip(self.run_dir[1:], others, strict=True):
            for name in ("env_id", "env_kwargs", "unclipped"):
                one, two = getattr(first, name), getattr(other, name)
                if one != two:
                    raise ConfigError(
                        f"{self.run_dir[0]} and {place} learned in different environments "
                        f"({name}={one!r} and {two!r}): evaluate them one by one"
                    )
        return first


def film(agent: "Agent", path: Path) -> None:
    """Film an episode of an agent, or say in a line why there is no film."""
    from loopwm.agent.evaluate import evaluation_seed, play
    from loopwm.study.film import film_episode

    meta = agent.data.meta
    where = {"env_kwargs": meta.env_kwargs, "unclipped": meta.unclipped}
    (episode,) = play(agent, meta.env_id, 1, _SEED, **where)
    try:
        film_episode(path, episode, meta, evaluation_seed(_SEED, 0))
        say(f"wrote {path}")
    except LoopwmError as error:
        say(str(error))
