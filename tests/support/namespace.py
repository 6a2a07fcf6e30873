"""A network namespace without a name, for one function or one `with` block, and gone afterwards.

It belongs to a thread made for it, so the tests' own process never leaves its namespace. Only the
thread and what it opens (sockets, TUN interfaces, child processes) are inside.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace for the time of a `with` block.

    Attributes:
        path: a file that stands for it, while it is there.
    """

    path: str

    def __enter__(self) -> Self:
        self._executor = ThreadPoolExecutor(max_workers=1)
        try:
            self.path = self.run(_enter_new)
        except BaseException:
            self._executor.shutdown()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()

    def run(self, work: Callable[..., T], *args: object) -> T:
        """What `work` returns inside the namespace, always in the same thread."""
        return self._executor.submit(work, *args).result()


def _enter_new() -> str:
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    ip("link set lo up")
    return f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"


def in_namespace(work: Callable[[], T], *commands: str) -> T:
    """Run `work` in a fresh namespace, after these `ip` commands."""
    with Namespace() as namespace:
        namespace.run(ip, *commands)
        return namespace.run(work)


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
