"""Where a program says that its certificates and trust anchors are."""

from __future__ import annotations

import os
import re
import ssl
import sys

from ssa.settings import File
from ssa.values import der_certificates


def _real(path: str | bytes | os.PathLike[str]) -> str:
    return os.path.realpath(os.fsdecode(path))


def stand_for_the_system(*locations: str | bytes | os.PathLike[str] | None) -> bool:
    """Whether one of the files and directories is what stands for all that the system trusts."""
    paths = ssl.get_default_verify_paths()
    known = {paths.openssl_cafile, paths.openssl_capath, "/etc/ssl/certs/ca-certificates.crt"}
    if certifi := sys.modules.get("certifi"):
        known.add(certifi.where())
    return not {_real(path) for path in known}.isdisjoint(_real(path) for path in locations if path is not None)


def certificates_alone(path: str | bytes | os.PathLike[str]) -> File:
    """The certificates of a file that has their key too: what ssad takes for certificates is shown to everyone."""
    with open(path, "rb") as file:  # noqa: PTH123 - of bytes too
        blocks = re.findall(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----\n?", file.read())
    return File(b"".join(blocks)) if blocks else File.of(path)


def hashed_certificates(directory: str | bytes | os.PathLike[str]) -> bytes:
    """The certificates of a directory as `openssl rehash` makes them."""
    found = []
    with os.scandir(os.fsdecode(directory)) as entries:
        for entry in entries:
            if re.fullmatch(r"[0-9a-f]{8}\.\d+", entry.name):
                with open(entry.path, "rb") as file:  # noqa: PTH123 - as entries have it
                    found.append(file.read())
    return b"\n".join(found)


def pem(cadata: str | bytes | None) -> bytes:
    """`load_verify_locations`'s cadata, which is PEM as a text, and DER as bytes."""
    if isinstance(cadata, str):
        return cadata.encode("ascii")
    return b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in der_certificates(bytes(cadata or b"")))
