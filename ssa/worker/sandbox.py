"""Takes from a worker's process what it does not need: ids, capabilities, files, and system calls.

What is left is what it has been given: descriptors. Each of the four is taken where this kernel can, and the others all
the same; `missing` says what a kernel cannot. The process has to have one thread.

- Ids: a uid of its own, no group, and of the capabilities those two with which accept(2) is called in a user's name.
- PR_SET_DUMPABLE 0: no process of that uid reads its memory (ptrace(2)).
- Landlock (Linux 5.13): no file or directory at all. What has no path, such as a file in memory, can be opened again.
- seccomp: no new socket, connection, program, process or signal, and nothing that changes files, mounts or ids. Of
  setfsuid(2) the user's and its own uid pass; of setfsgid(2) any, but its own only where files can be opened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)

# include/uapi/linux/prctl.h, capability.h, landlock.h, seccomp.h
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_GET_SECCOMP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 8, 21, 22, 38
_CAPABILITIES = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_SETS = struct.Struct("=6I")  # effective, permitted, inheritable; and those of the capabilities from 32 on
_SETGID, _SETUID = 6, 7  # CAP_*
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION = 1
_FILES = {1: 13, 2: 14, 3: 15, 5: 16}  # by Landlock's version: how many LANDLOCK_ACCESS_FS_* there are
_CONNECTIONS, _SCOPES = 3, 3  # all LANDLOCK_ACCESS_NET_*, since version 4; all LANDLOCK_SCOPE_*, since version 6
_PR_SET_NAME = 15
_SECCOMP_MODE_FILTER = 2


@dataclass(frozen=True, slots=True)
class Ids:
    """Who a worker is: its own uid, which is its gid too; and the user's, in whose name it accepts."""

    own: int
    user: int


def enter(ids: Ids | None) -> None:
    """Enter the sandbox, for good. Without `ids` the process stays the user that it is. Raises OSError."""
    if ids is not None:
        _change(ids)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if _landlock_version():
        _leave_files()
    if _can_filter():
        gid = None if ids is None or _landlock_version() else ids.own
        _filter(frozenset() if ids is None else frozenset({ids.own, ids.user}), gid)


def name(text: str) -> None:
    """Give the process a name, as ps(1) shows it: 15 bytes of it."""
    _check(_libc.prctl(_PR_SET_NAME, text.encode(), 0, 0, 0), "prctl")


def keep_only_ids() -> None:
    """Of the capabilities keep those with which processes of other ids can be made. Raises OSError."""
    keep(_SETUID, _SETGID)


def keep(*capabilities: int) -> None:
    """Of the process's capabilities keep these, by their numbers (capabilities(7)). Raises OSError."""
    header, data = struct.pack("=Ii", _CAPABILITIES, 0), ctypes.create_string_buffer(_SETS.size)
    _check(_libc.capget(header, data), "capget")
    _, low, _, _, high, _ = _SETS.unpack(data.raw)
    wanted = (low | high << 32) & sum(1 << number for number in capabilities)
    halves = wanted & 0xFFFFFFFF, wanted >> 32
    sets = (halves[0], halves[0], 0, halves[1], halves[1], 0)
    _check(_libc.capset(header, _SETS.pack(*sets)), "capset")


def missing() -> list[str]:
    """The parts of the sandbox that this kernel lacks, in words."""
    found = []
    if not _landlock_version():
        found.append("no Landlock: a worker could open the files that every user can")
    if not _can_filter():
        found.append(f"no filter of system calls on {platform.machine()}: a worker could connect, and run programs")
    return found


# --- ids and capabilities -----------------------------------------------------------------------------------------


def _change(ids: Ids) -> None:
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(ids.own, ids.own, ids.own)
    os.setresuid(ids.own, ids.own, ids.own)
    keep_only_ids()


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


# --- files --------------------------------------------------------------------------------------------------------


