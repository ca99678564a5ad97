"""The training loop: a module, a loss, and batches."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopwm.errors import ConfigError, NumericalError
from loopwm.files import write_json
from loopwm.seed import torch_rng
from loopwm.train import checkpoint
from loopwm.train.checkpoint import Training
from loopwm.train.compiled import compiled_cells
from loopwm.train.config import FitConfig
from loopwm.train.ema import Average
from loopwm.train.history import History
from loopwm.train.lock import exclusive
from loopwm.train.log import Log, Sink, TensorBoard, finite_or_none
from loopwm.train.optim import Stepper
from loopwm.train.progress import Display, display
from loopwm.train.signals import StopRequest, stop_request

MAX_SKIPPED_IN_A_ROW = 20

Metrics = dict[str, float | Tensor]


# (module, batch, update, generator on the module's device) -> scalar loss, metrics to log.
LossFn = Callable[[nn.Module, Any, int, torch.Generator], tuple[Tensor, Metrics]]
# (generator on the CPU, batch size) -> batch on the module's device.
Sampler = Callable[[torch.Generator, int], Any]
# (module) -> a number, lower is better; or numbers by name, of which "validation" is that one.
Validate = Callable[[nn.Module], float | dict[str, float]]


def run(
    module: nn.Module,
    loss: LossFn,
    sampler: Sampler,
    config: FitConfig,
    *,
    run_dir: Path | str | None = None,
    validate: Validate | None = None,
    documents: dict[str, Any] | None = None,
    sinks: Sequence[Sink] = (),
) -> History:
    """Train a module in place, or continue where a stopped run in `run_dir` was.

    The module ends in evaluation mode on the configured device, with the averaged weights if
    `config.ema` is positive; tables that are updated row by row are not averaged. `loss` and
    `sampler` must keep no state of their own, but in buffers of the module, and draw randomness
    from their generator or torch's global one, which is seeded for the length of the run and then
    put back. A run stopped by a signal or killed, then called again with the same arguments, ends
    bit for bit like an uninterrupted one on one CPU thread.

    Args:
        module: What to train; its weights must be float32 or float64.
        loss: Computes the loss of a batch at an update counted from 0, and metrics to log.
        sampler: Draws a batch of the given size.
        config: How to train.
        run_dir: Where checkpoints and `metrics.jsonl` go; None writes nothing.
        validate: Measures the module, lower is better; it sees the averaged weights. What it
            measures beside "validation" is recorded too.
        documents: JSON values that a continuation must share beside `config`, by name.
        sinks: Where else the records go; each is closed at the end.

    Returns:
        The metrics and a summary.

    Raises:
        ConfigError: If the module or the loss cannot be trained.
        CheckpointError: If `run_dir` is in use, holds another run, or cannot be written.
        NumericalError: If 20 updates in a row have no finite loss and gradient, or a weight is
            not finite in the end.
        KeyboardInterrupt: After SIGINT, once the checkpoint is written.
        SystemExit: After SIGTERM, once the checkpoint is written; the code is 143.
    """
    run_dir = None if run_dir is None else Path(run_dir)
    device = device_of(config)
    identity = checkpoint.plain(
        {"config": config.fingerprint(), "device": device.type, "documents": documents or {}}
    )
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        stack.enter_context(_torch_settings(config, device))
        if run_dir is not None:
            stack.enter_context(exclusive(run_dir))
        training = _begin(module.to(device), config, device)
        size = checkpoint.resume(run_dir, training, identity) if run_dir else 0
        if run_dir is not None and not size:
            checkpoint.refuse_foreign(run_dir)
        board = _tensorboard(config, run_dir, training.update)
        for sink in board:
            stack.callback(sink.close)
        log = stack.enter_context(closing(Log(run_dir, size, [*sinks, *board])))
        stop = stack.enter_context(stop_request()) if run_dir else StopRequest()
        if config.compiled:
            stack.enter_context(compiled_cells(module))
        screen = stack.enter_context(display(config.progress, config.updates))
        keep = _keeper(run_dir, training, identity, log)
        return _Loop(training, config, loss, sampler, validate, log, stop, screen, keep).run()


def device_of(config: FitConfig) -> torch.device:
    """Return the device that a configuration asks for.

    Raises:
        ConfigError: If this machine, or this build of torch, does not have it.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(1, device=config.device).device
    # A build without CUDA asserts.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise ConfigError(
            f'device="{config.device}" cannot be used here ({reason}): choose "auto" or "cpu"'
        ) from error


