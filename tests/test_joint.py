"""One core for both domains: one storage, one sum of losses, one checkpoint, one directory."""

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loopwm as lw
from loopwm.core.config import Attend, MixTokens, PostNorm
from loopwm.data.replay import Windows
from loopwm.errors import CheckpointError, ConfigError, StoreError
from loopwm.files import read_tree
from loopwm.joint import LEAST_SHARE, Pair, Puzzles, attending, both, fit, load, world_of
from loopwm.reason import fit as puzzling
from loopwm.reason import stored
from loopwm.reason.carry import PuzzleBatch
from loopwm.reason.config import Halting, ReasonerConfig
from loopwm.train.checkpoint import checkpoints
from loopwm.train.config import FitConfig
from loopwm.world import fit as worlds
from tests.reason.echo import Reversed, held_out

WIDTH = 32
REASONER = ReasonerConfig(
    vocabulary=5,
    length=3,
    puzzles=6,
    prefix=1,
    puzzle_width=8,
    width=WIDTH,
    cell=PostNorm(Attend(2, theta=100.0), multiple=8),
    cycles=1,
    inner=1,
)
WORLD = world_of(REASONER, lw.WorldConfig(depth=lw.depth.Poisson(2)))
RULE = Halting(max_steps=3, explore=0.5, rise=0.5)
SETTINGS = FitConfig(
    updates=12,
    batch_size=8,
    horizon=2,
    ema=0.9,
    device="cpu",
    checkpoint_every=5,
    validate_every=6,
    log_every=4,
    progress=False,
)


class Died(BaseException):
    """Stand for a death that leaves no time for anything."""


class Dying(Reversed):
    """Draw the same puzzles, and die at a draw."""

    def __init__(self, at: int) -> None:
        self.left = at

    def sample(self, generator: torch.Generator, count: int) -> PuzzleBatch:
        self.left -= 1
        if self.left < 0:
            raise Died
        return super().sample(generator, count)


Dying.__name__ = Reversed.__name__


def puzzles(source: Reversed | None = None, **changes: Any) -> Puzzles:
    given = {"halting": RULE, "slots": 4, "valid": held_out(16)} | changes
    return Puzzles(source or Reversed(), given.pop("config", REASONER), **given)


def trained(data: Any, source: Reversed | None = None, run_dir: Path | None = None) -> Pair:
    return fit(data, puzzles(source), WORLD, SETTINGS, run_dir=run_dir)


@pytest.fixture(scope="module")
def pair(pendulum: Any) -> Pair:
    return trained(pendulum)


def tied(pair: Pair) -> bool:
    ours, theirs = (dict(core.cell.named_parameters()) for core in cores(pair))
    return ours.keys() == theirs.keys() and all(
        ours[name].data_ptr() == theirs[name].data_ptr() for name in ours
    )


def cores(pair: Pair) -> tuple[Any, Any]:
    return pair.world.core, pair.reasoner.core


def test_both_loops_run_one_cell_whose_tensors_are_the_same_storage(pair: Pair):
    assert tied(pair)
    world, reasoner = cores(pair)
    assert world.cell is reasoner.cell
    assert world.program != reasoner.program
    # What is counted once by torch is what the optimiser steps once.
    apart = sum(p.numel() for each in (pair.world, pair.reasoner) for p in each.parameters())
    shared = sum(p.numel() for p in pair.cell.parameters())
    assert sum(p.numel() for p in pair.parameters()) == apart - shared


