"""The loop learns, repeats itself, and survives numbers that are none."""

import json
import math
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from loopwm.errors import CheckpointError, ConfigError, NumericalError
from loopwm.seed import torch_rng
from loopwm.train.config import FitConfig
from loopwm.train.fit import MAX_SKIPPED_IN_A_ROW, device_of, run
from loopwm.train.log import TIME_FIELDS


def poisoned(toy: ModuleType, at: set[int], what: str):
    """Return the toy's loss with a NaN loss, or a NaN gradient alone, at some updates."""

    def loss(net: nn.Module, batch: object, update: int, generator: torch.Generator):
        value, metrics = toy.loss(net, batch, update, generator)
        if update in at and what == "loss":
            value = value * math.nan
        if update in at and what == "gradient":
            value.register_hook(lambda slope: slope * math.nan)
        return value, metrics

    return loss


def test_training_follows_a_plain_loop_written_out(toy: ModuleType):
    config = toy.config(ema=0.0, clip=None, weight_decay=0.0, updates=40)
    net, _ = toy.train(None, config)
    oracle = toy.module()
    batches, noise = torch_rng(0, "fit", "batch"), torch_rng(0, "fit", "loss")
    optimizer = torch.optim.AdamW(oracle.parameters(), weight_decay=0.0, foreach=False)
    with torch.random.fork_rng():
        torch.manual_seed(torch_rng(0, "fit", "global").initial_seed())
        for update in range(40):
            optimizer.param_groups[0]["lr"] = config.lr_at(update)
            optimizer.zero_grad()
            toy.loss(oracle, toy.sample(batches, 16), update, noise)[0].backward()
            optimizer.step()
    for ours, theirs in zip(net.parameters(), oracle.parameters(), strict=True):
        # Fused and plain AdamW round differently; 40 steps of size 1e-2 amplify that.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_trained_module_holds_the_averaged_weights_and_is_in_evaluation_mode(toy: ModuleType):
    raw, _ = toy.train(None, toy.config(ema=0.0))
    averaged, history = toy.train(None, toy.config(ema=0.9))
    assert not averaged.training
    assert not torch.equal(raw[0].weight, averaged[0].weight)
    assert history.last is not None
    assert history.last["validation"] == toy.validate(averaged)


def test_two_runs_with_one_seed_write_equal_metrics_and_another_seed_does_not(
    toy: ModuleType, tmp_path: Path
):
    def lines(name: str, seed: int) -> list[dict[str, float]]:
        toy.train(tmp_path / name, toy.config(seed=seed, updates=30))
        raw = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(r).items() if k not in TIME_FIELDS} for r in raw]

    first = lines("first", 0)
    assert first == lines("second", 0)
    assert first != lines("third", 1)


def test_the_records_cover_every_update_and_the_last_is_validated(toy: ModuleType):
    _, history = toy.train(None, toy.config(updates=30, log_every=8, validate_every=20))
    train = [r for r in history.records if "loss" in r]
    assert [r["update"] for r in train] == [8, 16, 24, 30]
    # The toy logs `update % 7`, so the mean tells which updates a record covers.
    assert train[1]["phase"] == sum(u % 7 for u in range(8, 16)) / 8
    assert train[3]["phase"] == sum(u % 7 for u in range(24, 30)) / 6
    assert train[3]["lr"] == pytest.approx(1e-4)
    assert [r["update"] for r in history.records if "validation" in r] == [20, 30]
    assert history.best is not None
    assert history.best["validation"] == min(
        r["validation"] or 0 for r in history.records if "validation" in r
    )
    summary = json.loads(json.dumps(history.summary()))
    assert summary["updates"] == 30
    assert summary["best_update"] == history.best["update"]
    assert history.table().row_count == len(summary)


