"""A study over tasks runs from one file, resumes, and shows what is missing."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from loopwm.errors import ConfigError, StoreError
from loopwm.files import write_json
from loopwm.study.compare import cost, launch, study
from loopwm.study.compare.conduct import Order, conduct
from loopwm.study.compare.cost import estimate
from loopwm.study.compare.places import Place
from loopwm.study.compare.settings import QUICK, Settings, read_settings
from loopwm.study.compare.study import outcome, runs_of, stages_of
from loopwm.study.compare.summary import headline, method
from loopwm.study.compare.terms import FAMILIES
from loopwm.study.compare.trial import Trial
from loopwm.study.datasets import Split
from loopwm.study.results import load_study
from loopwm.study.strict import plain
from loopwm.train.config import AdamW, Muon
from tests.study.compare.small import linear_world, result

TINY = Settings(
    tasks=("linear",),
    arms=("looped", "once"),
    sizes=(1_500, 3_000),
    rates=(4e-3,),
    seeds=(0,),
    updates=(2,),
    batch=8,
    horizons=(1, 3),
    windows=20,
    shifts=(),
    loops=(),
)


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every place be the linear world."""
    train, valid, test = (linear_world(seed) for seed in range(3))

    def give(place: Place, folder: Path, say: Callable[[str], None] = lambda line: None) -> Split:
        return Split(train, valid, valid, test)

    monkeypatch.setattr(study, "experience", give)


def do(folder: Path, mode: str = "run", settings: Settings = TINY, **more: Any) -> list[str]:
    lines: list[str] = []
    order = Order(settings, "compare-tiny", folder, mode, **more)
    file = StringIO()
    conduct(order, Console(file=file, width=200), lines.append)
    return [*lines, file.getvalue()]


@pytest.mark.slow
def test_a_study_runs_resumes_and_feeds_the_page_of_results(linear: None, tmp_path: Path):
    said = do(tmp_path, results=tmp_path / "docs" / "results")
    assert "CPU hours" in said[-1]
    assert sum("_lr0.004_" in each for each in said[:-1]) == 4
    assert (tmp_path / "report" / "headline.csv").exists()
    assert load_study(tmp_path / "docs" / "results" / "compare-tiny.json").sheets[0].rows
    assert (tmp_path / "docs" / "figures" / "compare-tiny-ratio-by-task-k1.png").exists()
    assert not any("_lr0.004_" in each for each in do(tmp_path)[:-1])


def test_each_model_is_an_independent_command_and_what_is_not_run_is_missing(
    linear: None, tmp_path: Path
):
    names = do(tmp_path, "list")[:-1]
    assert len(names) == 4
    for name in names:
        if "once" not in name:
            assert do(tmp_path, "only", only=name)[0] == "done"
    (_, report), *_ = outcome(TINY, tmp_path).reports
    assert len(report.missing) == 2
    assert [each.name for each in report.arms] == ["looped"]
    assert "not looped" in do(tmp_path, "report")[-1]
    with pytest.raises(ConfigError, match="no trial 'nothing'"):
        do(tmp_path, "only", only="nothing")


def test_finished_models_are_not_listed_and_seeds_follow_the_whole_first_round(
    linear: None, tmp_path: Path
):
    settings = replace(TINY, rates=(4e-3, 8e-3), seeds=(0, 1), sizes=(1_500,))
    (stage,) = stages_of(settings)
    _, first, _ = study.trials_of(stage, tmp_path)
    *begun, last = (each for each in first if each.arm == "once")
    other = [each for each in first if each.arm != "once"]
    for each in (*begun, *other):
        write_json(tmp_path / "cells" / f"{each.name}.json", plain(result(each, 0.1)))
    listed = do(tmp_path, "list", settings)[:-1]
    assert listed == [last.name, replace(other[0], seed=1).name]


