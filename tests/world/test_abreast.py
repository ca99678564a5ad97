"""Models that train abreast learn from their own windows what each would learn alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import loopwm as lw
from loopwm.batch import SequenceBatch
from loopwm.data.replay import Windows
from loopwm.errors import CheckpointError
from loopwm.train.config import AdamATan2
from loopwm.train.fit import run
from loopwm.train.history import History
from loopwm.world import course as course_module
from loopwm.world.course import Material, abreast
from loopwm.world.ensemble import Ensemble
from loopwm.world.fit import fit_each, trains_abreast
from loopwm.world.objective import sequence_loss, validation_error
from loopwm.world.stack import joined, learn_joined
from tests.stops import stopped_at

SHORT = lw.FitConfig(
    updates=8, batch_size=16, horizon=3, threads=1, progress=False, validate_every=4, log_every=2
)
SMALL = lw.WorldConfig(width=8, depth=lw.depth.Poisson(3))
WEIGHTS = lw.Objective(reward=0.7, termination=0.3, intermediate=0.4)
CASES = {
    "looped": lw.WorldConfig(width=8, objective=WEIGHTS),
    "uniform": lw.WorldConfig(width=8, depth=lw.depth.Uniform(1, 6), objective=WEIGHTS),
    "fixed": lw.WorldConfig(width=8, depth=lw.depth.Fixed(4), objective=WEIGHTS),
    "fixed, no early loss": lw.WorldConfig(
        width=8, depth=lw.depth.Fixed(4), objective=lw.Objective(intermediate=0.0)
    ),
    "once": lw.WorldConfig(width=8, depth=lw.depth.Fixed(1), objective=WEIGHTS),
    "cold": lw.WorldConfig(width=8, warm=False, objective=WEIGHTS),
    "no carry": lw.WorldConfig(width=8, carry=False, objective=WEIGHTS),
    "injected once": lw.WorldConfig(width=8, reinject=False, objective=WEIGHTS),
    "settling": lw.WorldConfig(width=8, objective=replace(WEIGHTS, settle=3.0)),
    "robust": lw.WorldConfig(width=8, objective=replace(WEIGHTS, robust=0.3, decay=0.7)),
    "rows limited": lw.WorldConfig(width=8, objective=replace(WEIGHTS, row_clip=1.0)),
    "two observations": lw.WorldConfig(width=8, objective=replace(WEIGHTS, context=2)),
    "Gaussian": lw.WorldConfig(width=8, head=lw.Gaussian(), objective=WEIGHTS),
    "frames": lw.WorldConfig(width=8, frames=3, objective=WEIGHTS),
    "untied": lw.Untied(blocks=3, width=8, objective=WEIGHTS),
    "MLP": lw.MLP(width=8, depth=2, objective=WEIGHTS),
}
ALONE = {
    "GRU": (lw.GRU(width=8), {}),
    "renewal": (lw.WorldConfig(width=8, cell=lw.Bounded(gain=1.0)), {}),
    "last iterations": (lw.WorldConfig(width=8, grad=lw.grad.LastK(2)), {}),
    "bfloat16": (SMALL, {"precision": "bf16"}),
    "compiled": (SMALL, {"compiled": True}),
}


def rows_of(data: Any, *members: list[int]) -> list[SequenceBatch]:
    """Float64 windows of each member, some of which meet the end of their episode."""
    windows = Windows(data, 4)
    batches = [windows.at(torch.tensor(rows)) for rows in members]
    return [
        replace(
            each,
            obs=each.obs.double(),
            action=each.action.double(),
            reward=each.reward.double(),
            can_end=each.terminated | (torch.arange(len(rows)) % 3 > 0)[:, None],
        )
        for each, rows in zip(batches, members, strict=True)
    ]


COLUMNS = ("obs", "action", "reward", "terminated", "can_end", "valid")


def after_each_other(batches: list[SequenceBatch]) -> SequenceBatch:
    return SequenceBatch(**{n: torch.cat([getattr(each, n) for each in batches]) for n in COLUMNS})


def part(batch: SequenceBatch, begin: int, end: int) -> SequenceBatch:
    return SequenceBatch(**{n: getattr(batch, n)[begin:end] for n in COLUMNS})


def fit(*args: Any, **options: Any) -> Ensemble:
    ensemble = lw.fit(*args, **options)
    assert isinstance(ensemble, Ensemble)
    return ensemble


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_each_member_alone(make, data, case):
    models = [make(CASES[case], data, seed).train().requires_grad_() for seed in range(3)]
    assert learn_joined(models)
    batches = rows_of(data, [0, 26, 27, 28, 40], [3, 29, 59, 100, 7], [88, 87, 1, 2, 59])
    loss, metrics = sequence_loss(
        joined(models), after_each_other(batches), torch.Generator().manual_seed(0), members=3
    )
    gradients = [torch.autograd.grad(loss, list(m.parameters()), retain_graph=True) for m in models]
    expected = []
    for model, batch, found in zip(models, batches, gradients, strict=True):
        alone, parts = sequence_loss(model, batch, torch.Generator().manual_seed(0))
        own = torch.autograd.grad(alone, list(model.parameters()), allow_unused=True)
        expected.append((alone.detach(), parts["termination"]))
        for (name, _), ours, theirs in zip(model.named_parameters(), found, own, strict=True):
            assert theirs is not None, name
            torch.testing.assert_close(3 * ours, theirs, rtol=1e-9, atol=1e-11, msg=name)
    means = [torch.stack(each).mean() for each in zip(*expected, strict=True)]
    torch.testing.assert_close(loss.detach(), means[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(metrics["termination"], means[1], rtol=1e-10, atol=0)


def test_a_course_abreast_steps_each_model_as_a_course_alone_does(make, data):
    """Clipping and decay included: the windows of each are those that the course abreast drew."""
    config = replace(SHORT, updates=3, clip=0.05, ema=0.9, optimizer=lw.Muon(), horizon_warmup=0)
    fixed = replace(SMALL, depth=lw.depth.Fixed(3), objective=lw.Objective(intermediate=0.0))
    models = [make(fixed, data, seed).requires_grad_() for seed in range(2)]
    copies = [make(fixed, data, seed).requires_grad_() for seed in range(2)]
    drawn: list[SequenceBatch] = []
    configs = [config, replace(config, seed=1)]
    course = abreast(models, Material.of(data, None, models[0], config), configs, {})

    def sampler(generator: torch.Generator, size: int) -> SequenceBatch:
        batch = course.sampler(generator, size)
        drawn.append(replace(batch, obs=batch.obs.double(), action=batch.action.double()))
        return drawn[-1]

    run(course.module, course.loss, sampler, config)
    for index, copy in enumerate(copies):
        batches = iter([part(batch, 16 * index, 16 * (index + 1)) for batch in drawn])

        def loss(module: Any, batch: Any, update: int, generator: torch.Generator) -> Any:
            return sequence_loss(module, batch, generator)

        run(copy, loss, lambda generator, size, given=batches: next(given), config)
        for (name, ours), theirs in zip(
            models[index].named_parameters(), copy.parameters(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize("case", ALONE)
def test_what_cannot_go_abreast_goes_alone(data, case):
    config, options = ALONE[case]
    assert not trains_abreast(data, config, replace(SHORT, **options))


def test_an_ensemble_that_went_alone_still_trains(data, tmp_path: Path):
    pair = fit(data, lw.GRU(width=8), SHORT, members=2, run_dir=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["member-0", "member-1"]
    assert len(pair.members) == 2


def test_a_run_abreast_that_was_stopped_ends_bit_for_bit_as_if_it_had_not_been(
    data, tmp_path: Path, monkeypatch
):
    config = replace(SHORT, checkpoint_every=2)
    whole = fit(data, SMALL, config, members=3)
    monkeypatch.setattr(course_module, "sequence_loss", stopped_at(6, course_module.sequence_loss))
    with pytest.raises(KeyboardInterrupt):
        fit(data, SMALL, config, members=3, run_dir=tmp_path)
    again = fit(data, SMALL, config, members=3, run_dir=tmp_path)
    for one, two in zip(whole.members, again.members, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)
        )
    with pytest.raises(CheckpointError, match="members") as refused:
        fit(data, SMALL, config, members=2, run_dir=tmp_path)
    assert len(str(refused.value)) < 500 + len(str(tmp_path))


def test_members_differ_and_each_has_the_history_of_its_own(data):
    trio = fit(data, SMALL, replace(SHORT, log_every=4), members=3)
    ends = [member.history[-1]["validation"] for member in trio.members]
    assert len(set(ends)) == 3
    for member, end in zip(trio.members, ends, strict=True):
        material = Material.of(data, data.split(0.95, seed=0)[1], member, SHORT)
        assert material.held_out is not None
        found = validation_error(member, material.held_out)
        assert end == pytest.approx(found, rel=1e-5)
        assert [record["update"] for record in member.history] == [4, 4, 8, 8]


def test_models_abreast_share_the_time_and_each_has_its_validation(data):
    models = fit(data, SMALL, replace(SHORT, updates=1), members=2).members
    settings = [SHORT, replace(SHORT, seed=1)]
    course = abreast(models, Material.of(data, None, models[0], SHORT), settings, {})
    ends = {"validation": 0.5, "validation of member 0": 0.4, "validation of member 1": 0.6}
    records: list[Any] = [{"update": 4, "lr": 1e-3, "seconds": 6.0}, {"update": 4, **ends}]
    one, two = course.finish(History(records, updates=4, skipped=0, seconds=6.0))
    assert [one.history[0]["seconds"], two.history[0]["seconds"]] == [3.0, 3.0]
    assert [one.history[1]["validation"], two.history[1]["validation"]] == [0.4, 0.6]


@pytest.mark.parametrize("optimizer", [lw.AdamW(), lw.Muon(), AdamATan2()], ids=repr)
def test_a_model_abreast_has_the_learning_rate_of_its_own_settings(data, optimizer):
    """How far one update goes is the rate, for biases exactly, for matrices by Muon nearly."""
    base = replace(SHORT, updates=1, lr=1e-3, ema=0.0, warmup=0.0, optimizer=optimizer)
    settings = [base, replace(base, lr=4e-3), replace(base, lr=0.25e-3)]
    begun = fit_each(data, SMALL, [replace(base, lr=1e-30)] * 3)
    ended = fit_each(data, SMALL, settings)
    for name, tolerance in (("heads.change.bias", 1e-3), ("dynamics.core.cell.leave", 0.3)):
        pairs = [
            (a.state_dict()[name], b.state_dict()[name]) for a, b in zip(begun, ended, strict=True)
        ]
        first, *others = ((a - b).abs().mean() for a, b in pairs)
        assert [float(each / first) for each in others] == pytest.approx([4, 0.25], rel=tolerance)


def test_rates_of_one_seed_see_the_same_windows_and_seeds_their_own(data):
    settings = [SHORT, replace(SHORT, lr=1e-3), replace(SHORT, seed=5)]
    models = fit(data, SMALL, replace(SHORT, updates=1), members=3).members
    course = abreast(models, Material.of(data, None, models[0], SHORT), settings, {})
    batch = course.sampler(torch.Generator().manual_seed(0), 16)
    one, two, three = (part(batch, 16 * index, 16 * (index + 1)) for index in range(3))
    assert torch.equal(one.obs, two.obs)
    assert not torch.equal(one.obs, three.obs)


def test_a_history_has_the_rate_of_its_model(data):
    one, two = fit_each(data, SMALL, [SHORT, replace(SHORT, lr=4 * SHORT.lr)])
    rates = [[r["lr"] for r in each.history if "lr" in r] for each in (one, two)]
    assert rates[1] == pytest.approx([4 * lr for lr in rates[0]])


def test_under_autocast_members_take_turns(data):
    with torch.autocast("cpu", torch.bfloat16):
        assert len(fit(data, SMALL, SHORT, members=2).members) == 2


def test_depths_of_members_that_are_not_sorted_are_refused(make, data):
    models = [make(SMALL, data, seed).train() for seed in range(2)]
    core = joined(models).core
    z, e = torch.zeros(8, 1, 8).double(), torch.ones(8, 1, 8).double()
    assert core((z,), e, torch.tensor([4, 3, 2, 1])).n_iters.tolist() == 2 * [4, 3, 2, 1]
    with pytest.raises(ValueError, match="descending"):
        core((z,), e, torch.tensor([1, 2, 3, 4]))


def test_no_rows_at_all_are_refined_in_training_too(make, data):
    model = make(SMALL, data).train()
    assert len(model.predict(data.obs[:0], data.action[:0]).next_obs) == 0
