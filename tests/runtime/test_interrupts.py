"""A signal, and nothing else, is the user's wish to end."""

from __future__ import annotations

import signal
import threading

import pytest

from flowrun.runtime.interrupts import Handler, Interrupted, is_users, telling_interrupts


def interrupting():
    """What Ctrl-C raises here."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.fixture
def handled():
    """Gives SIGINT a handler, until the end of the test."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def of_a_program(_number, _frame):
    raise KeyboardInterrupt("ctrl-c")


@pytest.mark.parametrize("handler", [signal.default_int_handler, of_a_program])
def test_what_a_signal_raises_is_told_from_what_code_raises(handled, handler):
    handled(handler)
    assert is_users(KeyboardInterrupt())  # nobody can know
    with telling_interrupts():
        assert type(interrupting()) is Interrupted
        assert is_users(interrupting())
        assert not is_users(KeyboardInterrupt())
        with telling_interrupts():
            assert type(interrupting()) is Interrupted
        assert type(interrupting()) is Interrupted
    assert signal.getsignal(signal.SIGINT) is handler
    assert type(interrupting()) is KeyboardInterrupt


def test_a_handler_of_flowrun_keeps_the_kind_of_its_interrupt(handled):
    class Ended(Interrupted): ...

    def handle(number, _frame):
        raise Ended(number)

    handler = Handler(handle)
    handled(handler)
    with telling_interrupts():
        assert signal.getsignal(signal.SIGINT) is handler
        assert type(interrupting()) is Ended
    assert not is_users(KeyboardInterrupt())


def test_a_handler_that_a_task_sets_stays(handled):
    with telling_interrupts():
        handled(of_a_program)
        assert is_users(interrupting())
    assert signal.getsignal(signal.SIGINT) is of_a_program


def test_where_signals_are_ignored_the_user_cannot_interrupt(handled):
    handled(signal.SIG_IGN)
    with telling_interrupts():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert not is_users(KeyboardInterrupt())


def test_on_another_thread_nothing_is_the_users():
    found = []

    def work():
        with telling_interrupts():
            found.append((is_users(KeyboardInterrupt()), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.default_int_handler)]


def test_other_errors_are_nobodys_wish():
    assert not any(map(is_users, (SystemExit(3), GeneratorExit(), ValueError("no"))))
