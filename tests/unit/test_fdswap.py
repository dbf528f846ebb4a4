"""Another open file on a descriptor's number, and who holds one: on the kernel itself."""

import asyncio
import os
import select
import socket
import subprocess

import pytest

from ssa.library import fdswap


@pytest.fixture
def two():
    """A pair that is ready to be read, and one that is not: (the end that is watched, the other end) each."""
    ready, quiet = socket.socketpair(), socket.socketpair()
    ready[1].send(b"x")
    with ready[0], ready[1], quiet[0], quiet[1]:
        yield ready, quiet


def test_the_number_is_the_other_file(two):
    (ready, _), (quiet, far) = two
    aside = fdswap.swap(quiet.fileno(), ready.fileno())
    try:
        assert quiet.recv(1) == b"x"
        os.write(aside, b"from aside")
        assert far.recv(100) == b"from aside"
        assert not os.get_inheritable(aside)
    finally:
        os.close(aside)


@pytest.mark.parametrize("inheritable", [True, False])
def test_what_is_inherited_stays_so(two, inheritable):
    (ready, _), (quiet, _) = two
    os.set_inheritable(quiet.fileno(), inheritable)
    os.close(fdswap.swap(quiet.fileno(), ready.fileno()))
    assert os.get_inheritable(quiet.fileno()) is inheritable


@pytest.mark.parametrize("flags", [0, select.EPOLLET, select.EPOLLONESHOT])
def test_an_epoll_set_watches_the_file_that_is_there_now(two, flags):
    (ready, _), (quiet, _) = two
    with select.epoll() as epoll, select.epoll() as another:
        epoll.register(quiet, select.EPOLLIN | flags)
        another.register(quiet, select.EPOLLIN)
        assert epoll.poll(0) == []
        aside = fdswap.swap(quiet.fileno(), ready.fileno())
        assert epoll.poll(1) == another.poll(1) == [(quiet.fileno(), select.EPOLLIN)]
        os.close(fdswap.swap(quiet.fileno(), aside))
        os.close(aside)
        assert epoll.poll(0) == another.poll(0) == []


def test_what_is_not_watched_costs_no_look(two, monkeypatch):
    (ready, _), (quiet, _) = two
    looked = []
    monkeypatch.setattr(os, "listdir", lambda path: looked.append(path) or [])
    os.close(fdswap.swap(quiet.fileno(), ready.fileno(), watched=False))
    assert (quiet.recv(1), looked) == (b"x", [])


def test_a_look_asks_of_what_is_no_file_only(two, monkeypatch):
    """With thousands of sockets open, to ask what each of them is would hold up an event loop."""
    asked = []
    readlink = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: asked.append(path) or readlink(path))
    (ready, _), (quiet, _) = two
    with select.epoll() as epoll:
        os.close(fdswap.swap(quiet.fileno(), ready.fileno()))
        assert f"/proc/self/fd/{epoll.fileno()}" in asked
        assert f"/proc/self/fd/{ready.fileno()}" not in asked


def test_other_entries_of_an_epoll_set_stay(two):
    (ready, _), (quiet, _) = two
    with select.epoll() as epoll:
        epoll.register(ready, select.EPOLLIN)
        os.close(fdswap.swap(quiet.fileno(), ready.fileno()))
        assert epoll.poll(1) == [(ready.fileno(), select.EPOLLIN)]


def test_a_failed_swap_leaves_no_descriptor(two):
    _, (quiet, _) = two
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        fdswap.swap(quiet.fileno(), 10_000)
    assert len(os.listdir("/proc/self/fd")) == before


def test_behind_a_failed_swap_all_is_watched_as_before(two):
    _, (quiet, far) = two
    with select.epoll() as epoll:
        epoll.register(quiet, select.EPOLLIN)
        with pytest.raises(OSError):
            fdswap.swap(quiet.fileno(), 10_000)
        far.send(b"x")
        assert epoll.poll(1) == [(quiet.fileno(), select.EPOLLIN)]


def test_held_elsewhere(two):
    (ready, _), _ = two
    assert not fdswap.is_held_elsewhere(ready.fileno())
    twin = os.dup(ready.fileno())
    assert fdswap.is_held_elsewhere(ready.fileno())
    os.close(twin)
    assert not fdswap.is_held_elsewhere(ready.fileno())
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=ready.fileno()) as process:
        assert fdswap.is_held_elsewhere(ready.fileno())
        process.stdin.close()
    assert not fdswap.is_held_elsewhere(ready.fileno())


@pytest.mark.parametrize("default", [None, 5])
@pytest.mark.parametrize("blocking", [True, False])
def test_a_borrowed_descriptor_keeps_its_flags_and_its_owner(two, default, blocking):
    (ready, _), _ = two
    os.set_blocking(ready.fileno(), blocking)
    socket.setdefaulttimeout(default)
    try:
        with fdswap.Borrowed(ready.fileno()) as borrowed:
            assert borrowed.gettimeout() is None
            assert borrowed.recv(1, socket.MSG_DONTWAIT) == b"x"
    finally:
        socket.setdefaulttimeout(None)
    assert os.get_blocking(ready.fileno()) is blocking
    assert ready.fileno() >= 0


def test_an_entry_from_before_is_taken_over():
    """An event loop may leave its entry for a file in the epoll set when the number becomes another file's."""
    one, other = socket.socketpair()
    third, fourth = socket.socketpair()
    with one, other, third, fourth, select.epoll() as loop:
        number = one.fileno()
        loop.register(number, select.EPOLLIN)
        aside = fdswap.swap(number, third.fileno(), watched=False)  # the entry of the first file stays
        loop.register(number, select.EPOLLIN)
        os.close(fdswap.swap(number, aside))
        os.close(aside)
        other.send(b"x")
        assert loop.poll(1) == [(number, select.EPOLLIN)]


def test_in_asyncio_the_loop_is_asked_and_no_descriptor_is_looked_at(two, monkeypatch):
    """However many descriptors the process has, a connect on an event loop costs the same."""
    (ready, _), (quiet, _) = two
    looked = []

    async def watch():
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(quiet.fileno(), came.set)
        await asyncio.sleep(0.01)
        assert not came.is_set()
        monkeypatch.setattr(os, "listdir", lambda path: looked.append(path) or [])
        os.close(fdswap.swap(quiet.fileno(), ready.fileno()))
        await came.wait()
        assert loop.remove_reader(quiet.fileno())
        assert not loop.remove_reader(quiet.fileno())

    asyncio.run(asyncio.wait_for(watch(), 5))
    assert looked == []


def test_in_asyncio_what_is_not_watched_stays_so(two):
    (ready, _), (quiet, _) = two

    async def watch():
        os.close(fdswap.swap(quiet.fileno(), ready.fileno()))
        loop = asyncio.get_running_loop()
        assert not loop.remove_reader(quiet.fileno())
        assert await loop.sock_recv(quiet, 1) == b"x"

    quiet.setblocking(False)
    asyncio.run(asyncio.wait_for(watch(), 5))


def test_beside_a_loop_of_another_thread_all_sets_are_looked_at(two):
    (ready, _), (quiet, _) = two
    with select.epoll() as epoll:
        epoll.register(quiet, select.EPOLLIN)

        async def elsewhere():
            await asyncio.to_thread(lambda: os.close(fdswap.swap(quiet.fileno(), ready.fileno())))

        asyncio.run(elsewhere())
        assert epoll.poll(1) == [(quiet.fileno(), select.EPOLLIN)]