def test_what_is_missing_of_an_arm_is_not_what_is_missing_of_its_namesake(
    linear: None, tmp_path: Path
):
    arms = ("looped", "mlp", "looped-ensemble", "mlp-ensemble")
    settings = replace(TINY, arms=arms, sizes=(1_500,))
    for stage in stages_of(settings):
        _, first, _ = study.trials_of(stage, tmp_path)
        for each in first:
            # What is missing: the ensemble of MLPs, and two of the MLP's three shapes.
            if each.arm != "mlp-ensemble" and (each.arm != "mlp" or each.shape == 0):
                write_json(tmp_path / "cells" / f"{each.name}.json", plain(result(each, 0.1)))
    missing = {
        row["model"]: row["missing"]
        for row in headline(outcome(settings, tmp_path)).rows
        if row["missing"] != "all"
    }
    assert missing == {"MLP, 2 to 4 layers": 2}


def test_nothing_run_at_all_is_said(linear: None, tmp_path: Path):
    found = outcome(TINY, tmp_path)
    assert found.reports == ()
    assert "no model of the arm 'looped'" in found.missing[0]


def test_an_estimate_trains_nothing(linear: None, tmp_path: Path):
    do(tmp_path, "estimate")
    assert not (tmp_path / "cells").exists()


def test_an_estimate_is_measured_on_one_thread(
    linear: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    threads, before = [], torch.get_num_threads()

    def timed(*given: Any) -> tuple[float, float]:
        threads.append(torch.get_num_threads())
        return 1.0, 1.0

    monkeypatch.setattr(cost, "_timed", timed)
    torch.set_num_threads(2)
    try:
        estimate(stages_of(TINY), tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1}


def test_an_estimate_leaves_out_what_is_finished_in_either_round(linear: None, tmp_path: Path):
    settings = replace(TINY, seeds=(0, 1, 2), sizes=(1_500,))
    (stage,) = stages_of(settings)

    def finish(trials: list[Trial]) -> None:
        for each in trials:
            write_json(tmp_path / "cells" / f"{each.name}.json", plain(result(each, 0.1)))

    (before,) = estimate([stage], tmp_path)
    _, first, nothing = study.trials_of(stage, tmp_path)
    assert nothing == []
    finish(first)
    (between,) = estimate([stage], tmp_path)
    _, _, second = study.trials_of(stage, tmp_path)
    finish(second)
    (after,) = estimate([stage], tmp_path)
    assert before.models == between.models == after.models == len(first) + len(second)
    assert [each.done for each in (before, between, after)] == [0, len(first), after.models]
    assert before.seconds > 0
    assert between.seconds > 0
    assert after.seconds == 0


def test_every_combination_is_a_comparison_of_its_own() -> None:
    wanted = replace(TINY, tasks=("a", "b"), skips=(1, 2), updates=(2, 4), loops=(1, 2))
    stages = stages_of(wanted)
    assert len({each.name for each in stages}) == len(stages) == 2 * 2 * 2 + 2 * 3
    assert [each.terms.fit.updates for each in stages if not each.law] == [2] * 4 + [4] * 4
    assert {each.terms.fit.updates for each in stages if each.law} == {4}


def test_the_law_is_fitted_to_all_seeds_of_the_chosen_rates() -> None:
    pairs = []
    for loops in (1, 2):
        for rows in (100, 200):
            for lr, seeds in ((1e-3, (0, 1)), (2e-3, (0,))):
                for seed in seeds:
                    trial = Trial("", f"loops-{loops}", 0, 50, 50, lr, seed, 10, "0")
                    error = 0.1 * loops + 0.001 * rows + 0.01 * seed
                    pairs.append((rows, result(trial, error)))
    runs = runs_of(pairs, 1)
    assert sorted(zip(runs.loops, runs.rows, strict=True)) == [
        (1, 100),
        (1, 200),
        (2, 100),
        (2, 200),
    ]
    np.testing.assert_allclose(runs.errors[:, 1] - runs.errors[:, 0], 0.01)
    np.testing.assert_allclose(runs.repeated, 25)
    np.testing.assert_allclose(runs.once, 25)


def test_settings_are_read_from_toml_and_json(tmp_path: Path) -> None:
    toml, as_json = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text('tasks = ["Ant-v5"]\nrates = [1, 2e-3]\nmargin = 0.1\n[levels]\n15 = [0.3]\n')
    as_json.write_text(
        '{"tasks": ["Ant-v5"], "rates": [1, 0.002], "margin": 0.1, "levels": {"15": [0.3]}}'
    )
    expected = replace(
        Settings(), tasks=("Ant-v5",), rates=(1.0, 2e-3), margin=0.1, levels=((15, (0.3,)),)
    )
    assert read_settings(toml) == read_settings(as_json) == expected
    assert expected.terms(10).levels == {15: (0.3,)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ['a']", "unknown setting 'task'; did you mean 'tasks'"),
        ("tasks = 'a'", "tasks must be a list"),
        ("seeds = [0.5]", "seeds must hold int, got 0.5"),
        ("tasks = []", "tasks must be one or more"),
        ("mixture = 'best'", "mixture must be"),
        ("optimizer = 'adam'", "optimizer must be among adamw, muon, got 'adam'"),
        ("arms = ['looped', 'lstm']", "there is no arm 'lstm'"),
        ("loops = [3]", "loops must be among"),
        ("[levels]\na = [1.0]", "levels must hold"),
        ("rows = true", "rows must hold int"),
        ("skips = [0]", "skips must be at least 1"),
        ("loops = [4]", "loops must be at least 2 different"),
        ("loops = [4, 4]", "loops must be at least 2 different"),
        ("loop_sizes = [8000, 16000, 32000]", "loop_sizes must be at least 4"),
        ("loop_rows = []", "loop_rows must be at least 1"),
        ("loop_rows = [0]", "loop_rows must be at least 1"),
        ("shifts = ['speeds', 'speeds']", "shifts must be different"),
        ("shift_arms = []", "shift_arms: "),
        ("shift_arms = ['lstm']", "shift_arms: "),
        ("margin = -0.1", "margin must be at least 0"),
        ("margin = nan", "margin must be at least 0"),
        ("rates = [nan]", "rates must be"),
        ("rates = [0.01, inf]", "rates must be"),
        ("steps = 0", "steps must be at least 1, got 0"),
        ("batch = 0", "batch must be at least 1, got 0"),
        ("[levels]\n1.15 = [0.3]", "levels must hold a list"),
        ("[levels]\n1 = '12'", "levels must hold a list"),
        ("[levels]\n1 = [true]", "levels must hold a list"),
    ],
)
def test_bad_settings_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_settings(path)


