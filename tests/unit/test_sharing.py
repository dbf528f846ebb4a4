"""One sender at a time: threads, signal handlers, processes that come of a fork(2). On the kernel itself."""

import gc
import os
import socket
import threading
import time

import pytest

from ssa.sharing import Turns


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
