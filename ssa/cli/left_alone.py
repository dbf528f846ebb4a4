"""The programs that `ssa coerce` leaves alone until the administrator says otherwise. Pure.

They are those without which a machine cannot be mended: they make their own TLS, if any, whatever has become of ssad.
clients/c/coerce/leave_alone.c reads the list, and has this one for where there is no other (tools/make-header).
"""

from __future__ import annotations

DEFAULT = {
    "init and what belongs to it": (
        "/usr/sbin/init",
        "/usr/lib/systemd/*",
        "/usr/bin/systemctl",
        "/usr/bin/journalctl",
        "/usr/sbin/agetty",
    ),
    "shells": (
        "/usr/bin/sh",
        "/usr/bin/bash",
        "/usr/bin/dash",
        "/usr/bin/zsh",
        "/usr/bin/fish",
        "/usr/bin/busybox",
    ),
    "logging in": (
        "/usr/bin/login",
        "/usr/bin/su",
        "/usr/bin/sudo",
        "/usr/sbin/sshd",
        "/usr/lib/openssh/*",
        "/usr/libexec/openssh/*",
    ),
    "package managers": (
        "/usr/bin/dpkg*",
        "/usr/bin/apt*",
        "/usr/lib/apt/*",
        "/usr/bin/unattended-upgrade*",
    ),
    "ssa itself": (
        "*/bin/ssad",
        "*/bin/ssa",
    ),
}
"""Patterns (fnmatch(3)) of paths, by what they are for. /usr/bin is /bin too, as it is on most systems."""

_HEAD = """\
# The programs whose TLS stays their own while `ssa coerce` is on. A program reads this when it begins to use TLS.
# A line is the path of an executable, or of a script; * stands for any characters, and /usr/bin for /bin too.
"""


def patterns() -> list[str]:
    """All of them."""
    return [pattern for group in DEFAULT.values() for pattern in group]


def text() -> str:
    """The file, as `ssa coerce on` writes it where there is none."""
    groups = "".join(f"\n# {what}\n" + "".join(f"{line}\n" for line in lines) for what, lines in DEFAULT.items())
    return _HEAD + groups


def read_untrusted(content: str) -> list[str]:
    """The patterns of a file: clients/c/coerce/leave_alone.c reads it the same way."""
    lines = (line.partition("#")[0].strip(" \t\r") for line in content.split("\n"))
    return [line for line in lines if line]