def test_the_optimiser_of_every_arm_is_named_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('optimizer = "adamw"\n')
    by_adamw = read_settings(path)
    assert by_adamw.terms(10).fit.optimizer == AdamW()
    assert Settings().terms(10).fit.optimizer == Muon()
    assert "steps by AdamW" in " ".join(method(by_adamw))


def test_every_arm_of_the_study_is_named_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "arms.json"
    path.write_text(json.dumps({"arms": list(FAMILIES)}))
    assert list(stages_of(read_settings(path))[0].families) == list(FAMILIES)


def test_a_file_that_is_not_there_or_not_toml_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no file"):
        read_settings(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("=")
    with pytest.raises(StoreError, match="cannot be read"):
        read_settings(tmp_path / "b.toml")


def test_the_quick_form_has_five_sizes_and_says_what_it_is() -> None:
    assert len(QUICK.sizes) == 5
    assert len(stages_of(QUICK)) == 1


def test_jobs_of_a_cluster_each_work_on_the_shared_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[tuple[Any, ...]] = []
    parameters: dict[str, Any] = {}

    class Executor:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "jobs")

        def update_parameters(self, **given: Any) -> None:
            parameters.update(given)

        def submit(self, *given: Any) -> SimpleNamespace:
            submitted.append(given)
            return SimpleNamespace(job_id=len(submitted))

    fake = SimpleNamespace(AutoExecutor=Executor)
    monkeypatch.setattr(launch, "require", lambda module, extra: fake)
    assert launch.submit(TINY, tmp_path, jobs=2, hours=0.5) == ["1", "2"]
    assert submitted == [(launch.work, TINY, tmp_path)] * 2
    assert parameters == {"timeout_min": 30, "cpus_per_task": 1}
