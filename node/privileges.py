"""What the daemon may do to the machine, and who may look into it.

    muslin up     keep_secrets, narrow       before the first thread: all threads inherit it
      lane        keep_secrets, drop_all     when its queue and sockets are open

A daemon that somebody takes over should be worth as little as possible. Narrowed, it can change
networks and enter network namespaces, but not load modules, override permissions of files, change
users, trace, or set the clock; neither can what it starts, because the bounding set shrinks along
and no program that it runs gains anything (no_new_privs). A lane can do nothing at all: it has its
descriptors, and a queue of an interface that exists needs no privilege to open.

Kept, and why:

    NET_ADMIN         links, addresses, routes, sysctls, nft; socket buffers above the limit
    SYS_ADMIN         setns and mount: namespaces of pods
    SYS_PTRACE        to open /proc/PID/ns/net of a process that may do more than we (`--netns`)
    NET_RAW           the echo of `muslin ping`
    NET_BROADCAST     to hear what changes in the namespaces of pods
    NET_BIND_SERVICE  only if it listens below port 1024: lanes are started again
    DAC_OVERRIDE      only if the state folder belongs to somebody else

References:
    capabilities(7), "Transformation of capabilities during execve()"; capset(2); prctl(2):
    PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE; core(5).
    Linux include/uapi/linux/capability.h (numbers, layout of version 3).
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from node.errors import NodeError


class Capability(IntEnum):
    """Those that a daemon may keep, by the kernel's numbers."""

    DAC_OVERRIDE = 1
    NET_BIND_SERVICE = 10
    NET_BROADCAST = 11
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_PTRACE = 19
    SYS_ADMIN = 21


ALWAYS: Final = frozenset(
    {
        Capability.NET_BROADCAST,
        Capability.NET_ADMIN,
        Capability.NET_RAW,
        Capability.SYS_PTRACE,
        Capability.SYS_ADMIN,
    }
)
FIRST_FREE_PORT: Final = 1024
PRIVATE: Final = 0o077
"""The umask: what is made from now on is for its owner alone."""

_LAST_CAP: Final = Path("/proc/sys/kernel/cap_last_cap")
_VERSION_3: Final = 0x2008_0522
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_HEADER: Final = Struct("=Ii")  # version, pid
_DATA: Final = Struct("=6I")  # effective, permitted, inheritable: low words, then high words

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Sets(NamedTuple):
    """The capabilities of a thread, as bits."""

    effective: int
    permitted: int
    inheritable: int


def keep_secrets() -> None:
    """Leave nothing behind for others: no core dump, no memory to look into, no open files.

    Raises:
        NodeError: the kernel refused. Nothing else.
    """
    os.umask(PRIVATE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A core dump that is piped to a program ignores the limit; and this also keeps others of the
    # same user from /proc/PID/mem and /proc/PID/environ.
    _prctl(_PR_SET_DUMPABLE, 0)


def narrow(folder: Path, port: int) -> frozenset[Capability]:
    """Keep the capabilities that a daemon needs; all others are gone, also for what it starts.

    To be called before there is a second thread: capabilities belong to threads.

    Args:
        folder: the state folder.
        port: where it will listen.

    Returns:
        What is kept and was there.

    Raises:
        NodeError: the kernel refused. Nothing else.
    """
    wanted = set(ALWAYS)
    if port < FIRST_FREE_PORT:
        wanted.add(Capability.NET_BIND_SERVICE)
    held = read_sets()
    write_sets(held._replace(effective=held.effective & _bits(wanted)))
    if not _usable(folder):
        wanted.add(Capability.DAC_OVERRIDE)
    write_sets(held)
    _bound(held.permitted & _bits(wanted))
    kept = held.permitted & _bits(wanted)
    write_sets(Sets(kept, kept, held.inheritable & kept))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return frozenset(capability for capability in wanted if kept >> capability & 1)


def drop_all() -> None:
    """Keep no capability at all, and gain none ever again.

    Raises:
        NodeError: the kernel refused. Nothing else.
    """
    write_sets(Sets(0, 0, 0))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def read_sets() -> Sets:
    """The capabilities of the calling thread.

    Raises:
        NodeError: the kernel refused. Nothing else.
    """
    data = ctypes.create_string_buffer(_DATA.size)
    _call("reading capabilities", _libc.capget, _HEADER.pack(_VERSION_3, 0), data)
    words = _DATA.unpack(data.raw)
    return Sets(*(low | high << 32 for low, high in zip(words[:3], words[3:], strict=True)))


def write_sets(sets: Sets) -> None:
    """Set the capabilities of the calling thread; none can be gained.

    Raises:
        NodeError: the kernel refused. Nothing else.
    """
    low = [bits & 0xFFFF_FFFF for bits in sets]
    high = [bits >> 32 for bits in sets]
    data = _DATA.pack(*low, *high)
    _call("dropping capabilities", _libc.capset, _HEADER.pack(_VERSION_3, 0), data)


def _usable(folder: Path) -> bool:
    """Whether everything in the folder can be used with the present effective capabilities."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    may = os.R_OK | os.W_OK
    return os.access(folder, may | os.X_OK, effective_ids=True) and all(
        os.access(folder / name, may, effective_ids=True) for name in names
    )


def _bound(kept: int) -> None:
    """Let no program that is started later have more than `kept`."""
    for number in range(int(_LAST_CAP.read_text()) + 1):
        if not kept >> number & 1:
            # Without SETPCAP the set cannot shrink; then whoever took that away has seen to it.
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def _bits(capabilities: Iterable[Capability]) -> int:
    return sum(1 << capability for capability in capabilities)


def _prctl(option: int, value: int) -> None:
    _call("giving up privileges", _libc.prctl, option, value, 0, 0, 0)


def _call(doing: str, function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        raise NodeError.of(doing, OSError(ctypes.get_errno(), ""))
