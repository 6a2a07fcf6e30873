"""What the self-test found since the machine was started: a daemon that comes back need not wait.

Offloads are the kernel's, so what was found is true until another one is booted. It is kept in the
state folder, with all that it depends on; anything else there, or nothing, means to test again.
Only a test that failed nowhere is remembered: one that failed may have met a busy machine.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.errors import NodeError
from node.selftest.check import Result
from node.state import StateFolder, read_private
from node.surroundings import boot_id
from node.version import software_version
from overlay.errors import ConfigError

NAME: Final = "offloads"
"""The file in the state folder. It holds no secret and need not be kept."""


def recall(folder: StateFolder, wanted: tuple[str, ...]) -> Result | None:
    """What was found before, if that is still true; None: test.

    Args:
        folder: of the node.
        wanted: names of offloads.
    """
    known = _conditions(wanted)
    if known["boot"] and _read(folder.path / NAME) == known:
        return Result(wanted, {})
    return None


def remember(folder: StateFolder, wanted: tuple[str, ...], result: Result) -> None:
    """Keep what was found, if it is worth it. Arguments as for `recall`."""
    known = _conditions(wanted)
    if not result.failed and not result.trusted and _read(folder.path / NAME) != known:
        with suppress(NodeError):  # then it is tested again next time
            folder.write_raw(NAME, json.dumps(known).encode())


def _conditions(wanted: tuple[str, ...]) -> dict[str, object]:
    return {
        "boot": boot_id(),
        "kernel": os.uname().release,
        "version": software_version(),
        "offloads": list(wanted),
    }


def _read(path: Path) -> object:
    try:
        return json.loads(read_private(path))
    except (ConfigError, ValueError):
        return None
