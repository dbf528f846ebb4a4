"""Distinguished names as text (RFC 4514), for people. Code compares names as DER (RFC 5280, section 7.1). Pure."""

from __future__ import annotations

import re

from ssa.trust import der

# RFC 4514, section 3. Any other attribute is shown by its number.
_KEYWORDS = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}
# BMPString and UniversalString. All others are read as UTF-8: most are a subset, and some have an unknown encoding.
_ENCODINGS = {0x1E: "utf-16-be", 0x1C: "utf-32-be"}
_STRINGS = frozenset((0x0C, 0x12, 0x13, 0x14, 0x16, 0x1A, 0x1B, *_ENCODINGS))
_SPECIAL = re.compile(r'[\\"+,;<>]')


def text(name: bytes) -> str:
    r"""The text of a Name in DER. Bytes that are not in the expected encoding are escaped: ``CN=COMPA\xd1IA``."""
    try:
        relative = [_relative(der.elements_untrusted(part.body)) for part in der.sequence_untrusted(name)]
    except ValueError:
        return f"#{name.hex()}"
    return ",".join(reversed(relative))


def _relative(attributes: list[der.Element]) -> str:
    return "+".join(_attribute(der.elements_untrusted(attribute.body)) for attribute in attributes)


def _attribute(parts: list[der.Element]) -> str:
    if len(parts) != 2:
        raise ValueError("an attribute without a value")
    oid = der.oid_untrusted(parts[0].body)
    return f"{_KEYWORDS.get(oid, oid)}={_value(parts[1])}"


def _value(value: der.Element) -> str:
    if value.tag not in _STRINGS:
        return f"#{value.whole.hex()}"
    encoding = _ENCODINGS.get(value.tag, "utf-8")
    try:
        return _escaped(value.body.decode(encoding))
    except UnicodeDecodeError:
        pass
    if encoding != "utf-8":
        return f"#{value.whole.hex()}"
    # RFC 4514 has no such escapes, so that no two names are shown alike.
    return (
        _escaped(value.body.decode("utf-8", "surrogateescape"))
        .encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
    )


def _escaped(value: str) -> str:
    """Escape a value as RFC 4514, section 2.4, says."""
    shown = _SPECIAL.sub(r"\\\g<0>", value).replace("\0", "\\00")
    if shown.startswith(("#", " ")):
        shown = "\\" + shown
    return shown[:-1] + "\\ " if shown.endswith(" ") and value != " " else shown
