"""A shared library (ELF) in a form that the dynamic linker loads whole or not at all. Pure.

glibc maps a library without a look at its size. If the file was cut, what is missing faults when it is touched: SIGBUS,
at the start of every program that has it preloaded, and so the end of the machine. But it does read(2) the program
headers where they are not in the first 832 bytes, and a short read is an error to it, which it goes on after
(_dl_map_object_from_fd in elf/dl-load.c, "cannot read file data"). So the program headers are copied to the end of the
file: whatever is cut off, they are.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ssa.cli.failure import Failure


class _Form(NamedTuple):
    """Where an ELF header has what (elf(5)): by its class."""

    program_headers: struct.Struct  # e_phoff
    at: int
    sizes: int  # e_phentsize, e_phnum


_FORMS = {1: _Form(struct.Struct("<I"), 28, 42), 2: _Form(struct.Struct("<Q"), 32, 54)}
_SIZES = struct.Struct("<HH")
_HEADER = 64  # bytes, of the longer form
_BEYOND = 832  # bytes that the dynamic linker reads at first


def _headers(image: bytes) -> tuple[_Form, int, int]:
    """Where an image's program headers begin and end. Raises `Failure`."""
    form = _FORMS.get(image[4]) if image.startswith(b"\x7fELF") and len(image) >= _HEADER else None
    if form is None:
        raise Failure("it is no shared library (ELF)")
    size, count = _SIZES.unpack_from(image, form.sizes)
    (begin,) = form.program_headers.unpack_from(image, form.at)
    return form, begin, begin + size * count


def sealed(image: bytes) -> bytes:
    """The library with its program headers at the end. Raises `Failure` if it is none."""
    form, begin, end = _headers(image)
    if not begin < end <= len(image):
        raise Failure("it is not whole")
    body = bytearray(image + bytes(-len(image) % 8)).ljust(_BEYOND, b"\0")
    form.program_headers.pack_into(body, form.at, len(body))
    return bytes(body) + image[begin:end]


def is_whole(image: bytes) -> bool:
    """True if a sealed library ends where its program headers do."""
    try:
        return _headers(image)[2] == len(image)
    except Failure:
        return False
