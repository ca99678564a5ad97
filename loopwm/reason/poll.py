"""Ask a reasoner the questions of ARC, in one process or in many."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopwm.core.program import State
from loopwm.errors import ConfigError
from loopwm.reason.arc import Arc, Question
from loopwm.reason.vote import Tally, merge


@runtime_checkable
class Solver(Protocol):
    """Answer puzzles in steps, as `loopwm.Reasoner` does."""

    def start(self, tokens: Int[Tensor, "B S"]) -> State:
        """Return the latents that the first step goes on from."""
        ...

    def step(
        self, state: State, tokens: Int[Tensor, "B S"], puzzle_ids: Int[Tensor, " B"]
    ) -> tuple[State, Float[Tensor, "B S V"], Float[Tensor, " B"]]:
        """Return latents, logits of the answer, and the logit that it is right."""
        ...


# Makes a solver in the process that uses it; defined at the top of a module, or a partial of such.
SolverMaker = Callable[[], Solver]


@torch.no_grad()
def poll(
    solver: Solver,
    arc: Arc,
    questions: Sequence[Question],
    *,
    steps: int = 16,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> Tally:
    """Ask questions and count the answers, with the augmentations undone.

    Args:
        solver: Who answers.
        arc: Where the questions are from.
        questions: See `Arc.questions`.
        steps: Steps before the answer is read, at least 1.
        batch_size: Questions asked at once, at least 1.
        device: Where the solver is.

    Returns:
        The votes on these questions alone.

    Raises:
        ConfigError: If a number is below 1.
    """
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    tally = Tally()
    for first in range(0, len(questions), batch_size):
        batch = questions[first : first + batch_size]
        tokens, ids = (tensor.to(device) for tensor in arc.ask(batch))
        answers, confidence = _answers(solver, tokens, ids, steps)
        for question, answer, sure in zip(batch, answers, confidence, strict=True):
            task = arc.evaluation[question.task]
            shown = arc.augmentation(question)
            tally.add(
                task.name,
                task.test[question.test].input,
                shown.undo(arc.read(answer.numpy())),
                sure,
                plain=question.k == 0,
            )
    return tally


def poll_in_processes(
    make_solver: SolverMaker,
    arc: Arc,
    questions: Sequence[Question],
    *,
    workers: int,
    steps: int = 16,
    batch_size: int = 64,
    device: str = "cpu",
) -> Tally:
    """Share questions out among processes, and merge their votes; see `poll`.

    Args:
        make_solver: Makes the solver in each process, for instance by loading it.
        arc: Where the questions are from.
        questions: See `Arc.questions`.
        workers: Number of processes, each on one thread.
        steps: Steps before the answer is read.
        batch_size: Questions asked at once by each process.
        device: Where the solvers are.

    Raises:
        ConfigError: If a number is below 1.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    # A forked copy of a process whose threads hold locks can hang, so each starts afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        shares = [
            pool.submit(_share, make_solver, arc, questions[w::workers], steps, batch_size, device)
            for w in range(workers)
        ]
        return merge(share.result() for share in shares)


def _share(
    make_solver: SolverMaker,
    arc: Arc,
    questions: Sequence[Question],
    steps: int,
    batch_size: int,
    device: str,
) -> Tally:
    torch.set_num_threads(1)
    return poll(make_solver(), arc, questions, steps=steps, batch_size=batch_size, device=device)


def _answers(
    solver: Solver, tokens: Int[Tensor, "B S"], ids: Int[Tensor, " B"], steps: int
) -> tuple[Int[Tensor, "B S"], list[float]]:
    state = solver.start(tokens)
    for _ in range(steps - 1):
        state = solver.step(state, tokens, ids)[0]
    _, logits, q_halt = solver.step(state, tokens, ids)
    return logits.argmax(-1).cpu(), torch.sigmoid(q_halt.double()).tolist()
