"""One sender at a time: threads, signal handlers, processes that come of a fork(2). On the kernel itself."""

import fcntl
import gc
import os
import socket
import threading
import time

import pytest

import ssa
from ssa.library.option_values import Settings
from ssa.library.phases import FRESH, LIVE
from ssa.library.sharing import Turns
from ssa.protocol import wire


@pytest.fixture
def ours():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        yield sock


@pytest.fixture
def turns(ours):
    made = Turns()
    made.of(ours)
    return made


def in_a_child(do):
    child = os.fork()
    if not child:
        do()
        os._exit(0)
    return child


def take(turns):
    turns.turn.__enter__()  # and never gives it back


def test_a_thread_waits_for_another(turns):
    order = []

    def other():
        with turns.turn:
            order.append("other")

    with turns.turn, turns.turn:  # as a handler of a signal may
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join(5)
    assert order == ["first", "other"]


def test_a_process_waits_for_another(turns, tmp_path):
    log = tmp_path / "log"

    def note(word):
        with log.open("a") as file:
            file.write(word)

    def child():
        with turns.turn:
            with turns.turn:
                note("child ")
            time.sleep(0.2)
            note("done ")

    process = in_a_child(child)
    while not log.exists():
        time.sleep(0.01)
    with turns.turn:
        note("parent")
    os.waitpid(process, 0)
    assert log.read_text() == "child done parent"


def test_a_lock_that_is_held_at_the_fork_is_free_in_the_child(turns):
    with turns.turn:
        process = in_a_child(lambda: take(turns))
    assert os.waitpid(process, 0)[1] == 0


def test_a_process_that_dies_keeps_nobody_waiting(turns):
    process = in_a_child(lambda: take(turns))
    os.waitpid(process, 0)
    with turns.turn:
        pass


def test_a_closed_socket_keeps_nobody_waiting(turns, ours):
    turns.share(anew=False)
    with turns.turn:
        ours.close()
    with turns.turn:
        pass


def test_who_gives_up_waits_for_nobody(turns):
    held = turns.turn
    turns.give_up()
    with held, turns.turn:
        pass
    assert os.waitpid(in_a_child(lambda: None), 0)[1] == 0
    assert turns.turn is not turns


def test_it_keeps_no_socket_alive(ours):
    turns = Turns()
    turns.of(ours.dup())
    gc.collect()
    turns.share(anew=False)
    with turns.turn:
        pass


# --- closing one of several descriptors, which drops the kernel's lock of the whole process (fcntl(2)) ----------------


def is_free_elsewhere(sock):
    """Whether another process would get its turn now."""

    def child():
        try:
            fcntl.lockf(sock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os._exit(1)

    return os.waitpid(in_a_child(child), 0)[1] == 0


@pytest.fixture
def twins(ours):
    """Two TLS sockets of one open file, which another process has too."""
    one = ssa.TLSSocket.adopt(os.dup(ours.fileno()), socket.AF_INET, Settings(), LIVE, wire.Reply(rekeyable=1))
    with one, one.dup() as other:
        assert is_free_elsewhere(one)  # a fork
        yield one, other
        one._phase = other._phase = FRESH  # there is no TLS in this kernel, and no end of it to tell


def test_a_thread_closes_a_twin_while_another_sends(twins):
    one, other = twins
    fd = other.fileno()
    with one._turns.turn:
        thread = threading.Thread(target=other.close)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()  # it waits for nobody
        assert other.fileno() == -1
        assert not is_free_elsewhere(one)
    assert is_free_elsewhere(one)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_handler_of_a_signal_closes_a_twin_while_its_thread_sends(twins):
    one, other = twins
    fd = other.fileno()
    with one._turns.turn:
        other.close()
        assert not is_free_elsewhere(one)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_twin_is_closed_at_once_where_nobody_sends(twins):
    _, other = twins
    fd = other.fileno()
    other.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_closing_many_while_many_send_leaves_nothing(twins):
    one, _ = twins
    before = len(os.listdir("/proc/self/fd"))
    ended = threading.Event()

    def send():
        while not ended.is_set():
            with one._turns.turn:
                pass

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        one.dup().close()
    ended.set()
    for thread in threads:
        thread.join()
    assert len(os.listdir("/proc/self/fd")) == before
