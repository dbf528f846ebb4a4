"""Blocking work with a deadline: its result, its failure, and what is left of it."""

import signal
import threading
import time

import pytest

from ssa.intime import TooSlow, in_time


def test_the_result():
    assert in_time(lambda: 7, 5) == 7


def test_no_result_is_a_result():
    assert in_time(lambda: None, 5) is None


def test_a_failure_is_the_callers():
    with pytest.raises(KeyError, match="x"):
        in_time(lambda: {}["x"], 5)


def test_work_that_hangs_is_left_behind():
    release = threading.Event()
    began = time.monotonic()
    with pytest.raises(TooSlow, match=r"no answer within 0\.1 seconds"):
        in_time(release.wait, 0.1)
    assert time.monotonic() - began < 5
    release.set()


def test_its_thread_takes_no_signal_that_is_meant_for_others():
    blocked = in_time(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, []), 5)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= blocked
    assert signal.SIGSEGV not in blocked
