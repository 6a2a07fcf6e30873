"""A mount namespace for one test: what is mounted in it is seen by nobody else and gone with it.

It belongs to a thread made for it (as `tests.support.namespace` does for networks): what that
thread opens, and the commands it runs, are inside.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")

_CLONE_NEWNS, _CLONE_FS = 0x0002_0000, 0x0000_0200
_libc = ctypes.CDLL(None, use_errno=True)


class Mounts:
    """A mount namespace for the time of a `with` block."""

    def __enter__(self) -> Self:
        self._executor = ThreadPoolExecutor(max_workers=1)
        try:
            self.run(_enter_new)
        except BaseException:
            self._executor.shutdown()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()

    def run(self, work: Callable[..., T], *args: object) -> T:
        """What `work` returns inside the namespace, always in the same thread."""
        return self._executor.submit(work, *args).result()


def _enter_new() -> None:
    if _libc.unshare(_CLONE_NEWNS | _CLONE_FS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    command("mount", "--make-rprivate", "/")


def command(*words: object) -> None:
    """Run a command in the calling thread's namespace; it has to succeed."""
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is in `folder`."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue
        os.fsync(stream.fileno())
    return path