def test_the_share_is_that_of_a_count_by_hand(pair: Pair):
    d, obs, inputs = WIDTH, 3, 3 + 1 + 1
    hidden = 8 * -(-round(4 * d * 2 / 3) // 8)
    cell = 2 * (3 * d * d + d * d + 2 * d * hidden + hidden * d)
    # Into the core, what is carried, where it begins; the heads: change, reward, termination.
    world = (inputs * d + d) + d * d + d + (d * obs + obs) + (d * 32 + 32) + 33
    world += (obs * 32 + 32) + (32 * 32 + 32) + 33
    reasoner = 5 * d + 2 * d + 2
    assert pair.shares() == pytest.approx(
        {"world model": cell / (cell + world), "reasoner": cell / (cell + reasoner)}
    )
    assert min(pair.shares().values()) >= LEAST_SHARE


def test_copies_loads_and_moves_leave_the_cell_one(pair: Pair):
    other = copy.deepcopy(pair)
    assert tied(other)
    assert other.cell is not pair.cell
    other.load_state_dict(pair.state_dict())
    assert tied(other)
    other.load_state_dict(pair.state_dict(), assign=True)
    assert tied(other)
    assert tied(other.double().float())
    with torch.no_grad():
        next(iter(other.world.core.parameters())).fill_(0.25)
    assert bool((next(iter(other.reasoner.core.parameters())) == 0.25).all())
    assert not bool((next(iter(pair.cell.parameters())) == 0.25).all())


def courses(data: Any, horizon: int = 2) -> tuple[Any, Any]:
    config = replace(SETTINGS, horizon=horizon, horizon_warmup=0.0)
    slots = replace(config, batch_size=4)
    return (
        worlds.course(data, WORLD, config),
        puzzling.course(Reversed(), REASONER, slots, halting=RULE),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_the_sum_of_both_and_so_is_the_gradient_of_the_shared_tensors(pendulum: Any):
    world, lessons = courses(pendulum)
    joined = both(world, lessons, weight=0.5)
    model: Any = world.module
    reasoner: Any = lessons.module.reasoner
    module = joined.module.train()
    batch = joined.sampler(generator(), 8)
    start = {name: value.clone() for name, value in module.state_dict().items()}
    names = [name for name, _ in model.core.cell.named_parameters()]

    def gradients() -> list[torch.Tensor]:
        found = [reasoner.core.cell.get_parameter(name).grad.clone() for name in names]
        module.zero_grad()
        return found

    draws = generator(7)
    total, metrics = joined.loss(module, batch, 3, draws)
    total.backward()
    together = gradients()
    module.load_state_dict(start)  # the slots have moved on

    draws = generator(7)
    first, _ = world.loss(model, batch[0], 3, draws)
    first.backward()
    of_world = gradients()
    second, _ = lessons.loss(lessons.module, batch[1], 3, draws)
    second.backward()
    of_puzzles = gradients()

    torch.testing.assert_close(total, first + 0.5 * second)
    assert float(metrics["world_loss"]) == float(first.detach())
    assert float(metrics["puzzle_loss"]) == float(second.detach())
    for name, each, one, two in zip(names, together, of_world, of_puzzles, strict=True):
        torch.testing.assert_close(each, one + 0.5 * two, rtol=1e-4, atol=1e-6, msg=name)
        assert bool(two.any()), name
        assert bool(one.any()), name


def test_the_losses_are_those_of_separate_training_on_the_same_weights_and_batches(pendulum: Any):
    world, lessons = courses(pendulum)
    joined = both(world, lessons)
    batch = joined.sampler(generator(), 8)
    _, metrics = joined.loss(joined.module.train(), batch, 3, generator(7))

    # Two models of their own, the world's with a copy of the cell that the pair had at first.
    alone, apart = courses(pendulum)
    model, other = alone.module.train(), apart.module.train()
    model.core.cell.load_state_dict(other.reasoner.core.cell.state_dict())
    draws = generator(7)
    first, _ = alone.loss(model, batch[0], 3, draws)
    second, _ = apart.loss(other, batch[1], 3, draws)
    assert float(metrics["world_loss"]) == pytest.approx(float(first.detach()), rel=1e-6)
    assert float(metrics["puzzle_loss"]) == pytest.approx(float(second.detach()), rel=1e-6)


def test_each_update_takes_a_whole_batch_of_both(pendulum: Any):
    world, lessons = courses(pendulum)
    drawn = both(world, lessons).sampler(generator(), 8)
    windows = Windows(pendulum, 2, torch.device("cpu"))
    expected = windows.sample(8, generator())
    assert torch.equal(drawn[0].obs, expected.obs)
    assert len(drawn[1]) == 4  # every slot is free at first


def test_a_run_that_died_ends_bit_for_bit_like_a_whole_one(pendulum: Any, tmp_path: Path):
    whole = trained(pendulum, run_dir=tmp_path / "whole")
    with pytest.raises(Died):
        # The first draw tells sources apart; further ones fill slots.
        trained(pendulum, Dying(at=5), tmp_path / "again")
    assert checkpoints(tmp_path / "again")[0].name == "000000005"
    resumed = trained(pendulum, run_dir=tmp_path / "again")
    assert tied(resumed)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    trees = [read_tree(checkpoints(tmp_path / name)[0]) for name in ("whole", "again")]
    for group, arrays in trees[0].arrays.items():
        for key, array in arrays.items():
            assert array.tobytes() == trees[1].arrays[group][key].tobytes(), (group, key)


def test_a_run_goes_on_with_its_own_puzzles_and_weight_only(pendulum: Any, tmp_path: Path):
    trained(pendulum, run_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"documents\.weight was 1\.0 and is now 2\.0"):
        fit(pendulum, puzzles(weight=2.0), WORLD, SETTINGS, run_dir=tmp_path)


@pytest.mark.slow
def test_training_serves_both_domains(pendulum: Any):
    settings = replace(SETTINGS, updates=160, batch_size=16, validate_every=20, lr=1e-2)
    found = fit(pendulum, puzzles(slots=32, valid=held_out()), WORLD, settings)
    checks = [each for each in found.world.history if "validation" in each]
    for each in checks:
        parts = each["world_validation"] + each["puzzles_validation"]
        assert each["validation"] == pytest.approx(parts)
    assert checks[-1]["world_validation"] < 0.6 * checks[0]["world_validation"]
    # By chance one answer of 125 is right.
    assert checks[-1]["puzzles_validation"] < 0.5


def test_a_directory_holds_the_shared_tensors_once_and_gives_them_back_as_one(
    pair: Pair, pendulum: Any, tmp_path: Path
):
    pair.save(tmp_path)
    names = [name for group in read_tree(tmp_path).arrays.values() for name in group]
    assert sum("blocks.0.transform.enter.weight" in name for name in names) == 1
    again = load(tmp_path)
    assert tied(again)
    assert not again.training
    for name, tensor in pair.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    # Each model can be had by itself.
    world, reasoner = lw.load(tmp_path), stored.load(tmp_path)
    obs, action = pendulum.obs[:5], pendulum.action[:5]
    assert isinstance(world, lw.WorldModel)
    np.testing.assert_array_equal(
        world.predict(obs, action).next_obs, pair.world.predict(obs, action).next_obs
    )
    tokens = held_out(5).tokens
    state = reasoner.start(tokens)
    assert torch.equal(
        reasoner.step(state, tokens)[1], pair.reasoner.step(pair.reasoner.start(tokens), tokens)[1]
    )


def test_a_directory_without_a_shared_cell_is_no_pair(pair: Pair, tmp_path: Path):
    pair.world.save(tmp_path)
    with pytest.raises(StoreError, match=r"holds no pair.*lw\.load"):
        load(tmp_path)


def test_models_that_cannot_share_are_refused(pendulum: Any):
    with pytest.raises(ConfigError, match=r"width=64.*width=32.*world_of\(reasoner\)"):
        fit(pendulum, puzzles(), lw.WorldConfig(width=64, cell=REASONER.cell), SETTINGS)
    with pytest.raises(ConfigError, match=r"Bounded\(.*cannot share the core"):
        fit(pendulum, puzzles(), lw.WorldConfig(width=WIDTH), SETTINGS)
    slim = replace(REASONER, width=4, puzzle_width=4)
    with pytest.raises(ConfigError, match=r"\d+% of the world model's weights would be shared"):
        fit(pendulum, puzzles(config=slim), world_of(slim), SETTINGS)
    with pytest.raises(ConfigError, match=r"Puzzles\.slots must be at least 1, got 0"):
        puzzles(slots=0)
    with pytest.raises(ConfigError, match=r"Puzzles\.weight must be above 0, got 0"):
        puzzles(weight=0.0)


def test_a_reasoner_that_mixes_by_a_perceptron_is_given_attention_to_share():
    mixing = replace(REASONER, cell=PostNorm(MixTokens(), multiple=8))
    with pytest.raises(ConfigError, match="a world model's state has one token"):
        world_of(mixing)
    given = attending(mixing, heads=2)
    assert given.cell == replace(mixing.cell, mixer=Attend(2, theta=1e4))
    assert world_of(given).cell == given.cell
    assert attending(REASONER) is REASONER


def test_without_the_reasoner_the_module_says_what_is_missing():
    code = """
import sys
class Deleted:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("loopwm.reason"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Deleted())
import loopwm
try:
    import loopwm.joint
except loopwm.errors.MissingExtra as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "together with a reasoner, and loopwm.reason is not there" in result.stdout, result
