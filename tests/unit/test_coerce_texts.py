"""The pure parts of `ssa coerce`: /etc/ld.so.preload, the list of programs to leave alone, sealed libraries."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa.cli import left_alone, preload_list, sealing
from ssa.cli.coerced import is_left_alone
from ssa.cli.failure import Failure

OURS = "/usr/$LIB/ssa/libssa-gate.so"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("/a.so\n", ["/a.so"]),
        ("/a.so /b.so:/c.so\t/d.so", ["/a.so", "/b.so", "/c.so", "/d.so"]),
        ("# /a.so\n/b.so # /c.so\n", ["/b.so"]),
    ],
)
def test_entries(text, names):
    assert preload_list.entries(text) == names


@pytest.mark.parametrize(
    ("text", "after"),
    [("", f"{OURS}\n"), ("/a.so", f"/a.so\n{OURS}\n"), ("/a.so\n", f"/a.so\n{OURS}\n"), (f"{OURS} /a", f"{OURS} /a")],
)
def test_with_ours(text, after):
    assert preload_list.with_ours(text, OURS) == after


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (f"{OURS}\n", ""),
        (f"/a.so\n{OURS}\n/b.so\n", "/a.so\n/b.so\n"),
        (f"/a.so:{OURS} /b.so\n", "/a.so /b.so\n"),
        (f"{OURS} # a comment\n", "# a comment\n"),
        (f"# {OURS}\n", f"# {OURS}\n"),
        (f"{OURS}.old\n", f"{OURS}.old\n"),
    ],
)
def test_without_ours(text, after):
    assert preload_list.without_ours(text, OURS) == after


lines = st.lists(st.text("ab/.# :\t", max_size=12)).map(lambda some: "".join(f"{line}\n" for line in some))


@given(lines)
def test_off_undoes_on(text):
    assert preload_list.without_ours(preload_list.with_ours(text, OURS), OURS) == text


@given(st.text())
def test_any_text_is_read(text):
    assert OURS in preload_list.entries(preload_list.with_ours(text.replace("#", ""), OURS).replace("\r", ""))


# --- the list ---


def test_the_default_list_is_what_the_file_says():
    assert left_alone.read_untrusted(left_alone.text()) == left_alone.patterns()


@pytest.mark.parametrize(
    ("path", "is_there"),
    [
        ("/usr/sbin/sshd", True),
        ("/usr/bin/dpkg-deb", True),
        ("/usr/lib/apt/methods/https", True),
        ("/lib/systemd/systemd", True),
        ("/bin/bash", True),
        ("/opt/ssa/bin/ssad", True),
        ("/usr/bin/curl", False),
        ("/home/bin/bash", False),
        ("/usr/bin/python3.11", False),
    ],
)
def test_who_is_left_alone(path, is_there):
    assert is_left_alone(path, left_alone.patterns()) == is_there


# --- sealed libraries ---


def image(size=2000):
    """A header with two program headers behind it, and some bytes."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    return header + bytes(range(112)) + bytes(size - 176)


def test_a_sealed_library_is_whole():
    sealed = sealing.sealed(image())
    assert sealing.is_whole(sealed)
    assert sealed.endswith(bytes(range(112)))
    assert sealed[64:2000] == image()[64:]


@given(st.integers(0, 2111))
def test_a_cut_one_is_not(size):
    assert not sealing.is_whole(sealing.sealed(image())[:size])


def test_a_short_one_is_read_beyond_what_the_linker_reads_at_first():
    sealed = sealing.sealed(image(300))
    assert struct.unpack_from("<Q", sealed, 32) == (832,)


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF", b"\x7fELF\3" + bytes(200), image()[:100]])
def test_what_is_no_library_is_refused(content):
    with pytest.raises(Failure):
        sealing.sealed(content)
    assert not sealing.is_whole(content)
