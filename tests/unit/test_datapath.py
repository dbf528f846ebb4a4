"""The two data paths of a stream can be put in each other's place."""

import errno
import inspect
import socket

import pytest

from ssa.library import datapath
from ssa.library.datapath import BOTH_WAYS, KERNEL, NOTHING, RELAYED, KernelStream, RelayedStream


def public(path):
    return {name: getattr(path, name) for name in dir(path) if not name.startswith("_")}


def test_they_have_the_same_methods_with_the_same_arguments():
    kernel, relayed = public(KernelStream), public(RelayedStream)
    assert kernel.keys() == relayed.keys()
    for name, method in kernel.items():
        if callable(method):
            ours, theirs = inspect.signature(method), inspect.signature(relayed[name])
            assert [p.strip("_") for p in ours.parameters] == [p.strip("_") for p in theirs.parameters], name
            assert [p.kind for p in ours.parameters.values()] == [p.kind for p in theirs.parameters.values()], name


@pytest.mark.parametrize(("family", "path"), [(socket.AF_UNIX, RELAYED), (socket.AF_INET, KERNEL)])
def test_a_descriptors_kind_says_which(family, path):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        assert datapath.of(sock) is path


@pytest.mark.parametrize("number", [errno.EBADMSG, errno.EMSGSIZE, errno.EINVAL, errno.EPIPE, errno.EAGAIN])
def test_the_errors_of_a_pair_say_nothing_of_records(number):
    assert RELAYED.unreadable(number) is RELAYED.unwritable(number) is None


def test_a_forged_record_is_told_to_readers_and_writers():
    assert KERNEL.unreadable(errno.EBADMSG).alert == KERNEL.unwritable(errno.EBADMSG).alert == "bad_record_mac"
    assert KERNEL.unwritable(errno.EPIPE) is KERNEL.unwritable(errno.EAGAIN) is None


@pytest.mark.parametrize(
    ("number", "what"),
    [(errno.EPIPE, NOTHING), (errno.ECONNABORTED, NOTHING), (errno.ECONNRESET, BOTH_WAYS), (errno.EPROTO, BOTH_WAYS)],
)
def test_what_the_daemon_says_of_the_end_counts_for_one_direction_or_both(number, what):
    assert RELAYED.ended_by(None, OSError(number, "")) == what
