"""How fast a reasoner is trained, beside TRM as published and the machine's matrix products."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from loopwm.core.count import matmul_flops, parameters
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.loss import step_loss
from loopwm.reason.model import Reasoner
from loopwm.reason.presets import preset
from loopwm.study.memory import MIB, saved_bytes
from loopwm.study.reasoner.plain import plain_loss
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import Contestant, Timing, matmul, race, single_thread

_MATMUL = 1024
_Loss = Callable[[], Tensor]


def bench_arc(name: str = "arc", batch: int = 1, repeats: int = 3, compiled: bool = True) -> Sheet:
    """Time loss and backward pass of one training step on one CPU thread; weights are random.

    Contestants take turns, so that a busy machine slows all of them alike. The optimisers' step,
    which all share, is left out.

    Args:
        name: Shape of the reasoner, one of `loopwm.reason.presets.PRESETS`.
        batch: Puzzles in flight, at least 1.
        repeats: Timed rounds, at least 1.
        compiled: Whether to time `torch.compile` too, which takes minutes and a C++ compiler.

    Returns:
        A table of steps per second, memory kept for the backward pass, and shares of the rate of
        matrix products of the same precision.

    Raises:
        ConfigError: If there is no such preset, or no timed round.
    """
    model = Reasoner(preset(name)).train()
    puzzles = _puzzles(model, batch)
    with single_thread():
        losses: dict[str, _Loss] = {
            "TRM as published, fp32": partial(plain_loss, model, puzzles, torch.float32),
            "TRM as published, bf16": partial(plain_loss, model, puzzles, torch.bfloat16),
            "ours, fp32": partial(_ours, model, puzzles, half=False),
            "ours, bf16": partial(_ours, model, puzzles, half=True),
        }
        if compiled:
            fast = Reasoner(preset(name)).train()
            # The protocol of cells does not say that they are modules.
            fast.core.cell.compile(dynamic=False)  # type: ignore[attr-defined]
            losses["ours, compiled, fp32"] = partial(_ours, fast, puzzles, half=False)
            losses["ours, compiled, bf16"] = partial(_ours, fast, puzzles, half=True)
        # Once for all: every way computes the same products.
        flops = matmul_flops(partial(_step, model, losses["ours, fp32"]))
        held = list(model.parameters())
        kept = {each: saved_bytes(losses[each], held) / MIB for each in losses}
        contestants = [
            Contestant(each, partial(_step, model, loss), 1, flops) for each, loss in losses.items()
        ]
        contestants.append(matmul(_MATMUL, torch.float32, "matmul, fp32"))
        contestants.append(matmul(_MATMUL, torch.bfloat16, "matmul, bf16"))
        timings = race(contestants, repeats)
    config = model.config
    weights = parameters(model) - config.puzzles * config.puzzle_width
    title = f"{name}: {weights:,} parameters, {config.tokens} tokens, batch {batch}, one CPU thread"
    return Sheet(title, _COLUMNS, tuple(_rows(timings, kept)))


_COLUMNS = (
    Column("what"),
    Column("seconds", "CPU s a step [quartiles]"),
    Column("rate", "steps per CPU s"),
    Column("fp32", "× published, fp32"),
    Column("same", "× published, same precision"),
    Column("gflops", "GFLOP/s"),
    Column("share", "of the matmul rate"),
    Column("memory", "MiB kept for backward"),
)


def _rows(timings: Sequence[Timing], kept: dict[str, float]) -> list[dict[str, object]]:
    rate = {each.name: each.cpu_rate[0] for each in timings}
    peak = {each.name[-4:]: each.gflops for each in timings if each.name.startswith("matmul")}
    rows: list[dict[str, object]] = []
    for each in timings:
        if each.name.startswith("matmul"):
            rows.append({"what": each.name, "gflops": each.gflops})
            continue
        precision = each.name[-4:]
        middle, low, high = each.cpu_rate
        rows.append(
            {
                "what": each.name,
                "seconds": [1 / middle, 1 / high, 1 / low],
                "rate": middle,
                "fp32": middle / rate["TRM as published, fp32"],
                "same": middle / rate[f"TRM as published, {precision}"],
                "gflops": each.gflops,
                "share": f"{each.gflops / peak[precision]:.0%}",
                "memory": kept[each.name],
            }
        )
    return rows


def _ours(model: Reasoner, puzzles: PuzzleBatch, half: bool) -> Tensor:
    precision: AbstractContextManager[object] = (
        torch.autocast("cpu", torch.bfloat16) if half else nullcontext()
    )
    with precision:
        start = model.start(puzzles.tokens)
        _, logits, q_halt = model.step(start, puzzles.tokens, puzzles.puzzle_ids)
        return step_loss(logits, q_halt, puzzles.labels).total


def _step(model: Reasoner, loss: _Loss) -> None:
    loss().backward()
    model.zero_grad()


def _puzzles(model: Reasoner, batch: int) -> PuzzleBatch:
    config, generator = model.config, torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.vocabulary, (batch, config.length), generator=generator)
    ids = torch.zeros(batch, dtype=torch.long)
    return PuzzleBatch(tokens=tokens, labels=tokens.flip(1), puzzle_ids=ids)