@dataclass(slots=True)
class _Loop:
    training: Training
    config: FitConfig
    loss: LossFn
    sampler: Sampler
    validate: Validate | None
    log: Log
    stop: StopRequest
    screen: Display
    keep: Callable[[], None]

    def run(self) -> History:
        state, config = self.training, self.config
        resumed_from = state.update
        # Counted from where an earlier part of the run stopped.
        started = time.perf_counter() - state.seconds
        state.module.train()
        while state.update < config.updates:
            value = self._update()
            self.screen.show(state.update, value)
            state.seconds = time.perf_counter() - started
            last = state.update == config.updates
            if last or state.update % config.log_every == 0:
                self._record()
            if self.validate and (last or state.update % config.validate_every == 0):
                self._validate(self.validate)
            if last or self.stop.received or state.update % config.checkpoint_every == 0:
                self.keep()
                self.stop.comply()
        checkpoint.require_finite(state)
        if state.average is not None:
            state.average.apply()
        state.module.eval()
        history = History(
            self.log.records, state.update, state.skipped, state.seconds, resumed_from
        )
        self.screen.finish(history)
        return history

    def _update(self) -> float:
        state, config = self.training, self.config
        batch = self.sampler(state.generators["batch"], config.batch_size)
        with _precision(config, state.generators["loss"].device):
            loss, metrics = self.loss(state.module, batch, state.update, state.generators["loss"])
        if loss.ndim:
            raise ConfigError(f"loss must return a scalar first, got shape {tuple(loss.shape)}")
        loss.backward()
        value, norm, finite = state.stepper.step(loss, config.lr_at(state.update))
        if finite:
            if state.average is not None:
                state.average.update(state.update - state.skipped)
            state.meter.add({**metrics, "loss": value, "grad_norm": norm})
            state.streak = 0
        else:
            state.skipped += 1
            state.streak += 1
        state.update += 1
        if state.streak == MAX_SKIPPED_IN_A_ROW:
            raise NumericalError(
                f"loss {value} with gradient norm {norm} at update {state.update - 1}, and no "
                f"finite one in {state.streak} updates; none of these was made: "
                f"look for NaN in the batches, lower lr={config.lr}, or set clip=1.0"
            )
        return value

    def _record(self) -> None:
        state = self.training
        self.log.write(
            {
                "update": state.update,
                **state.meter.mean(),
                "samples": state.update * self.config.batch_size,
                "lr": self.config.lr_at(state.update - 1),
                "skipped": state.skipped,
                "seconds": round(state.seconds, 3),
            }
        )

    def _validate(self, validate: Validate) -> None:
        state = self.training
        state.module.eval()
        with state.average.applied() if state.average else nullcontext(), torch.no_grad():
            found = validate(state.module)
        state.module.train()
        named = found if isinstance(found, dict) else {"validation": found}
        numbers = {name: finite_or_none(float(value)) for name, value in named.items()}
        self.log.write({"update": state.update, **numbers})


def _begin(module: nn.Module, config: FitConfig, device: torch.device) -> Training:
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise ConfigError(f"{name!r} of the module is no tensor and could not be saved")
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ConfigError(
                f"{name!r} is {tensor.dtype}: weights must be float32 or float64; "
                'precision="bf16" computes in bfloat16 around them'
            )
    stepper = Stepper(module, config)
    generators = {
        "batch": torch_rng(config.seed, "fit", "batch"),
        "loss": torch_rng(config.seed, "fit", "loss", device=str(device)),
        "global": torch.default_generator,
    }
    if device.type == "cuda":
        generators["global_device"] = _cuda_generator(device)
    return Training(
        module=module,
        stepper=stepper,
        average=Average(stepper.dense, config.ema) if config.ema else None,
        generators=generators,
    )


@contextmanager
def _torch_settings(config: FitConfig, device: torch.device) -> Iterator[None]:
    # Layers such as dropout know the global generator only: seed it, and give it back untouched.
    threads = torch.get_num_threads()
    word = torch_rng(config.seed, "fit", "global").initial_seed()
    cuda = [device] if device.type == "cuda" else []
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with torch.random.fork_rng(cuda):
            torch.default_generator.manual_seed(word)
            if cuda:
                _cuda_generator(device).manual_seed(word)
            yield
    finally:
        torch.set_num_threads(threads)


def _cuda_generator(device: torch.device) -> torch.Generator:
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def _precision(config: FitConfig, device: torch.device) -> AbstractContextManager[object]:
    if config.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _tensorboard(config: FitConfig, run_dir: Path | None, update: int) -> list[Sink]:
    if not config.tensorboard:
        return []
    if run_dir is None:
        raise ConfigError("tensorboard=True needs a run_dir to write to")
    return [TensorBoard(run_dir / "tensorboard", update)]


def _keeper(
    run_dir: Path | None, training: Training, identity: dict[str, Any], log: Log
) -> Callable[[], None]:
    if run_dir is None:
        return lambda: None
    write_json(run_dir / "config.json", identity)
    return lambda: checkpoint.save(run_dir, training, identity, log.sync())
