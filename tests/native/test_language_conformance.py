"""The cases of conformance.json, played by the libraries for PHP and Node as far as those have what a case does."""

import json
import os
import subprocess

import pytest

from tests.native.conftest import PATHS
from tests.native.languages import COMMANDS, HOST
from tests.native.test_conformance import CASES, HERE, Peer, fits, play, replaced, server, words

__all__ = ["words"]

BOTH = {
    "connect, send, receive, end",
    "much at once, both ways",
    "the peer's close_notify is the end",
    "a stream that is cut is an error",
    "a fatal alert ends the connection in both directions",
    "close ends the stream in order",
    "the wrong name",
    "a server that speaks no TLS",
    "nobody listens, and then somebody does",
    "what cannot be done before",
    "ALPN",
    "STARTTLS",
    "TLS 1.2",
    "only TLS 1.2 under TLSv1.3",
    "another authority",
    "a server",
    "a bare descriptor",
    "a bare descriptor of a stream that is cut",
    "the peer changes its key",
    "the answer to a KeyUpdate goes before the next data",
    "a program that only sends answers too",
    "session tickets are none of the reader's business",
}
PLAYED = {
    "php": BOTH | {"the peer changes its key, and the kernel cannot follow"},
    # PHP closes in order what a program has left open; a client of PHP's cannot ask for the time of a session.
    "node": BOTH
    | {"a program that does not close cuts the stream", "a session is resumed by the tickets that were read"},
}
# What is no call of a library's, or is one only before or after the connect: such a step is passed over.
LACKS = {
    "php": {"get", "number", "set", "connect", "listen", "accept"},
    "node": {"get", "number", "set", "connect", "listen", "accept", "poll"},
}
# Node destroys a socket whose connection has failed, and its words for what comes behind are its own.
BEHIND = {"ERR_STREAM_DESTROYED", "ERR_STREAM_WRITE_AFTER_END", "EPIPE"}


def test_each_case_that_is_named_is_there():
    assert set().union(*PLAYED.values()) <= {case["name"] for case in CASES}


class Players:
    """A process for each language, which plays one case after the other."""

    def __init__(self, environment):
        self._environment = environment
        self._running = {}

    def process(self, language):
        if language not in self._running:
            self._running[language] = subprocess.Popen(
                [*COMMANDS[language], HERE / f"player.{'php' if language == 'php' else 'js'}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | self._environment,
                text=True,
                bufsize=1,
            )
        return self._running[language]

    def end(self, language):
        with self._running.pop(language) as process:
            process.stdin.close()

    def close(self):
        for language in list(self._running):
            self.end(language)


@pytest.fixture(scope="module")
def players(running, libssa):
    made = Players(running.environment)
    yield made
    made.close()


# Node asks for a relay, whatever the kernel can do: it plays on the host, and test_node.py is for the kernel with TLS.
WAYS = [("php", path, path) for path in PATHS] + [("node", "relay", "relay")] * HOST

PLAYS = [
    pytest.param(case, (language, setting), id=f"{case['name']}-{language}-{setting}")
    for language, path, setting in WAYS
    for case in CASES
    if case["name"] in PLAYED[language] and fits(case, language, path)
]


def is_as_expected(language, expected, result):
    if isinstance(result, dict) and "lacks" in result:
        return result["lacks"] in LACKS[language]
    if not expected:
        return not isinstance(result, dict)
    if language == "node" and isinstance(result, dict) and isinstance(expected[0], dict) and result["errno"] in BEHIND:
        return True
    return expected[0] is None or result == expected[0]


@pytest.fixture
def language(request, cleaned):
    """The language of a case, and the policy for it."""
    language, setting = request.param
    cleaned.set("data_path", setting)
    return language


@pytest.mark.parametrize(("case", "language"), PLAYS, indirect=["language"])
def test_a_case(case, language, pki, words, players):
    peer = Peer()
    with server(pki, peer, case.get("peer", "none")) as port:
        words |= {"$port": port}
        results = play(case, players.process(language), words, pki, peer)
        if case.get("ends"):
            players.end(language)
        for (call, *expected), result in zip(case["steps"], results, strict=True):
            assert is_as_expected(language, replaced(expected, words), result), (call, expected, result)
        if "sees" in case:
            assert peer.told.wait(10)
            assert peer.seen in case["sees"], json.dumps(results)
