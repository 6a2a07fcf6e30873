"""A mount namespace for one test: what is mounted in it is seen by nobody else and gone with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.apart import Apart

_CLONE_NEWNS, _CLONE_FS = 0x0002_0000, 0x0000_0200


class Mounts(Apart):
    """A mount namespace for the time of a `with` block."""

    flags = _CLONE_NEWNS | _CLONE_FS

    def prepare(self) -> None:
        """Keep to ourselves what is mounted here."""
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
