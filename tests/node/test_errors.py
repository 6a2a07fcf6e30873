"""Errors as the clauses that people read."""

from __future__ import annotations

import errno

import pytest

from node.errors import NodeError, clauses
from overlay.errors import CapacityError, ConfigError, RefusedError, WireError


def test_a_system_error_says_what_was_being_done_and_how_to_help() -> None:
    error = NodeError.of("writing /x", OSError(errno.ENOSPC, "No space left on device"))
    assert clauses(error) == (
        "enospc",
        "writing /x: no space left on device",
        "free some disk space",
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RefusedError("pod-exists", "pod web exists", "choose"),
            ("pod-exists", "pod web exists", "choose"),
        ),
        (ConfigError("must be 1", "mtu"), ("bad-setting", "mtu: must be 1", "")),
        (ConfigError("broken"), ("bad-setting", "broken", "")),
        (CapacityError("all taken", "pods"), ("limit-reached", "all taken", "")),
        (WireError("short"), ("failed", "short", "")),
        (
            OSError(errno.EROFS, "x", "/f"),
            ("erofs", "/f: read-only file system", "remount it writable"),
        ),
    ],
)
def test_every_error_has_a_code_a_reason_and_a_fix(error, expected) -> None:
    assert clauses(error) == expected
