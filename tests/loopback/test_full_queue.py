"""An ssad whose queue of connections is full: event loops never wait for it, other programs do until their deadline."""

import socket
import threading
import time

import pytest
import trio

import ssa
import ssa.trio
from ssa.library.connection import DaemonConnection
from tests import peers


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A listener at ssad's address, with its queue full."""
    monkeypatch.setenv("SSA_RUN_DIR", str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "ssad.sock"))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
            first.connect(str(tmp_path / "ssad.sock"))
            yield listener


def seconds(deadline):
    began = time.perf_counter()
    with pytest.raises(TimeoutError, match="takes no request in time"):
        DaemonConnection(deadline())
    return time.perf_counter() - began


def test_nothing_waits_where_the_time_has_come_already(queue):
    assert min(seconds(time.monotonic) for _ in range(50)) < 0.0005


def test_others_wait_until_the_deadline(queue):
    assert 0.2 < seconds(lambda: time.monotonic() + 0.25) < 2


@pytest.mark.parametrize("deadline", [None, 20])
def test_whoever_waits_gets_the_next_place(queue, deadline):
    def make_room():
        queue.accept()[0].close()

    place = threading.Timer(0.1, make_room)
    place.start()
    with DaemonConnection(None if deadline is None else time.monotonic() + deadline) as daemon:
        daemon.tell(ssa.protocol.wire.Describe())  # it waits for nobody's answer now, and can be told things
    place.join()


def test_trio_goes_on_meanwhile(queue):
    turns = []

    async def tick():
        while True:
            turns.append(trio.current_time())
            await trio.sleep(0.01)

    async def main(port):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            with trio.move_on_after(0.3):
                await ssa.trio.open_stream("127.0.0.1", port)
            nursery.cancel_scope.cancel()

    with peers.script(lambda connection: connection.recv(1)) as port:
        trio.run(main, port)
    assert len(turns) > 5
