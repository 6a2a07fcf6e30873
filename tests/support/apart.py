"""A thread with a namespace of its own: the tests' own process never leaves where it is.

Only the thread and what it opens (sockets, TUN interfaces, child processes) are inside. The kernel
removes the namespace with the last of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Self, TypeVar

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


class Apart:
    """A thread that has left its process's namespace, for the time of a `with` block."""

    flags: ClassVar[int]
    """What it leaves, as unshare(2) has it."""

    def __enter__(self) -> Self:
        self._executor = ThreadPoolExecutor(max_workers=1)
        try:
            self.run(self._leave)
        except BaseException:
            self._executor.shutdown()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()

    def run(self, work: Callable[..., T], *args: object) -> T:
        """What `work` returns inside the namespace, always in the same thread."""
        return self._executor.submit(work, *args).result()

    def _leave(self) -> None:
        if _libc.unshare(self.flags) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        self.prepare()

    def prepare(self) -> None:
        """Called first, inside."""
