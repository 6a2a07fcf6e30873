"""A network namespace for one function: without a name, and gone when the function has returned.

It belongs to a thread made for it, so the tests' own process never leaves its namespace. Only the
thread and what it opens (sockets, TUN interfaces, child processes) are inside.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


def in_namespace(work: Callable[[], T], *commands: str) -> T:
    """Run `work` in a fresh namespace, after these `ip` commands."""

    def inside() -> T:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        ip("link set lo up", *commands)
        return work()

    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(inside).result()


def ip(*commands: str) -> str:
    """Run `ip COMMAND` for each, in the calling thread's namespace; returns what they print."""
    printed = [
        subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True).stdout
        for command in commands
    ]
    return "".join(printed)


def current() -> int:
    """The inode of the calling thread's namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino
