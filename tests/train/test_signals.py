"""Signals are noted once, obeyed twice, and the process gets its handlers back."""

import signal
import threading
from pathlib import Path
from types import ModuleType

import pytest

from loopwm.train.signals import stop_request


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_the_first_signal_is_noted_and_the_second_obeyed_at_once(
    number: signal.Signals, error: type[BaseException]
):
    with stop_request() as request:
        signal.raise_signal(number)
        assert request.received == number
        with pytest.raises(error) as caught:
            signal.raise_signal(number)
        request.received = None
    if error is SystemExit:
        assert caught.value.args == (143,)


def test_a_signal_that_nobody_answered_is_obeyed_at_the_end():
    with pytest.raises(KeyboardInterrupt), stop_request():
        signal.raise_signal(signal.SIGINT)


def signal_and_return_zero() -> int:
    signal.raise_signal(signal.SIGINT)
    return 0


def test_an_error_on_its_way_is_not_replaced():
    with pytest.raises(ZeroDivisionError), stop_request():
        assert 1 / signal_and_return_zero()


def test_the_earlier_handlers_return():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with stop_request():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(ZeroDivisionError), stop_request():
        assert 1 / 0
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_request() as request:
            signal.raise_signal(signal.SIGINT)
            assert request.received is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_another_thread_leaves_the_signals_alone(toy: ModuleType, tmp_path: Path):
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []
    done: list[int] = []

    def work() -> None:
        look = {0: lambda: seen.append(signal.getsignal(signal.SIGINT))}
        done.append(toy.train(tmp_path, toy.config(updates=3), look)[1].updates)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
    assert done == [3]


def test_without_a_run_directory_a_signal_ends_the_run_at_once(toy: ModuleType):
    reached: list[int] = []
    at = {4: lambda: signal.raise_signal(signal.SIGINT), 5: lambda: reached.append(5)}
    with pytest.raises(KeyboardInterrupt):
        toy.train(None, toy.config(), at)
    assert reached == []
