"""A network namespace without a name, for one function or one `with` block, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

from tests.support.apart import Apart

T = TypeVar("T")

_CLONE_NEWNET = 0x4000_0000


class Namespace(Apart):
    """A network namespace for the time of a `with` block.

    Attributes:
        path: a file that stands for it, while it is there.
    """

    flags = _CLONE_NEWNET
    path: str

    def prepare(self) -> None:
        """Bring up loopback."""
        ip("link set lo up")
        self.path = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"


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