def _landlock_version() -> int:
    """The version of Landlock; 0 where the kernel has none, or does not use it."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)))


def _leave_files() -> None:
    version = _landlock_version()
    files = (1 << max(number for since, number in _FILES.items() if since <= version)) - 1
    rules = struct.pack("=Q", files)
    if version >= 4:
        rules += struct.pack("=Q", _CONNECTIONS)
    if version >= 6:
        rules += struct.pack("=Q", _SCOPES)
    ruleset = _check(
        _libc.syscall(_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0), "landlock_create_ruleset"
    )
    try:
        _check(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


# --- system calls -------------------------------------------------------------------------------------------------

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # the column below, and AUDIT_ARCH_*

# The numbers of system calls that fail with EPERM, on x86_64 and aarch64.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "personality": (135, 92),
    "capset": (126, 91),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "utimensat": (280, 88),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "fchmodat2": (452, 452),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "truncate": (76, 45),
    "inotify_add_watch": (254, 27),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
}
_CLONE, _CLONE3 = (56, 220), 435
_TGKILL = (234, 131)
_SETFSUID, _SETFSGID = (122, 151), (123, 152)
_SOCKETPAIR, _UNIX = (53, 199), 1
_DATAGRAMS = 2  # this bit is in SOCK_DGRAM and SOCK_RAW, and not in SOCK_STREAM and SOCK_SEQPACKET
_CLONE_THREAD = 0x10000
_X32 = 0x40000000  # the numbers of x86's other interface begin here

# include/uapi/linux/bpf_common.h
_LOAD, _RETURN, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x20, 0x06, 0x15, 0x35, 0x45
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000  # SECCOMP_RET_*

_Instruction = tuple[int, int, int, int]  # code, where to go if true, and if false: instructions to pass over; value


def _machine() -> tuple[int, int] | None:
    return _MACHINES.get(platform.machine())


def _can_filter() -> bool:
    return _machine() is not None and _libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def _program(column: int, architecture: int, uids: frozenset[int], gid: int | None, pid: int) -> Iterator[_Instruction]:
    """The filter, in the order in which the kernel goes through it (Documentation/userspace-api/seccomp_filter.rst).

    `gid` is the one that setfsgid(2) may set; None: any.
    """
    refuse: _Instruction = (_RETURN, 0, 0, _FAIL | errno.EPERM)
    allow: _Instruction = (_RETURN, 0, 0, _ALLOW)
    yield from ((_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, architecture), refuse)
    yield from ((_LOAD, 0, 0, _NUMBER), (_IF_AT_LEAST, 0, 1, _X32), refuse)
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            yield from ((_IF_EQUAL, 0, 1, number), refuse)
    yield from ((_IF_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _FAIL | errno.ENOSYS))  # then libc calls clone
    yield from ((_IF_EQUAL, 0, 4, _CLONE[column]), (_LOAD, 0, 0, _FIRST), (_IF_ANY_BIT, 0, 1, _CLONE_THREAD))
    yield from (allow, refuse)
    yield from ((_IF_EQUAL, 0, 4, _TGKILL[column]), (_LOAD, 0, 0, _FIRST), (_IF_EQUAL, 0, 1, pid), allow, refuse)
    yield from ((_IF_EQUAL, 0, 6, _SOCKETPAIR[column]), (_LOAD, 0, 0, _FIRST), (_IF_EQUAL, 0, 2, _UNIX))
    yield from ((_LOAD, 0, 0, _SECOND), (_IF_ANY_BIT, 0, 1, _DATAGRAMS), refuse, allow)
    if gid is not None:
        yield from ((_IF_EQUAL, 0, 4, _SETFSGID[column]), (_LOAD, 0, 0, _FIRST), (_IF_EQUAL, 0, 1, gid), allow, refuse)
    yield from ((_IF_EQUAL, 0, 2 * len(uids) + 2, _SETFSUID[column]), (_LOAD, 0, 0, _FIRST))
    for uid in sorted(uids):
        yield from ((_IF_EQUAL, 0, 1, uid), allow)
    yield from (refuse, allow)


def _filter(uids: frozenset[int], gid: int | None) -> None:
    machine = _machine()
    if machine is None:
        return
    program = list(_program(*machine, uids, gid, os.getpid()))
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    whole = struct.pack("=H6xQ", len(program), ctypes.addressof(kept := ctypes.create_string_buffer(code, len(code))))
    _check(_libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), whole, 0, 0), "seccomp")
    del kept
