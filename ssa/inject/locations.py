"""Reads certificates and trust anchors from the files, directories and variables that a program names."""

from __future__ import annotations

import os
import re
import ssl
import stat
import sys

from ssa import pem
from ssa.inject.failures import error, log_once
from ssa.library.option_values import File, der_certificates
from ssa.protocol.options import MAX_ANCHORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Path = str | bytes | os.PathLike[str]

_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")  # as `openssl rehash` names the files of a directory


class Anchors:
    """The trust anchors that a program has named, in whatever order it has named them.

    Attributes:
        system: it has named what stands for the system's: the policy's trust store. Others then narrow nothing.
        named: it has named some, whether they were there or not. A set that is named and empty trusts nobody.
    """

    def __init__(self) -> None:
        self.system = False
        self.named = False
        self._blocks: dict[bytes, None] = {}
        self._file: File | None = None  # of all blocks, once it is asked for

    def add(self, blocks: Iterable[bytes]) -> None:
        """Take on certificates, PEM. Raises `ssa.SSAError` BAD_VALUE where they are too many."""
        more = {**self._blocks, **dict.fromkeys(blocks)}
        if sum(map(len, more)) > MAX_ANCHORS:
            raise error("BAD_VALUE", f"the trust anchors are longer than {MAX_ANCHORS >> 20} MiB")
        self._blocks, self._file = more, None

    def files(self) -> tuple[File, ...] | None:
        """The value of TLS_TRUSTED_PEER_CERTIFICATES: None where nothing narrows, empty where nobody is trusted."""
        if self.system or not self.named:
            return None
        if self._blocks and self._file is None:
            self._file = joined(self._blocks)
        return () if self._file is None else (self._file,)


def joined(blocks: Iterable[bytes]) -> File:
    """A file of PEM blocks, in memory."""
    return File(b"\n".join([*blocks, b""]))


def certificates_untrusted(text: bytes) -> list[bytes]:
    """The certificates of a text, as PEM blocks. What is around them does not count, nor how its lines end."""
    return [block.whole for block in pem.blocks(text) if block.is_certificate]


def of_file(path: Path) -> list[bytes]:
    """The certificates of a file, PEM. Raises OSError, and `ssa.SSAError` BAD_VALUE where there is none."""
    with open(path, "rb") as file:  # noqa: PTH123 - of bytes too
        data = file.read(MAX_ANCHORS + 1)
    if len(data) > MAX_ANCHORS:
        raise error("BAD_VALUE", f"{os.fsdecode(path)} is longer than {MAX_ANCHORS >> 20} MiB")
    if found := certificates_untrusted(data):
        return found
    raise error(
        "BAD_VALUE", f"{os.fsdecode(path)}: there is no certificate in it, expected -----BEGIN CERTIFICATE-----"
    )


def of_data(cadata: str | bytes) -> list[bytes]:
    """`load_verify_locations`'s cadata: PEM as a text, DER as bytes. Raises as `ssl` does, BAD_VALUE for neither."""
    if not cadata:
        raise ValueError("Empty certificate data")
    data = cadata.encode("utf-8", "surrogateescape") if isinstance(cadata, str) else memoryview(cadata).tobytes()
    if found := certificates_untrusted(data):
        return found
    try:
        if data.startswith(b"\x30"):
            return [pem.encoded([der]) for der in der_certificates(data)]
    except IndexError:
        pass  # the last one is cut short
    raise error("BAD_VALUE", "cadata does not contain a certificate")


def of_directories(capath: Path) -> Iterator[bytes]:
    """The certificates of directories with ":" between, hashed as by `openssl rehash`: those that can be read."""
    for directory in os.fsdecode(capath).split(":"):
        for name in _listed(directory):
            if _HASHED.fullmatch(name):
                yield from certificates_untrusted(_read_if_regular(f"{directory}/{name}"))


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory)) if directory else []
    except OSError:
        return []


def _read_if_regular(path: str) -> bytes:
    """The content of a file; empty if it is no regular file, is not there, or may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, MAX_ANCHORS, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


def of_environment(anchors: Anchors) -> None:
    """Name what SSL_CERT_FILE and SSL_CERT_DIR name, or the system's where neither is set.

    What is not there is passed over, as by OpenSSL. One that is set to nothing stands for nothing, and leaves the
    system's in force where the other is not set.
    """
    file, directories = (os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    if (not file and not directories and None in (file, directories)) or stand_for_the_system(file, directories):
        anchors.system = True
        return
    anchors.named = True
    found = certificates_untrusted(_read_if_regular(file)) if file else []
    found += of_directories(directories) if directories else ()
    if not found:
        words = f"SSL_CERT_FILE={file} SSL_CERT_DIR={directories}: there is no certificate, so no server is trusted"
        log_once("warning", words)
    anchors.add(found)


def stand_for_the_system(file: Path | None, directories: Path | None) -> bool:
    """True if the file or one of the directories is the system's own trust store, or certifi's copy of one."""
    paths = ssl.get_default_verify_paths()
    known = {paths.openssl_cafile, paths.openssl_capath, "/etc/ssl/certs/ca-certificates.crt", *_certifi()}
    named = [*([os.fsdecode(file)] if file else []), *(os.fsdecode(directories).split(":") if directories else [])]
    return not {os.path.realpath(path) for path in known}.isdisjoint(os.path.realpath(path) for path in named if path)


def _certifi() -> Iterator[str]:
    """The paths of certifi's bundle: its own, and the copy that pip carries."""
    for name in ("certifi", "pip._vendor.certifi"):
        if module := sys.modules.get(name):
            yield module.where()
