"""The cases of conformance.json, played by the Go package (tests/native/go/player), with Go's race detector."""

import json
import os
import subprocess

import pytest

from tests.native import golang
from tests.native import test_conformance as suite
from tests.native.conftest import PATHS

# What a socket of C's and Python's can do and a Go connection has not: non-blocking calls, dup(2), options of
# SOL_SOCKET, vectors of buffers, datagrams. Cases with these are the others'.
NOT_IN_GO = {
    *("blocking", "epoll", "error", "dup", "recvmsg", "recvfrom", "sendto", "reply", "setopt", "getopt", "timeval"),
    *("writev", "sendmsg", "connect_host"),
}
# There is no TLS connection before its handshake is done, and none is left after one that failed. Steps that are told
# so are left out.
NO_SUCH_STATE = {"ENOTCONN", "EISCONN"}
NO_SUCH_OPTION = {"TLS_UPGRADE", "TLS_ERROR"}


def is_go(case):
    calls = {step[0][0] for step in case["steps"]}
    return not calls & NOT_IN_GO and not any("SOCK_DGRAM" in step[0] for step in case["steps"])


def refused(step):
    return step[1].get("errno") if len(step) > 1 and isinstance(step[1], dict) else None


def is_there(step):
    call, *arguments = step[0]
    is_asked = call in ("get", "number") and NO_SUCH_OPTION & set(arguments)
    is_in_order = refused(step) == "EINVAL" and call in ("connect", "listen")  # after another connect
    return refused(step) not in NO_SUCH_STATE and not is_asked and not is_in_order


def without_what_go_lacks(case):
    return case | {"steps": [step for step in case["steps"] if is_there(step)]}


# Cases about the options and kinds of a socket that is not connected: a Go program has a struct for them.
OF_SOCKETS = {"values of options", "kinds that there are not", "what cannot be done before"}
CASES = [without_what_go_lacks(case) for case in suite.CASES if is_go(case) and case["name"] not in OF_SOCKETS]


class Players(suite.Players):
    def process(self, player):
        if player not in self._running:
            self._running[player] = subprocess.Popen(
                [golang.built("player")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | self._environments["library"] | {"GORACE": "halt_on_error=1"},
                text=True,
                bufsize=1,
            )
        return self._running[player]


words = suite.words


@pytest.fixture(scope="module")
def players(running, libssa):
    made = Players(libssa, running.environment)
    yield made
    for player in list(made._running):
        made.end(player)


PLAYS = [
    pytest.param(case, path, id=f"{case['name']}-{path}")
    for path in PATHS
    for case in CASES
    if suite.fits(case, "library", path)
]


@pytest.mark.parametrize(("case", "path"), PLAYS)
@pytest.mark.usefixtures("ssad")
def test_go_conforms(case, pki, words, players):
    peer = suite.Peer()
    with suite.server(pki, peer, case.get("peer", "none")) as port:
        words |= {"$port": port}
        results = suite.play(case, players.process("go"), words, pki, peer)
        if case.get("ends"):
            players.end("go")
        for (call, *expected), result in zip(case["steps"], results, strict=True):
            if expected and expected[0] is not None:
                assert result == suite.replaced(expected[0], words), call
            elif not expected:
                assert not isinstance(result, dict), (call, result)
        if "sees" in case:
            assert peer.told.wait(10)
            assert peer.seen in case["sees"]


def test_most_cases_are_played():
    assert len(CASES) >= 25, json.dumps([case["name"] for case in CASES])
