"""Metrics reach every sink; the terminal shows them only where it is one."""

import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

from loopwm.train.fit import run
from loopwm.train.log import Meter, Record


class Memory:
    """Keep what is written."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed = 0

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        self.closed += 1


def test_the_mean_counts_the_updates_that_had_the_metric():
    meter = Meter()
    meter.add({"a": 1.0, "b": torch.tensor(2.0)})
    meter.add({"a": torch.tensor(3.0)})
    meter.add({"a": 5.0, "b": torch.tensor(5.0)})
    assert meter.mean() == {"a": 3.0, "b": 3.5}
    assert meter.mean() == {}


def test_the_mean_of_what_is_not_finite_is_none():
    meter = Meter()
    meter.add({"a": math.inf, "b": math.nan, "c": 1.0})
    meter.add({"a": -math.inf, "b": 1.0, "c": 2.0})
    assert meter.mean() == {"a": None, "b": None, "c": 1.5}


def test_a_meter_restored_from_json_goes_on_as_if_nothing_had_happened():
    values = [{"a": torch.tensor(0.1 * i), "b": 0.1 * i} for i in range(7)]
    values[2]["b"] = math.nan
    straight, first, second = Meter(), Meter(), Meter()
    for value in values:
        straight.add(value)
    for value in values[:4]:
        first.add(value)
    second.restore(json.loads(json.dumps(first.entries())))
    for value in values[4:]:
        second.add(value)
    assert second.mean() == straight.mean()


def test_a_metric_does_not_keep_the_graph_of_its_update_alive():
    meter = Meter()
    weight = torch.ones(2, requires_grad=True)
    meter.add({"a": weight.sum()})
    (entry,) = meter._entries
    assert isinstance(entry["a"], torch.Tensor)
    assert not entry["a"].requires_grad


def test_every_record_reaches_every_sink_and_each_is_closed_once(toy: ModuleType):
    sinks = [Memory(), Memory()]
    history = run(toy.module(), toy.loss, toy.sample, toy.config(), sinks=sinks)
    for sink in sinks:
        assert sink.records == history.records
        assert sink.closed == 1


def test_a_sink_is_closed_after_an_error_too(toy: ModuleType):
    def broken(*args: object) -> None:
        raise KeyError

    sink = Memory()
    with pytest.raises(KeyError):
        run(toy.module(), broken, toy.sample, toy.config(), sinks=[sink])  # pyright: ignore
    assert sink.closed == 1


def test_the_file_holds_the_records(toy: ModuleType, tmp_path: Path):
    _, history = toy.train(tmp_path, toy.config())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history.records


def test_tensorboard_shows_the_records(toy: ModuleType, tmp_path: Path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator
    _, history = toy.train(tmp_path, toy.config(tensorboard=True))
    events = accumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = {e.step: e.value for e in events.Scalars("loss")}
    expected = {r["update"]: r["loss"] for r in history.records if "loss" in r}
    assert shown == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("progress", [None, False])
def test_nothing_is_printed_where_there_is_no_terminal(
    toy: ModuleType, capfd: pytest.CaptureFixture[str], progress: bool | None
):
    toy.train(None, toy.config(progress=progress))
    assert capfd.readouterr() == ("", "")


def test_progress_on_request_goes_to_stderr_and_ends_with_a_summary(
    toy: ModuleType, capfd: pytest.CaptureFixture[str]
):
    toy.train(None, toy.config(progress=True))
    out, err = capfd.readouterr()
    assert out == ""
    assert "60/60" in err
    assert "best validation" in err
