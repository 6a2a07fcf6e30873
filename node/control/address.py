"""Control sockets with paths of any length.

A socket address holds 107 bytes of path (unix(7)), and state folders can be deeper than that. Where
the path is too long, the folder is opened and the socket reached through `/proc/self/fd`, which
names the same file in a few bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from node.control.schema import SOCKET_PATH_MAX


@contextmanager
def short_path(path: str) -> Iterator[str]:
    """A name for `path` that fits a socket address, valid inside the `with` block.

    Raises:
        OSError: the folder does not exist or may not be opened.
    """
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        yield path
        return
    folder, name = os.path.split(path)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{name}"
    finally:
        os.close(handle)