def test_global_randomness_and_threads_are_left_as_they_were(toy: ModuleType):
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    toy.train(None, toy.config(updates=3, threads=threads + 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_global_randomness_does_not_reach_the_run(toy: ModuleType):
    weights = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            weights.append(toy.train(None, toy.config(updates=5))[0][0].weight)
    assert torch.equal(*weights)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_updates_without_finite_numbers_are_skipped_and_counted(
    toy: ModuleType, tmp_path: Path, what: str
):
    net = toy.module()
    loss = poisoned(toy, {3, 4, 25}, what)
    history = run(net, loss, toy.sample, toy.config(updates=30), run_dir=tmp_path)
    assert history.skipped == 3
    assert [r["skipped"] for r in history.records] == [2, 2, 2, 3]
    assert all(r["loss"] is not None for r in history.records)
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_twenty_skips_in_a_row_stop_the_run_with_finite_weights(
    toy: ModuleType, tmp_path: Path, what: str
):
    net = toy.module()
    loss = poisoned(toy, set(range(12, 60)), what)
    message = rf"update {11 + MAX_SKIPPED_IN_A_ROW}, .* 20 updates; .*lower lr=0\.01"
    with pytest.raises(NumericalError, match=message):
        run(net, loss, toy.sample, toy.config(), run_dir=tmp_path)
    assert all(p.isfinite().all() for p in net.parameters())


def test_weights_ruined_by_the_loss_itself_never_reach_a_checkpoint(
    toy: ModuleType, tmp_path: Path
):
    def ruin() -> None:
        with torch.no_grad():
            net[3].weight[0, 0] = math.inf

    def loss(net: nn.Module, batch: object, update: int, generator: torch.Generator):
        if update == 25:
            ruin()
        value = toy.loss(net, batch, update, generator)[0]
        return value.nan_to_num(0.0, 0.0, 0.0), {}

    net = toy.module()
    with pytest.raises(NumericalError, match=r"'3\.weight' is not finite after update 30"):
        run(net, loss, toy.sample, toy.config(clip=None), run_dir=tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "000000010",
        "000000020",
    ]


def test_infinity_in_a_buffer_is_allowed_and_nan_is_not(toy: ModuleType, tmp_path: Path):
    net = toy.module()
    net.register_buffer("bound", torch.tensor(math.inf))
    run(net, toy.loss, toy.sample, toy.config(updates=2), run_dir=tmp_path / "a")
    net.bound.fill_(math.nan)
    with pytest.raises(NumericalError, match="bound"):
        run(net, toy.loss, toy.sample, toy.config(updates=2), run_dir=tmp_path / "b")


def test_a_validation_that_is_not_finite_is_recorded_as_none_and_never_best(toy: ModuleType):
    values = iter([math.nan, 2.0, math.inf])
    task = (toy.module(), toy.loss, toy.sample, toy.config())
    history = run(*task, validate=lambda net: next(values))
    assert [r["validation"] for r in history.records if "validation" in r] == [None, 2.0, None]
    assert history.best is not None
    assert history.best["update"] == 40


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_weights(toy: ModuleType):
    seen: set[torch.dtype] = set()

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor], update: int, rng: torch.Generator):
        seen.add(net(batch[0]).dtype)
        return toy.loss(net, batch, update, rng)

    net = toy.module()
    run(net, loss, toy.sample, toy.config(precision="bf16", updates=20))
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    run(net, loss, toy.sample, toy.config(updates=1))
    assert seen == {torch.bfloat16, torch.float32}


def test_what_cannot_be_trained_is_refused(toy: ModuleType):
    task = (toy.loss, toy.sample, toy.config())
    with pytest.raises(ConfigError, match=r"'0\.weight' is torch\.float16"):
        run(toy.module().half(), *task)

    def vector(net: nn.Module, batch: tuple[Tensor, Tensor], update: int, rng: torch.Generator):
        return (net(batch[0]) - batch[1]).square().mean(0), {}

    with pytest.raises(ConfigError, match=r"scalar first, got shape \(2,\)"):
        run(toy.module(), vector, toy.sample, toy.config())
    with pytest.raises(ConfigError, match="needs a run_dir"):
        run(toy.module(), toy.loss, toy.sample, toy.config(tensorboard=True))


def test_auto_takes_the_device_that_is_there():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert device_of(FitConfig()).type == expected
    assert device_of(FitConfig(device="cpu")).type == "cpu"


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r'device="quantum" cannot be used here .*"cpu"'):
        device_of(FitConfig(device="quantum"))


@pytest.mark.parametrize("place", [None, "run"])
def test_weights_that_are_not_finite_in_the_end_are_not_returned_as_trained(
    toy: ModuleType, tmp_path: Path, place: str | None
):
    config = toy.config(updates=10, lr=1e38, warmup=0.0, clip=None)
    with pytest.raises(NumericalError, match="is not finite after update 10"):
        run(toy.module(), toy.loss, toy.sample, config, run_dir=place and tmp_path / place)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_files_of_something_else_are_not_written_over(toy: ModuleType, tmp_path: Path, name: str):
    (tmp_path / name).write_text('{"mine": 1}\n')
    with pytest.raises(CheckpointError, match=f"{name} of something else"):
        run(toy.module(), toy.loss, toy.sample, toy.config(updates=2), run_dir=tmp_path)
    assert (tmp_path / name).read_text() == '{"mine": 1}\n'


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    toy: ModuleType, tmp_path: Path
):
    run(toy.module(), toy.loss, toy.sample, toy.config(updates=2), run_dir=tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "metrics.jsonl").stat().st_size
    run(toy.module(), toy.loss, toy.sample, toy.config(updates=2), run_dir=tmp_path)
    assert before - 20 < (tmp_path / "metrics.jsonl").stat().st_size < before + 20
