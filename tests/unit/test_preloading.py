"""`ssa run`: which words are its own, and into which programs a library can be preloaded."""

import os
import struct
from pathlib import Path

import pytest

from ssa.cli import preloading
from ssa.cli.command import prepared

WORDS = {
    "run prog": "run -- prog",
    "run prog --tls -h": "run -- prog --tls -h",
    "run --tls prog": "run --tls -- prog",
    "run --tls-listen prog --tls-listen": "run --tls-listen=all -- prog --tls-listen",
    "run --tls-listen=80 --tls-listen=90 prog 1": "run --tls-listen=80 --tls-listen=90 -- prog 1",
    "run --tls-to h:1 --name n prog": "run --tls-to h:1 --name n -- prog",
    "run --tls-to=h:1 --name=n prog": "run --tls-to=h:1 --name=n -- prog",
    "run --tls -- prog -- x": "run --tls -- prog -- x",
    "run -- --tls": "run -- --tls",
    "run --list": "run --list",
    "run --name": "run --name",
    "run": "run",
    "": "",
    "--json run a": "--json run -- a",
    "connect run 443": "connect run 443",
}


@pytest.mark.parametrize("words", WORDS)
def test_words(words):
    assert prepared(words.split()) == WORDS[words].split()


TRUE = Path("/bin/true")


@pytest.fixture
def made(tmp_path):
    """A program of these bytes."""

    def make(content, mode=0o755):
        path = tmp_path / "program"
        path.write_bytes(content)
        path.chmod(mode)
        return path

    return make


def without_linker(content):
    """An ELF program whose segment PT_INTERP is none."""
    table, size, count = struct.unpack_from("<32xQ14xHH", content)
    changed = bytearray(content)
    for at in range(table, table + size * count, size):
        if struct.unpack_from("<I", content, at)[0] == 3:
            struct.pack_into("<I", changed, at, 0)
    return bytes(changed)


def reason(program):
    return preloading.why_not(str(program), str(TRUE))


def test_what_takes_one(made):
    assert reason(TRUE) == ""
    assert reason(made(TRUE.read_bytes())) == ""


def test_what_takes_no_library(made):
    content = TRUE.read_bytes()
    assert "linked statically" in reason(made(without_linker(content)))
    assert "another architecture" in reason(made(content[:18] + b"\xf3\x00" + content[20:]))
    assert "another architecture" in reason(made(content[:4] + b"\x01" + content[5:]))
    assert "neither an ELF program nor a script" in reason(made(b"neither"))
    assert "neither an ELF program nor a script" in reason(made(b""))
    musl = content.replace(b"/lib64/ld-linux-x86-64.so.2", b"/lib64/ld-musl-x86_64.so.1\0")
    assert musl == content or "its dynamic linker is" in reason(made(musl))


def test_scripts(made, tmp_path):
    static = tmp_path / "static"
    static.write_bytes(without_linker(TRUE.read_bytes()))
    static.chmod(0o755)
    assert "linked statically" in reason(made(b"#! %s -x\n" % os.fsencode(static)))
    assert "linked statically" in reason(made(b"#!/usr/bin/env -S A=b %s\n" % os.fsencode(static)))
    for line in (b"#!/bin/sh\n", b"#!/usr/bin/env sh", b"#!/bin/sh -e\r\n"):
        assert reason(made(line)) == ""
    assert "there is no no-such-program" in reason(made(b"#!/usr/bin/env no-such-program\n"))
    assert "no interpreter" in reason(made(b"#!\n"))
    assert "is a script, and so on" in reason(made(b"#!" + os.fsencode(tmp_path / "program") + b"\n"))


def test_tls_of_its_own(made, tmp_path):
    content = TRUE.read_bytes()
    assert not preloading.has_own_tls(str(TRUE))
    assert preloading.has_own_tls(str(made(content + b"tls13 c hs traffics hs traffic")))
    assert not preloading.has_own_tls(str(made(b"")))
    assert not preloading.has_own_tls(str(tmp_path / "nothing"))


def test_setuid(made):
    program = made(TRUE.read_bytes())
    if os.geteuid():
        pytest.skip("only root can make a program another user's")
    os.chown(program, 12345, -1)
    program.chmod(0o4755)
    assert "setuid" in reason(program)
    os.chown(program, 0, 12345)
    program.chmod(0o2755)
    assert "setuid" in reason(program)
