"""A service's sandbox without systemd: `python -m tests.support.sandbox UNIT -- COMMAND ...`.

Reads a unit file and becomes the command under as much of it as one process can do to itself:

    CapabilityBoundingSet=        capset and PR_CAPBSET_DROP
    NoNewPrivileges=              prctl
    UMask=, LimitCORE=            umask, setrlimit
    MemoryDenyWriteExecute=       PR_SET_MDWE (Linux 6.3), stricter than systemd's filter
    SystemCallFilter=, RestrictAddressFamilies=, RestrictNamespaces=
                                  one seccomp filter, made by libseccomp as systemd's is

References:
    systemd.exec(5); seccomp(2); libseccomp include/seccomp.h (structs and constants).
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ALLOW = 0x7FFF_0000
ERRNO = 0x0005_0000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
EQUAL, MASKED_EQUAL = 4, 7
CLONE_NEWNET = 0x4000_0000
NAMESPACES = 0x7E02_0080
"""Every CLONE_NEW* flag: time, mount, cgroup, UTS, IPC, user, PID and network."""
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 38, 65
NAMES = """
    chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
    net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio
    sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time
    sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog
    wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
""".split()  # noqa: SIM905 (a list of them would be a column of forty lines)
"""Capabilities by number, as capabilities(7) names them."""

_libc = ctypes.CDLL(None, use_errno=True)


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def settings(*units: Path) -> dict[str, list[str]]:
    """Every setting of unit files, with its values in order; an empty one forgets those before."""
    found: dict[str, list[str]] = {}
    for unit in units:
        for line in unit.read_text("utf-8").splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith(("#", ";")):
                found.setdefault(key, []).append(value)
    return found


def expand(group: str) -> set[str]:
    """The system calls of a group (`@mount`), or the one that is named."""
    if not group.startswith("@"):
        return {group}
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    )
    words = [line.strip() for line in said.stdout.splitlines()[1:]]
    names = [word for word in words if word and not word.startswith("#")]
    return set().union(*map(expand, names)) if names else set()


def allowed_calls(values: Iterable[str]) -> set[str]:
    """What several SystemCallFilter= lines leave."""
    calls: set[str] = set()
    for value in values:
        groups = value.removeprefix("~").split()
        named = set().union(*map(expand, groups))
        calls = calls - named if value.startswith("~") else calls | named
    return calls


class Filter:
    """A seccomp filter that refuses what is not allowed."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2")
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._lib.seccomp_init(ERRNO | EPERM))

    def rule(self, action: int, call: str, *compares: Compare) -> None:
        """Add a rule; a call that this machine does not have needs none."""
        number = self._lib.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            array = (Compare * len(compares))(*compares)
            done = self._lib.seccomp_rule_add_array(
                self._context, action, number, len(compares), array
            )
            assert done == 0, (call, done)

    def load(self) -> None:
        """From now on, for this process and all that it starts."""
        assert self._lib.seccomp_load(self._context) == 0


def filtered(unit: dict[str, list[str]]) -> Filter:
    """The filter of a unit."""
    made = Filter()
    special = {"socket", "clone", "clone3", "unshare", "setns"}
    for call in allowed_calls(unit["SystemCallFilter"]) - special:
        made.rule(ALLOW, call)
    for family in unit["RestrictAddressFamilies"][-1].split():
        made.rule(ALLOW, "socket", Compare(0, EQUAL, getattr(socket, family)))
    assert unit["RestrictNamespaces"] == ["net"]
    others = NAMESPACES & ~CLONE_NEWNET
    for call in ("clone", "unshare"):
        made.rule(ALLOW, call, Compare(0, MASKED_EQUAL, others, 0))
    made.rule(ALLOW, "setns", Compare(1, EQUAL, CLONE_NEWNET))
    made.rule(ERRNO | ENOSYS, "clone3")  # its flags cannot be seen; libc then uses clone
    return made


def confine(unit: dict[str, list[str]]) -> None:
    """Put the calling process into the sandbox."""
    kept = unit["CapabilityBoundingSet"][-1].lower().replace("cap_", "").split()
    bits = sum(1 << NAMES.index(name) for name in kept)
    for number in range(len(NAMES)):
        if not bits >> number & 1:
            _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x2008_0522, 0)
    low, high = bits & 0xFFFF_FFFF, bits >> 32
    assert _libc.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)) == 0
    os.umask(int(unit["UMask"][-1], 8))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    assert unit["NoNewPrivileges"] == ["yes"]
    made = filtered(unit)
    assert _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if unit.get("MemoryDenyWriteExecute") == ["yes"]:
        _libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # an older kernel does not have it
    made.load()


def main(argv: list[str]) -> None:
    """Be the command behind `--`."""
    at = argv.index("--")
    confine(settings(*map(Path, argv[:at])))
    os.execv(argv[at + 1], argv[at + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
