"""The table of flags and options, and its documentation."""

import re
import socket
from pathlib import Path

import pytest

import ssa
from ssa.library.flags import FLAGS, NOT_RECEIVED, NUMBERS, OPTIONS, SENT, refuse

DOCUMENT = Path(ssa.__file__).parents[1] / "docs" / "options.md"


def test_the_documentation_is_the_table():
    rows = re.findall(r"^\| ((?:MSG|SO|TCP)_\w+) \| (.+) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert [(name, (ktls, relay)) for name, ktls, relay in rows] == [*FLAGS.items(), *OPTIONS.items()]


def test_all_flags_that_python_knows_are_there():
    known = {name: int(getattr(socket, name)) for name in dir(socket) if name.startswith("MSG_")}
    assert known | {"MSG_ZEROCOPY": 0x4000000} == NUMBERS
    assert set(FLAGS) == set(NUMBERS)


def test_what_is_sent_and_received_is_what_the_table_says():
    for name, words in FLAGS.items():
        assert all(("EOPNOTSUPP" in path) == (not NUMBERS[name] & SENT) for path in words), name
        assert (words[0] == "EOPNOTSUPP") == bool(NUMBERS[name] & NOT_RECEIVED), name


def test_a_refusal_names_the_flags():
    with pytest.raises(OSError, match=r"MSG_OOB, MSG_ZEROCOPY: not on a TLS stream"):
        refuse(socket.MSG_OOB | 0x4000000)
    with pytest.raises(OSError, match="flags 0x10000000"):
        refuse(0x10000000)
