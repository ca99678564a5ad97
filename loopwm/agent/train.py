"""From an environment to a trained agent: `lw.train_agent`."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from loopwm.agent.agent import Agent
from loopwm.agent.codec import decode, encode
from loopwm.agent.config import MPC, Algorithm, Dyna
from loopwm.agent.keep import Keeper, latest
from loopwm.agent.learner import Learner, make_learner
from loopwm.agent.life import Life
from loopwm.agent.refits import TransitionFn
from loopwm.agent.score import Scoring, score
from loopwm.data.engine import quiet_mujoco
from loopwm.data.environment import Source, source_name
from loopwm.data.policy import as_policy
from loopwm.errors import ConfigError
from loopwm.seed import numpy_rng, torch_rng
from loopwm.train.log import finite_or_none


def train_agent(  # noqa: PLR0913 - the front door; all but the first three have defaults
    env: Source,
    algorithm: Algorithm,
    steps: int,
    *,
    seed: int = 0,
    run_dir: str | Path | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    unclipped: bool = False,
    scoring: Scoring = Scoring(),
    reward_fn: TransitionFn | None = None,
    termination_fn: TransitionFn | None = None,
    progress: bool | None = None,
) -> Agent:
    """Let an agent learn in a real environment, of which every step is counted.

    A run with a `run_dir` that was stopped goes on from its last refit when called again with the
    same arguments, by repeating the episode that was under way; on one CPU thread it ends as if it
    had never been stopped. With more `steps` it goes on from its end, and there makes the very
    steps that a run of so many would have made; only the record of the end between is one more.
    On a GPU it goes on too, but not bit for bit.

    Args:
        env: A Gymnasium id, or a function that makes an environment with a flat observation.
        algorithm: `MPC` or `Dyna`, with settings.
        steps: Real steps, at least 1; steps of evaluations come on top and teach nothing.
        seed: Non-negative integer.
        run_dir: Directory of checkpoints and `metrics.jsonl`; None writes nothing.
        env_kwargs: Arguments for the environment.
        unclipped: Observe velocities as simulated, where Hopper-v5 and Walker2d-v5 clip them.
        scoring: When the agent is evaluated on the way.
        reward_fn: The reward, where it is known, in place of a learned one (see `WorldModel.use`).
        termination_fn: The same for termination.
        progress: Show a progress bar; by default where stderr is a terminal.

    Returns:
        The agent, its model, its data, and a record for each round.

    Raises:
        ConfigError: If an argument is out of range.
        EnvironmentUnsupported: If the algorithm cannot act in the environment.
        CheckpointError: If `run_dir` holds another run, or cannot be written.
        MissingExtra: If `Dyna` lacks Stable-Baselines3.
    """
    if steps < 1 or seed < 0:
        raise ConfigError(f"steps must be at least 1, seed not negative, got {steps} and {seed}")
    if not isinstance(algorithm, MPC | Dyna):
        raise ConfigError(f"algorithm must be lw.MPC(...) or lw.Dyna(...), got {algorithm!r}")
    if steps < algorithm.refit.first:
        raise ConfigError(
            f"steps must be at least refit.first={algorithm.refit.first}, the steps before the "
            f"first model, got {steps}; raise steps or lower refit.first"
        )
    functions = {"reward_fn": reward_fn, "termination_fn": termination_fn}
    identity: dict[str, Any] = {
        "env": source_name(env),
        "env_kwargs": dict(env_kwargs or {}),
        "unclipped": unclipped,
        "seed": seed,
        "algorithm": encode(algorithm),
        "functions": {name: encode(each) for name, each in functions.items()},
    }

    def played(policy: Any, model: Any) -> dict[str, Any]:
        return score(policy, model, env, scoring, env_kwargs=env_kwargs, unclipped=unclipped)

    with ExitStack() as stack:
        stack.enter_context(quiet_mujoco())
        stack.enter_context(_own_randomness(seed))
        life = stack.enter_context(closing(Life(env, seed, env_kwargs, unclipped)))
        if not isinstance(env, str):
            # What a function of the same name makes may have changed.
            identity["spaces"] = life.spaces
        keeper = stack.enter_context(closing(Keeper(run_dir, identity)))
        learner = make_learner(algorithm, life.meta, life.obs.size, seed, **functions)
        keeper.resume(life, learner)
        show = stack.enter_context(_display(progress, life.meta.env_id, steps))
        _Run(algorithm, life, learner, keeper, scoring, played, show).run(steps)
        return Agent(algorithm, learner.policy(), learner.model, life.dataset(), keeper.log.records)


def load_agent(
    run_dir: str | Path,
    *,
    algorithm: Algorithm | None = None,
    reward_fn: TransitionFn | None = None,
    termination_fn: TransitionFn | None = None,
) -> Agent:
    """Read the agent of a run directory as it was at the last checkpoint.

    Args:
        run_dir: What `train_agent` was given.
        algorithm: What it was given too, needed only if that held code of your own.
        reward_fn: The same.
        termination_fn: The same.

    Raises:
        ConfigError: If the agent was trained with a function that is not given.
        StoreError: If there is no agent, or a file is damaged.
        MissingExtra: If it is a `Dyna` and Stable-Baselines3 is not installed.
    """
    found = latest(Path(run_dir))
    functions = {"reward_fn": reward_fn, "termination_fn": termination_fn}
    for name, written in found.identity["functions"].items():
        if (written is None) != (functions[name] is None):
            was, remedy = "with", f"pass the same as load_agent(run_dir, {name}=...)"
            if written is None:
                was, remedy = "without", f"leave {name}= out; agent.model.use({name}=...) gives one"
            code = f"={written['custom']}" if written else ""
            raise ConfigError(f"the agent in {run_dir} was trained {was} {name}{code}: {remedy}")
    algorithm = algorithm or decode(found.identity["algorithm"], str(run_dir))
    data, seed = found.data, found.seed
    with torch.random.fork_rng(devices=[]):
        learner = make_learner(algorithm, data.meta, data.obs_dim, seed, **functions)
        learner.restore(found.folder, found.tensors, found.learner, found.data)
    return Agent(algorithm, learner.policy(), learner.model, found.data, found.records)


class _Run:
    """Rounds of acting and refitting; a record and a checkpoint end each."""

    def __init__(
        self,
        algorithm: Algorithm,
        life: Life,
        learner: Learner,
        keeper: Keeper,
        scoring: Scoring,
        played: Callable[[Any, Any], dict[str, Any]],
        show: Callable[[int, str], None],
    ) -> None:
        self.refit, self.life, self.learner, self.keeper = algorithm.refit, life, learner, keeper
        self.scoring, self.played, self.show = scoring, played, show
        self.begun = time.process_time() - keeper.seconds

    def run(self, steps: int) -> None:
        life, refit = self.life, self.refit
        if self.keeper.pending is not None:
            self._end(self.keeper.pending, self.scoring.episodes > 0)
        while life.steps < steps:
            begun, known = life.steps, len(life.returns)
            later = (begun // refit.every + 1) * refit.every
            due = refit.first if begun < refit.first else later
            self._act(min(due, steps))
            record: dict[str, Any] = {"step": life.steps}
            if life.steps == due:
                record |= self.learner.refit(life.dataset())
            new = life.returns[known:]
            record["return"] = sum(new) / len(new) if new else None
            scored = self.learner.ready and self.scoring.due(begun, life.steps, steps)
            if scored:
                # What was learned is not lost where the evaluation fails.
                self.keeper.pending = _writable(record)
                self._save()
            self._end(record, scored)

    def _end(self, record: dict[str, Any], scored: bool) -> None:
        if scored:
            record |= self.played(self.learner.policy(), self.learner.model)
        self.keeper.pending = None
        record["seconds"] = round(time.process_time() - self.begun, 3)
        self.keeper.log.write(_writable(record))
        self._save()

    def _save(self) -> None:
        self.keeper.seconds = time.process_time() - self.begun
        self.keeper.save(self.life, self.learner)

    def _act(self, until: int) -> None:
        life, learner = self.life, self.learner
        excitation = None
        while life.steps < until:
            if life.fresh and learner.ready:
                learner.begin()
            if learner.ready:
                learner.learn(life.step(learner.act(life.obs)))
            else:
                if life.fresh or excitation is None:
                    rng = numpy_rng(learner.seed, "excite", life.steps)
                    excitation = as_policy(self.refit.excitation).begin(rng, life.space, life.limit)
                life.step(excitation(life.obs))
            note = f"return {life.returns[-1]:.4g}" if life.returns else ""
            self.show(life.steps, note)


def _writable(record: Any) -> Any:
    """Return a record as JSON can hold it: with None for each number that is not finite.

    A model that says NaN is to be seen in the record, and must not end a run that goes on well.
    """
    if isinstance(record, dict):
        return {name: _writable(each) for name, each in record.items()}
    if isinstance(record, list):
        return [_writable(each) for each in record]
    return finite_or_none(record) if isinstance(record, float) else record


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Give Stable-Baselines3, which draws from torch's global generator, one of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(torch_rng(seed, "agent").get_state())
        yield


@contextmanager
def _display(enabled: bool | None, name: str, total: int) -> Iterator[Callable[[int, str], None]]:
    console = Console(stderr=True)
    shown = console.is_terminal if enabled is None else enabled
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task(name, total=total)
        yield lambda step, note: bar.update(task, completed=step, description=f"{name} {note}")
