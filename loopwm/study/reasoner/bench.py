"""How fast a reasoner is trained, beside TRM as published and the machine's matrix products."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from loopwm.core.count import matmul_flops, parameters
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.fit import on_device
from loopwm.reason.loss import step_loss
from loopwm.reason.model import Reasoner
from loopwm.reason.presets import preset
from loopwm.study.memory import MIB, saved_bytes
from loopwm.study.reasoner.plain import plain_loss
from loopwm.study.results import Column, Sheet
from loopwm.study.timing import Contestant, Timing, matmul, race, single_thread
from loopwm.train.config import FitConfig
from loopwm.train.fit import device_of

_Loss = Callable[[], Tensor]


def bench_arc(
    name: str = "arc",
    batch: int = 1,
    repeats: int = 3,
    compiled: bool = True,
    device: str = "cpu",
) -> Sheet:
    """Time loss and backward pass of one training step; weights are random.

    On a CPU one thread is timed, in CPU seconds. Every run on a GPU waits for it, so that its
    seconds are those of the clock.

    Contestants take turns, so that a busy machine slows all of them alike. The optimisers' step,
    which all share, is left out.

    Args:
        name: Shape of the reasoner, one of `loopwm.reason.presets.PRESETS`.
        batch: Puzzles in flight, at least 1.
        repeats: Timed rounds, at least 1.
        compiled: Whether to time `torch.compile` too, which takes minutes and a C++ compiler.
        device: Where to run, such as "cuda".

    Returns:
        A table of steps per second, memory kept for the backward pass, and shares of the rate of
        matrix products of the same precision.

    Raises:
        ConfigError: If there is no such preset, or no timed round.
    """
    on = device_of(FitConfig(device=device))
    model = Reasoner(preset(name)).train().to(on)
    puzzles = on_device(_puzzles(model, batch), on)
    with single_thread():
        losses: dict[str, _Loss] = {
            "TRM as published, fp32": partial(plain_loss, model, puzzles, torch.float32),
            "TRM as published, bf16": partial(plain_loss, model, puzzles, torch.bfloat16),
            "ours, fp32": partial(_ours, model, puzzles, half=False),
            "ours, bf16": partial(_ours, model, puzzles, half=True),
        }
        if compiled:
            fast = Reasoner(preset(name)).train().to(on)
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
        timings = _raced([*contestants, *_matmuls(on)], repeats, on)
    config = model.config
    weights = parameters(model) - config.puzzles * config.puzzle_width
    where = "one CPU thread" if on.type == "cpu" else torch.cuda.get_device_name(on)
    title = f"{name}: {weights:,} parameters, {config.tokens} tokens, batch {batch}, {where}"
    unit = "CPU s" if on.type == "cpu" else "s"
    return Sheet(title, _columns(unit), tuple(_rows(timings, kept)))


def _matmuls(device: torch.device) -> list[Contestant]:
    """Return the machine's own products, large enough to keep it busy."""
    size = 1024 if device.type == "cpu" else 8192
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return [matmul(size, dtype, f"matmul, {name}", device) for name, dtype in types.items()]


def _raced(contestants: Sequence[Contestant], repeats: int, device: torch.device) -> list[Timing]:
    if device.type == "cpu":
        return race(contestants, repeats)

    def waited(each: Contestant) -> None:
        each.run()
        torch.cuda.synchronize(device)

    waiting = [replace(each, run=partial(waited, each)) for each in contestants]
    # The process only waits, so what it works says nothing: the clock does.
    return [replace(each, cpu=each.wall) for each in race(waiting, repeats)]


def _columns(unit: str) -> tuple[Column, ...]:
    return (
        Column("what"),
        Column("seconds", f"{unit} a step [quartiles]"),
        Column("rate", f"steps per {unit}"),
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
        torch.autocast(puzzles.tokens.device.type, torch.bfloat16) if half else nullcontext()
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
