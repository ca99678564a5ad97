"""Numbers that the reference computed are computed here too, in single precision.

They are read from `LOOPWM_TRM_FIXTURES`, or from `../shared/fixtures/trm` beside the repository.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from loopwm.core.config import Attend, MixTokens, PostNorm
from loopwm.reason.config import ReasonerConfig
from loopwm.reason.layout import published_names
from loopwm.reason.loss import stablemax_cross_entropy, step_loss
from loopwm.reason.model import Reasoner
from loopwm.train.config import AdamATan2, FitConfig, SignSGD
from loopwm.train.optim import Stepper

_BESIDE = Path(__file__).parents[3] / "shared" / "fixtures" / "trm"
FOLDER = Path(os.environ.get("LOOPWM_TRM_FIXTURES", _BESIDE))
INNER = "model.inner."


@dataclass
class Reference:
    """The reference's numbers, and the model with its weights."""

    arrays: dict[str, np.ndarray]
    model: Reasoner

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    @property
    def puzzle(self) -> tuple[Tensor, Tensor]:
        return self["in/inputs"], self["in/puzzle_identifiers"]

    @property
    def optimizer(self) -> dict[str, Any]:
        return json.loads(str(self.arrays["meta"]))["optim"]

    def latents(self, step: int) -> tuple[Tensor, Tensor]:
        return self[f"eval/s{step}/z_H"], self[f"eval/s{step}/z_L"]

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the dense parameters by their published names."""
        ours = dict(self.model.named_parameters())
        named = published_names(self.model.config).items()
        return {INNER + k: ours[v] for k, v in named if v in ours and v != "adapter.puzzle"}


@pytest.fixture(params=["att", "mlp"])
def reference(request) -> Reference:
    path = FOLDER / f"{request.param}.npz"
    if not path.exists():
        pytest.skip(f"no parity fixture at {path}: set LOOPWM_TRM_FIXTURES to where they are")
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    given = json.loads(str(arrays["cfg"]))
    mixer = MixTokens() if given["mlp_t"] else Attend(given["num_heads"], theta=1e4)
    config = ReasonerConfig(
        vocabulary=given["vocab_size"],
        length=given["seq_len"],
        puzzles=given["num_puzzle_identifiers"],
        prefix=given["puzzle_emb_len"],
        puzzle_width=given["puzzle_emb_ndim"],
        width=given["hidden_size"],
        cell=PostNorm(mixer, layers=given["L_layers"], expand=given["expansion"]),
        cycles=given["H_cycles"],
        inner=given["L_cycles"],
    )
    model = Reasoner(config)
    names = published_names(config).items()
    model.load_state_dict({v: torch.from_numpy(arrays[f"sd/{INNER}{k}"]) for k, v in names})
    return Reference(arrays, model)


def close(ours: Tensor, theirs: Tensor, tol: float = 2e-5) -> None:
    torch.testing.assert_close(ours.detach(), theirs.to(ours.dtype), rtol=0, atol=tol)


def test_embeddings_and_one_refinement(reference: Reference):
    cell = reference.model.core.cell
    close(reference.model.adapter(*reference.puzzle), reference["blk/input_embeddings"])
    close(cell(reference["blk/x"], cell.condition(reference["blk/inj"])), reference["blk/y"])


@pytest.mark.parametrize("step", [0, 1])
def test_a_step_from_where_the_reference_was(reference: Reference, step: int):
    model, (tokens, ids) = reference.model, reference.puzzle
    state = reference.latents(step - 1) if step else model.start(tokens)
    state, logits, q_halt = model.step(state, tokens, ids)
    for ours, theirs in zip(state, reference.latents(step), strict=True):
        close(ours, theirs)
    close(logits, reference[f"eval/s{step}/logits"])
    close(q_halt, reference[f"eval/s{step}/q_halt"])
    close(model.verdict(state)[:, 1], reference[f"eval/s{step}/q_cont"])


def test_two_steps_in_a_row(reference: Reference):
    # Twelve refinements amplify roundings: the perceptron's own numbers are up to 5e-5 from those
    # of double precision, on any machine. In norm they stay within the tolerance of one step.
    model, (tokens, ids) = reference.model, reference.puzzle
    state, _, _ = model.step(model.start(tokens), tokens, ids)
    state, logits, _ = model.step(state, tokens, ids)
    pairs = [*zip(state, reference.latents(1), strict=True), (logits, reference["eval/s1/logits"])]
    for ours, theirs in pairs:
        assert float((ours - theirs).detach().norm() / theirs.norm()) <= 2e-5


def test_the_loss(reference: Reference):
    labels = reference["in/labels"]
    tokens = stablemax_cross_entropy(reference["train/logits"], labels)
    close(tokens, reference["train/stablemax_tok"], tol=1e-6)
    loss = step_loss(reference["train/logits"], reference["train/q_halt"], labels)
    assert float(loss.answer.sum()) == pytest.approx(float(reference["train/lm_loss"]), abs=1e-6)
    assert float(loss.verdict.sum()) == pytest.approx(
        float(reference["train/q_halt_loss"]), abs=1e-6
    )
    # The reference prints the sum over rows, and minimises the mean.
    assert float(loss.total) * 3 == pytest.approx(float(reference["train/loss"]), abs=1e-6)


def test_every_gradient_and_one_optimizer_step(reference: Reference):
    model, (tokens, ids), given = reference.model, reference.puzzle, reference.optimizer
    choice = AdamATan2(tuple(given["betas"]), SignSGD(given["pe_lr"], given["pe_wd"]))
    config = FitConfig(
        lr=given["lr"], weight_decay=given["wd"], clip=None, optimizer=choice, device="cpu"
    )
    stepper = Stepper(model, config)
    _, logits, q_halt = model.step(model.start(tokens), tokens, ids)
    loss = step_loss(logits, q_halt, reference["in/labels"]).total
    assert float(loss.detach()) == pytest.approx(float(reference["train/loss"]) / 3, abs=1e-6)
    loss.backward()
    for name, parameter in reference.parameters().items():
        assert parameter.grad is not None
        assert relative(parameter.grad, reference[f"grad/{name}"]) <= 1e-4, name
    table = model.adapter.puzzle.grad
    assert table is not None
    assert table.is_sparse
    summed = torch.zeros(table.shape).index_add(0, ids, reference["grad/puzzle_emb_local"])
    assert relative(table.to_dense(), summed) <= 1e-4
    stepper.step(loss, given["lr"])
    for name, parameter in reference.parameters().items():
        close(parameter, reference[f"opt/{name}"], tol=1e-6)
    close(model.adapter.puzzle, reference["opt/puzzle_emb"], tol=1e-6)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12))
