"""Signals as interrupts; what a whole program makes of them is tests/processes/'s."""

import signal
import threading
from collections.abc import Iterator

import pytest

from emulator.interrupt import as_interrupts, blocked_interrupt, deferred_interrupt

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _nothing_ignored() -> Iterator[None]:
    """As if nobody had started the tests with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", HANDLED)
def test_each_of_them_interrupts_and_is_named(number: signal.Signals) -> None:
    before = [signal.getsignal(it) for it in HANDLED]
    with pytest.raises(KeyboardInterrupt), as_interrupts() as received:
        signal.raise_signal(number)
    assert received == [number] * (number != signal.SIGINT)
    assert [signal.getsignal(it) for it in HANDLED] == before


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with as_interrupts() as received:
            signal.raise_signal(signal.SIGHUP)
        assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", HANDLED)
def test_a_deferred_interrupt_comes_afterwards(number: signal.Signals) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), as_interrupts():
        with deferred_interrupt():
            signal.raise_signal(number)
            done.append("all of it")
        done.append("and more")
    assert done == ["all of it"]


def test_other_threads_defer_nothing() -> None:
    done = []

    def work() -> None:
        with deferred_interrupt():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_blocked_interrupt_comes_when_it_is_over() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), as_interrupts(), blocked_interrupt():
        signal.raise_signal(signal.SIGTERM)
        done.append(True)
    assert done == [True]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
