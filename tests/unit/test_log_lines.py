"""The fields of a log line, and how many lines a user may cause."""

import ast

import pytest

from ssa.daemon.log import Bounds
from ssa.errors import printable
from ssa.logfmt import fields


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("TLSv1.3", "TLSv1.3"),
        ("", ""),
        (True, "yes"),
        (7, "7"),
        ("[::1]:443", "[::1]:443"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "no"', r'"say \"no\""'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nline", r'"line\nline"'),
        ("\x9b\u202e\u2066", r'"\x9b\u202e\u2066"'),
        ("bücher", '"bücher"'),
    ],
)
def test_a_field(value, shown):
    assert fields(key=value) == f"key={shown}"
    if shown.startswith('"'):
        assert ast.literal_eval(shown) == value


def test_a_field_is_not_long():
    assert len(fields(key="x" * 100_000)) < 1100


@pytest.mark.parametrize("code", [0, 9, 0x1B, 0x7F, 0x85, 0x9B, 0xAD, 0x200F, 0x2028, 0x202E, 0x2066, 0xFEFF, 0xE0001])
def test_what_a_terminal_might_act_on_is_escaped(code):
    shown = printable(f"a{chr(code)}b")
    assert shown.isascii()
    assert shown.isprintable()


def test_bytes_that_are_no_text_are_escaped():
    assert printable(b"/bin/\x9b\xff".decode("utf-8", "surrogateescape")) == r"/bin/\udc9b\udcff"


def test_a_user_may_cause_so_many_lines_a_second():
    bounds = Bounds(3)
    one, other = (1000, ""), (1001, "")
    assert [bounds.admit(one, 0.1 * n) for n in range(8)] == [True] * 3 + [False] * 5
    assert bounds.admit(other, 0.5)
    assert bounds.admit((1000, "truncated"), 0.5)
    assert bounds.left_out(0.9) == []
    assert bounds.admit(one, 1.1)
    assert bounds.left_out(1.2) == [(one, 5)]
    assert bounds
    assert bounds.left_out(2.2) == []
    assert not bounds
